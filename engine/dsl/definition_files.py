"""Which files of a source hold definitions: the same answer for `validate`, the hooks and the sync daemon."""

from __future__ import annotations

from pathlib import PurePosixPath

FUNCTIONS = "functions"
"""Folder of a source with the code of its `python_function` tasks."""

SUFFIXES = (".yaml", ".yml")
_TEST_SUFFIXES = (".test.yaml", ".test.yml")


def is_definition(path: PurePosixPath) -> bool:
    """Whether the file at `path`, relative to the source's folder, is a definition.

    YAML files are, in subfolders too, but for tests of definitions, hidden files and folders, and `functions/`.
    """
    if not path.name.endswith(SUFFIXES) or path.name.endswith(_TEST_SUFFIXES):
        return False
    return path.parts[0] != FUNCTIONS and not any(part.startswith(".") for part in path.parts)
