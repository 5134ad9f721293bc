"""The folder `functions/` beside definitions on disk, as the check of their calls wants it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache

from engine.dsl.bundle import MAX_BYTES
from engine.dsl.check_functions import ACTIVITY, check_functions
from engine.dsl.checking import Checked
from engine.dsl.definition_files import FUNCTIONS
from engine.errors import Problem


def function_problems(checked: Checked, text: bytes, path: str, source: str, shown: str) -> list[Problem]:
    """What is wrong with the calls of a definition that is right otherwise; nothing if there is no such folder."""
    if checked.compiled is None or ACTIVITY.encode() not in text:
        return []
    folder = _folder(path, source)
    if not folder:
        return []

    def read(file: str) -> bytes:
        with open(os.path.join(folder, file), "rb") as opened:
            return opened.read(MAX_BYTES)

    try:
        return check_functions(checked.compiled, text, shown, _modules(folder), read)
    except OSError:
        return []  # it went while we looked


def _folder(path: str, source: str) -> str:
    """That of the source, or of the nearest folder above a file that stands alone; "" if there is none."""
    at = source or os.path.dirname(path) or "."
    for each in (at,) if source else _upwards(os.path.abspath(at)):
        candidate = os.path.join(each, FUNCTIONS)
        if os.path.isdir(candidate):
            return candidate
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


@lru_cache(maxsize=16)
def _modules(folder: str) -> frozenset[str]:
    found = set()
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py") and os.path.isfile(path):
                found.add(os.path.relpath(path, folder).replace(os.sep, "/"))
    return frozenset(found)
