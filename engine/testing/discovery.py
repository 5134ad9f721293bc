"""Which test files there are, and where the definitions are that they test."""

from __future__ import annotations

import os
from collections.abc import Iterator

from engine.dsl import codes, loader
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import Checked, check
from engine.dsl.definition_files import FUNCTIONS, SUFFIXES, TEST_SUFFIXES, is_definition
from engine.errors import Problem
from engine.testing.cases import CaseFile
from engine.testing.reading import read


class Library:
    """Reads test files and, once each, the definitions beside them."""

    def __init__(self, types: ActivityTypes) -> None:
        self._types = types
        self._checked: dict[str, Checked] = {}
        self._names: dict[str, dict[str, str]] = {}

    def load(self, path: str) -> CaseFile:
        """The test file at `path`, with its definition."""
        file = _shown(path)
        text = _bytes(path)
        if isinstance(text, Problem):
            return CaseFile(file, problems=[text])

        def find(workflow: str) -> tuple[str, Checked] | list[str]:
            names = self._in_folder(os.path.dirname(path))
            if workflow not in names:
                return sorted(names)
            return _shown(names[workflow]), self._check(names[workflow])

        return read(text, file, find)

    def tests_of(self, definition: str) -> list[str]:
        """The test files that name the workflow of this definition."""
        folder = os.path.dirname(definition)
        names = {name for name, path in self._in_folder(folder).items() if path == definition}
        return [path for path in _inside(folder or ".", deep=False) if self._tested(path) in names]

    def _tested(self, path: str) -> str:
        text = _bytes(path)
        document = loader.load(text) if isinstance(text, bytes) else []
        data = None if isinstance(document, list) else document.data
        return str(data.get("workflow") or "") if isinstance(data, dict) else ""

    def _in_folder(self, folder: str) -> dict[str, str]:
        """Names of workflows in a folder, each with its file; the first in order of file names counts."""
        if folder not in self._names:
            found: dict[str, str] = {}
            for name in sorted(os.listdir(folder or ".")):
                path = os.path.join(folder, name)
                if is_definition(name) and os.path.isfile(path):
                    found.setdefault(_name(path), path)
            found.pop("", None)
            self._names[folder] = found
        return self._names[folder]

    def _check(self, path: str) -> Checked:
        if path not in self._checked:
            text = _bytes(path)
            assert isinstance(text, bytes)  # its name was read a moment ago
            self._checked[path] = check(text, _shown(path), self._types)
        return self._checked[path]


def find(paths: list[str], library: Library) -> Iterator[str | Problem]:
    """The test files at `paths`, each once, in order.

    A folder stands for all of its test files, a definition for those that name its workflow; what is neither, such
    as a function that a hook was started for, is passed over.
    """
    seen: set[str] = set()
    for path in map(os.path.normpath, paths):
        if os.path.isdir(path):
            found = _inside(path)
            if not found:
                yield Problem(codes.UNREADABLE, "no test files (*.test.yaml) in this folder", _shown(path))
        elif not os.path.isfile(path):
            yield Problem(codes.UNREADABLE, "there is no such file or folder", _shown(path))
            continue
        elif path.endswith(TEST_SUFFIXES):
            found = [path]
        elif path.endswith(SUFFIXES) and FUNCTIONS not in path.split(os.sep)[:-1]:
            found = library.tests_of(path)
        else:
            found = []
        for each in found:
            if (real := os.path.realpath(each)) not in seen:
                seen.add(real)
                yield each


def _inside(folder: str, *, deep: bool = True) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != FUNCTIONS]
        if not deep:
            folders[:] = []
        found += [
            os.path.normpath(os.path.join(place, name))
            for name in files
            if name.endswith(TEST_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _name(path: str) -> str:
    text = _bytes(path)
    document = loader.load(text) if isinstance(text, bytes) else []
    data = None if isinstance(document, list) else document.data
    name = data.get("name") if isinstance(data, dict) else None
    return name if isinstance(name, str) else ""


def _bytes(path: str) -> bytes | Problem:
    try:
        # One byte more than is allowed is enough to refuse, however large the file is.
        with open(path, "rb") as opened:
            return opened.read(loader.MAX_BYTES + 1)
    except OSError as error:
        return Problem(codes.UNREADABLE, f"cannot be read: {error.strerror}", _shown(path))


def _shown(path: str) -> str:
    return path.replace(os.sep, "/")
