"""The folder `functions/` beside definitions on disk, as the checks of their calls and of its lock want it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

from engine.dsl.check_functions import (
    ACTIVITY,
    Functions,
    allowed_packages,
    check_functions,
    names_of,
)
from engine.dsl.checking import Checked
from engine.dsl.definition_files import FUNCTIONS
from engine.dsl.function_lock import FILES, check_lock
from engine.errors import Problem

_MAX_FILE = 8 * 1024 * 1024


def function_problems(
    checked: Checked, text: bytes, path: str, source: str, shown: str, known: dict[str, Functions]
) -> tuple[str, list[Problem]]:
    """The folder that a definition's functions stand in, and what is wrong with its calls; "" and nothing without any.

    A file that stands alone, with no such folder above it, is not judged: it may be on its way to one. `known` keeps the
    folders that were read.
    """
    if checked.compiled is None or ACTIVITY.encode() not in text:
        return "", []
    folder = _folder(path, source)
    if not folder:
        return "", []
    if folder not in known:
        known[folder] = _functions(folder)
    return folder, check_functions(checked.compiled, text, shown, known[folder])


def lock_problems(folder: str) -> list[Problem]:
    """What is wrong with what a folder `functions/` says of packages."""
    files = {}
    for name in FILES:
        try:
            files[name] = _read(os.path.join(folder, name))
        except OSError:
            continue  # it has no such file
    return check_lock(files, folder.replace(os.sep, "/"))


def _folder(path: str, source: str) -> str:
    """That of the source, or the nearest above a file that stands alone; "" if there is none."""
    if source:
        return os.path.join(source, FUNCTIONS)
    above = os.path.dirname(path) or "."
    for each in _upwards(os.path.abspath(above)):
        candidate = os.path.join(each, FUNCTIONS)
        if os.path.isdir(candidate):
            return os.path.relpath(candidate) if not os.path.isabs(path) else candidate
        if os.path.exists(os.path.join(each, ".git")):
            break
    return ""


def _upwards(folder: str) -> Iterator[str]:
    while True:
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above


def _functions(folder: str) -> Functions:
    paths = set()
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py") and os.path.isfile(path):
                paths.add(os.path.relpath(path, folder).replace(os.sep, "/"))

    @cache
    def names_in(file: str) -> frozenset[str] | None:
        try:
            return names_of(_read(os.path.join(folder, file)))
        except OSError:
            return None  # it went while we looked

    return Functions(frozenset(paths), names_in, allowed_packages(os.environ))


def _read(path: str) -> bytes:
    with open(path, "rb") as opened:
        return opened.read(_MAX_FILE)
