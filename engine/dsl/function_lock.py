"""What a bundle of functions says about the packages that it needs: a `uv.lock`, or a `requirements.txt`.

Both are read as locks: every package with its one version. A range would make what a run executes depend on the day
on which a worker was started, and the pin would no longer cover it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.dsl import codes
from engine.errors import Problem

LOCK = "uv.lock"
PROJECT = "pyproject.toml"
REQUIREMENTS = "requirements.txt"
FILES = (LOCK, PROJECT, REQUIREMENTS)
"""What of `functions/` says something about packages."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PINNED = re.compile(rf"{_NAME} ?(?:\[[A-Za-z0-9._, -]+\] ?)?===? ?[A-Za-z0-9][A-Za-z0-9.!+_-]*(?: ?;.*)?")
_HASH = re.compile(r"[a-z0-9]+:[0-9a-f]+")
_COMMENT = re.compile(r"(^|\s)#.*$")
_HINT = (
    "write the whole list with `uv pip compile --generate-hashes`, or keep a uv.lock beside pyproject.toml"
)


class LockError(ValueError):
    """The packages cannot be taken from the bundle. The message names the file, and the line if there is one."""

    def __init__(self, message: str, *, file: str, line: int = 0) -> None:
        super().__init__(f"functions/{file}{f':{line}' if line else ''}: {message}")
        self.reason = message
        self.file = file
        self.line = line


@dataclass(frozen=True, slots=True)
class FunctionLock:
    """The files of a bundle that say which packages it needs, and the digest that they are known by."""

    files: Mapping[str, bytes]
    digest: str

    @property
    def is_project(self) -> bool:
        """Whether it is a `uv.lock`, which goes before a `requirements.txt`."""
        return LOCK in self.files


def find_lock(files: Mapping[str, bytes]) -> FunctionLock | None:
    """What the bundle needs, None if that is nothing but Python. Raises `LockError` for what cannot be a lock."""
    if LOCK in files:
        if PROJECT not in files:
            raise LockError(f"there is no {PROJECT} beside it", file=LOCK)
        return _lock(files, LOCK, PROJECT)
    if REQUIREMENTS not in files:
        return None
    text = files[REQUIREMENTS].decode("utf-8", errors="replace")
    return _lock(files, REQUIREMENTS) if check_pinned(text, REQUIREMENTS) else None


def check_lock(files: Mapping[str, bytes], folder: str) -> list[Problem]:
    """What keeps the packages from being installed, if anything. `folder` is how problems name `functions/`."""
    try:
        find_lock(files)
    except LockError as error:
        place = f"{folder}/{error.file}"
        return [Problem(codes.FUNCTION_LOCK, error.reason, place, error.line, int(error.line > 0))]
    return []


def check_pinned(text: str, file: str) -> bool:
    """Whether the list has packages at all. Raises `LockError` for the first that is not one version of an index's."""
    found = False
    for number, line in _lines(text):
        found = True
        if not _is_pinned(line):
            raise LockError(f"`{_shown(line)}` is no `name==version`; {_HINT}", file=file, line=number)
    return found


def _lock(files: Mapping[str, bytes], *names: str) -> FunctionLock:
    chosen = {name: files[name] for name in names}
    made = hashlib.sha256()
    for name, content in chosen.items():
        made.update(f"{name}\0{len(content)}\0".encode() + content)
    return FunctionLock(chosen, made.hexdigest())


def _is_pinned(line: str) -> bool:
    head, *hashes = re.split(r" --hash[= ]", " ".join(line.split()))
    return bool(_PINNED.fullmatch(head)) and all(_HASH.fullmatch(each) for each in hashes)


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines with content, continued ones joined, with the number at which each begins."""
    found: list[tuple[int, str]] = []
    pending, began = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw).strip()
        began = began if pending else number
        pending = f"{pending} {line}".strip()
        if pending.endswith("\\"):
            pending = pending[:-1].strip()
            continue
        if pending:
            found.append((began, pending))
        pending = ""
    return [*found, (began, pending)] if pending else found


def _shown(line: str) -> str:
    """Enough to find it by, without what may be a password in a URL."""
    return re.sub(r"//[^/@\s]*@", "//***@", line)[:80]
