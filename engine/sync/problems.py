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
HISTORY_REWRITTEN = "HISTORY_REWRITTEN"
UNTRUSTED = "UNTRUSTED"
SIGNER_NEEDED = "SIGNER_NEEDED"
TRUST_BROKEN = "TRUST_BROKEN"
NOT_RETIRED = "NOT_RETIRED"
REFUSED = "REFUSED"
SOURCES_FILE = "SOURCES_FILE"

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
    MASS_DELETION: "The commit would retire more definitions than `max_deletions` and `max_deletions_percent` allow.",
    EMPTY_FOLDER: "The commit leaves no definition at all in the source's folder.",
    HISTORY_REWRITTEN: "A forced push dropped the live commit, and the source holds such pushes.",
    UNTRUSTED: "A commit has no signature of a key that the source trusts.",
    SIGNER_NEEDED: "A rule reserves what the commit changes for the signers of a group.",
    TRUST_BROKEN: "The operator's files of keys cannot be read, so no signature can be judged.",
    NOT_RETIRED: "A definition's file is gone, but it may have moved to a file that has a problem, or another that stays as it is calls it; it stays live (`mode: isolated`).",
    REFUSED: "The registry could not take the commit, twice, by a fault of ours. Later commits are looked at. Please report it.",
    SOURCES_FILE: "A list of sources has a fault. The last good list stays in force.",
}
