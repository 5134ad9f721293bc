"""Git's objects as data: commits, trees, and what differs between two trees. No process, no file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from engine.errors import SourceError
from engine.sync.conditions import MIRROR_BROKEN

MAX_ENTRIES = 100_000
"""Files (and folders) below a source's folder; a tree with more is not read to the end."""
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a tree: git's mode bits and the object's id."""

    mode: int
    sha: str

    @property
    def is_tree(self) -> bool:
        """A folder."""
        return self.mode & 0o170000 == 0o040000

    @property
    def is_file(self) -> bool:
        """A regular file, executable or not."""
        return self.mode & 0o170000 == 0o100000

    @property
    def kind(self) -> str:
        """In words, for messages."""
        known = {0o040000: "folder", 0o100000: "file", 0o120000: "symbolic link", 0o160000: "submodule"}
        return known.get(self.mode & 0o170000, f"entry of mode {self.mode:o}")


@dataclass(frozen=True, slots=True)
class CommitObject:
    """What a commit says of itself. None of it is proof of identity."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: str
    author_email: str
    committer: str
    committed_at: datetime
    message: str

    @property
    def subject(self) -> str:
        """The first line of the message, 200 characters at most."""
        return self.message.strip().partition("\n")[0][:200]

    @property
    def authors(self) -> tuple[tuple[str, str], ...]:
        """(name, email) of who wrote it, first the author of the commit, then those that `Co-authored-by` lines name."""
        named = (_person(value.strip())[:2] for value in _CO_AUTHOR.findall(self.message))
        return tuple(dict.fromkeys([(self.author, self.author_email), *named]))

    def trailer(self, key: str) -> str:
        """The value of `Key: value` in the last paragraph of the message, "" without it."""
        last = self.message.strip().replace("\r\n", "\n").rpartition("\n\n")[2]
        for line in last.splitlines():
            found, _, value = line.partition(":")
            if found.strip().lower() == key.lower():
                return value.strip()
        return ""


class TreeTooLarge(Exception):
    """A tree has more entries or levels than are read."""


_LARGEST_TIME = 253_402_300_799  # the last second that Python's datetime knows
_PERSON = re.compile(r"(.*?) ?<(.*?)> ?(-?\d*)")
# Anywhere in the message: a forge that squashes puts its own words after them.
_CO_AUTHOR = re.compile(r"^co-authored-by:(.*)$", re.IGNORECASE | re.MULTILINE)
_MAX_PERSON = 1000
"""Characters that are looked at: the search takes the square of them."""


def parse_commit(sha: str, content: bytes) -> CommitObject:
    """Read a commit object. Odd ones do not fail: git's history is full of them."""
    header, _, message = content.partition(b"\n\n")
    fields: dict[str, list[str]] = {}
    for line in header.decode("utf-8", "replace").replace("\0", "").split("\n"):
        key, _, value = line.partition(" ")
        fields.setdefault(key, []).append(value)
    author, email, _ = _person(fields.get("author", [""])[0])
    committer, _, time = _person(fields.get("committer", [""])[0])
    return CommitObject(
        sha=sha,
        tree=fields.get("tree", [""])[0],
        parents=tuple(fields.get("parent", [])),
        author=author,
        author_email=email,
        committer=committer,
        committed_at=datetime.fromtimestamp(max(0, min(time, _LARGEST_TIME)), UTC),
        message=message.decode("utf-8", "replace").replace("\0", ""),
    )


def _person(text: str) -> tuple[str, str, int]:
    found = _PERSON.match(text[:_MAX_PERSON])
    if not found:
        return text[:200], "", 0
    digits = found[3][:15]
    return found[1][:200], found[2][:200], int(digits) if digits.lstrip("-") else 0


# No possessive quantifiers: before Python 3.11.5 they match too much where they hold a group.
_ENTRY = {
    40: re.compile(rb"([0-7]{5,6}) ([^\0]+)\0(.{20})", re.DOTALL),
    64: re.compile(rb"([0-7]{5,6}) ([^\0]+)\0(.{32})", re.DOTALL),
}
# As many whole entries as there are: where they end, an entry begins.
_ENTRIES = {
    40: re.compile(rb"(?:[0-7]{5,6} [^\0]+\0.{20})*", re.DOTALL),
    64: re.compile(rb"(?:[0-7]{5,6} [^\0]+\0.{32})*", re.DOTALL),
}


_Raw = tuple[bytes, bytes, bytes]


def parse_tree(content: bytes, digits: int = 40) -> dict[str, Entry]:
    """The entries of a tree object by name; bytes that are no UTF-8 become surrogates (PEP 383)."""
    return _entries(_ENTRY[digits].findall(content))


def _entries(raw: Iterable[_Raw]) -> dict[str, Entry]:
    return {
        name.decode("utf-8", "surrogateescape"): Entry(int(mode, 8), sha.hex()) for mode, name, sha in raw
    }


Difference = dict[str, tuple[Entry | None, Entry | None]]
"""Path → (entry before, entry now), for everything that is not a folder and is not the same."""


def diff_trees(read: Callable[[str], bytes], old: str, new: str) -> Difference:
    """What differs between two trees, by ids ("" for none). `read` gives the content of a tree object.

    Folders with the same id are not entered: the cost is that of the change.  Raises `TreeTooLarge`.
    """
    found: Difference = {}
    visits = itertools.count(1)
    for path, pair in _walk(read, old, new, "", 0, visits):
        found[path] = pair
        if len(found) > MAX_ENTRIES:
            raise TreeTooLarge(f"more than {MAX_ENTRIES} files")
    return found


def _walk(
    read: Callable[[str], bytes], old: str, new: str, prefix: str, depth: int, visits: Iterator[int]
) -> Iterator[tuple[str, tuple[Entry | None, Entry | None]]]:
    if old == new:
        return
    # A dozen small objects can make a tree of ten to the power of ten folders, without a single file.
    if next(visits) > MAX_ENTRIES:
        raise TreeTooLarge(f"more than {MAX_ENTRIES} folders")
    if depth > MAX_DEPTH:
        raise TreeTooLarge(f"more than {MAX_DEPTH} levels of folders")
    raw_before, raw_now = _without_the_same(
        read(old) if old else b"", read(new) if new else b"", len(old or new)
    )
    before, now = _entries(raw_before - raw_now), _entries(raw_now - raw_before)
    for name in sorted(before.keys() | now.keys()):
        left, right = before.get(name), now.get(name)
        path = f"{prefix}{name}"
        left_tree = left.sha if left and left.is_tree else ""
        right_tree = right.sha if right and right.is_tree else ""
        if left_tree or right_tree:
            yield from _walk(read, left_tree, right_tree, f"{path}/", depth + 1, visits)
        left_leaf = left if left and not left.is_tree else None
        right_leaf = right if right and not right.is_tree else None
        if left_leaf != right_leaf:
            yield path, (left_leaf, right_leaf)


def _without_the_same(old: bytes, new: bytes, digits: int) -> tuple[set[_Raw], set[_Raw]]:
    """The raw entries of two tree objects, without those that both begin with and most that both end with.

    Most commits change one file of a folder of thousands: comparing bytes is what costs least there.
    """
    entry = _ENTRY[digits]
    begin = _begin_of_difference(old, new, digits)
    # The first entry that differs may be changed, added or removed: behind it, the rest may be the same bytes.
    left, right = entry.match(old, begin), entry.match(new, begin)
    for i, j in ((left, right), (None, right), (left, None)):
        after_old, after_new = (i.end() if i else begin), (j.end() if j else begin)
        if len(old) - after_old == len(new) - after_new and old[after_old:] == new[after_new:]:
            return (
                set(entry.findall(old, begin, after_old)),
                set(entry.findall(new, begin, after_new)),
            )
    return set(entry.findall(old, begin)), set(entry.findall(new, begin))


def _begin_of_difference(old: bytes, new: bytes, digits: int) -> int:
    """Where the first entry that is not in both begins."""
    low, high = 0, min(len(old), len(new)) + 1
    while high - low > 1:  # old[:low] == new[:low] always holds, old[:high] == new[:high] never
        middle = (low + high) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle
    found = _ENTRIES[digits].match(old, 0, low)
    return found.end() if found else 0


def folder_entry(read: Callable[[str], bytes], root: str, folder: str) -> Entry | None:
    """The entry of `folder` ("" or "." for the root) below the tree `root`, or None."""
    entry: Entry | None = Entry(0o040000, root)
    for name in folder.split("/"):
        if name in ("", "."):
            continue
        if entry is None or not entry.is_tree:
            return entry  # a link or a file stands where a folder should: the caller says so
        entry = parse_tree(read(entry.sha), len(root)).get(name)
    return entry


def damaged(what: str) -> SourceError:
    """Our own copy does not hold what it must."""
    return SourceError(f"the mirror is damaged: {what}", reason=MIRROR_BROKEN)
