"""Which files of a source hold definitions: the same answer for `validate`, the hooks and the sync daemon."""

from __future__ import annotations

FUNCTIONS = "functions"
"""Folder of a source with the code of its `python_function` tasks."""

SUFFIXES = (".yaml", ".yml")
TEST_SUFFIXES = (".test.yaml", ".test.yml")


def is_definition(path: str) -> bool:
    """Whether the file at `path`, relative to the source's folder and with `/`, is a definition.

    YAML files are, in subfolders too, but for tests of definitions, hidden files and folders, and `functions/`.
    """
    if not path.endswith(SUFFIXES) or path.endswith(TEST_SUFFIXES):
        return False
    parts = path.split("/")
    return (len(parts) == 1 or parts[0] != FUNCTIONS) and not any(part.startswith(".") for part in parts)
