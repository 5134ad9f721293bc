"""The codes of problems that a commit can have beyond those of a single definition. Each is a promise.

Their sections stand in `docs/reference/conditions.md`.
"""

from __future__ import annotations

SYMLINK = "SYMLINK"
SUBMODULE = "SUBMODULE"
FILE_NAME = "FILE_NAME"
TOO_MANY_FILES = "TOO_MANY_FILES"
NO_FOLDER = "NO_FOLDER"
DUPLICATE_NAME = "DUPLICATE_NAME"
BUNDLE = "BUNDLE"
CHECK_CRASHED = "CHECK_CRASHED"
CHECK_FAILED = "CHECK_FAILED"
MASS_DELETION = "MASS_DELETION"
EMPTY_FOLDER = "EMPTY_FOLDER"

MEANINGS: dict[str, str] = {
    SYMLINK: "A symbolic link stands in the source's folder. Put a copy of the file there: a link could point anywhere.",
    SUBMODULE: "A submodule stands in the source's folder. Only files of the repository itself are read.",
    FILE_NAME: "The name of a file is no UTF-8, holds a control character or is too long. Rename it.",
    TOO_MANY_FILES: "The source's folder holds more files, folders or levels of folders than are read, or a commit more text.",
    NO_FOLDER: "Where the source's folder should be stands a file, a link or a submodule.",
    DUPLICATE_NAME: "Two files of the source define a workflow of the same name. Rename one; both places are shown.",
    BUNDLE: "The folder `functions/` cannot be bundled: too many files, too large, or an impossible name.",
    CHECK_CRASHED: "The process that checks definitions died or hung on this file. The file is hostile, or you found a fault of ours.",
    CHECK_FAILED: "The check of this file failed by a fault of ours. Please report it with the file.",
    MASS_DELETION: "The commit would retire more definitions than `max_deletions` and more than half of all.",
    EMPTY_FOLDER: "The commit leaves no definition at all in the source's folder.",
}
