"""What differs between two meanings: each difference with its place, its task, and the definitions around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from engine.core.contracts import Json
from engine.dsl.loader import Path
from engine.planning.meaning import Meaning, TaskMeaning
from engine.planning.plans import Kind

_ABSENT: Final = object()
_NOT_LISTED: Final = (1 << 31, _ABSENT)
"""Index and value of an item that is not in the list."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `key` is the path inside of `task`, or in the definition where it is of no task.

    For a task that came or went, `key` is empty. `note` says what a rule of its own has found (an `effect`).
    """

    kind: Kind
    path: str
    key: tuple[str, ...]
    old: Json
    new: Json
    before: Meaning
    after: Meaning
    old_task: TaskMeaning | None = None
    new_task: TaskMeaning | None = None
    place: Path = ()
    note: str = ""

    @property
    def task(self) -> TaskMeaning | None:
        """The task that it is about, as it is or was."""
        return self.new_task or self.old_task


def differences(before: Meaning, after: Meaning) -> Iterator[Difference]:
    """All that differs, the definition itself first, then its tasks in the order of the new file."""
    for found in _compare(before.top, after.top, (), (), ()):
        kind, old, new = _told(before, found.old_place, found.old, after, found.place, found.new)
        yield Difference(kind, ".".join(found.key), found.key, old, new, before, after, place=found.place)
    for path in dict.fromkeys([*after.tasks, *before.tasks]):
        yield from _of_task(before, after, before.tasks.get(path), after.tasks.get(path))


def _of_task(
    before: Meaning, after: Meaning, old: TaskMeaning | None, new: TaskMeaning | None
) -> Iterator[Difference]:
    if new is None:
        assert old is not None
        place: Path = (old.place[0],)
        raw = _at(before.document.data, old.place)
        yield Difference("removed", old.path, (), raw, None, before, after, old, None, place)
        return
    if old is None:
        raw = _at(after.document.data, new.place)
        yield Difference("added", new.path, (), None, raw, before, after, None, new, new.place)
        return
    for found in _compare(old.data, new.data, (), (), ()):
        old_place, place = _place(old, found.key, found.old_place), _place(new, found.key, found.place)
        kind, was, now = _told(before, old_place, found.old, after, place, found.new)
        kind = "effect" if _is_effect(old, new, found.key[0]) else kind
        path = f"{new.path}.{'.'.join(found.key)}"
        yield Difference(kind, path, found.key, was, now, before, after, old, new, place)


def _is_effect(old: TaskMeaning, new: TaskMeaning, key: str) -> bool:
    """Whether the value comes from `defaults` on each side on which there is one."""
    sides = [task for task in (old, new) if key in task.data]
    return bool(sides) and all(key in task.inherited for task in sides)


def _place(task: TaskMeaning, key: tuple[str, ...], inside: Path) -> Path:
    if key[0] in task.inherited:
        return (*task.inherited[key[0]], *inside[1:])
    return (*task.place, *inside)


@dataclass(frozen=True, slots=True)
class _Found:
    """Two canonical values that differ, one of them perhaps absent, and where each stands below what was compared."""

    key: tuple[str, ...]
    old: Any
    new: Any
    old_place: Path
    place: Path


def _compare(old: Any, new: Any, key: tuple[str, ...], old_place: Path, place: Path) -> Iterator[_Found]:
    if old == new and type(old) is type(new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*new, *old]):
            sides = old.get(name, _ABSENT), new.get(name, _ABSENT)
            yield from _compare(*sides, (*key, name), (*old_place, name), (*place, name))
    elif key and (numbered := _by_id(old, new)):
        before, after = numbered
        for name in dict.fromkeys([*after, *before]):
            was, now = before.get(name, _NOT_LISTED), after.get(name, _NOT_LISTED)
            yield from _compare(was[1], now[1], (*key, name), (*old_place, was[0]), (*place, now[0]))
    else:
        yield _Found(key, old, new, old_place, place)


_Numbered = dict[str, tuple[int, Json]]


def _by_id(old: Any, new: Any) -> tuple[_Numbered, _Numbered] | None:
    """Two lists of things with an id, such as triggers, by id; None for any other lists."""
    sides = [[] if side is _ABSENT else side for side in (old, new)]
    if not all(isinstance(side, list) for side in sides) or not any(sides):
        return None
    numbered: list[_Numbered] = []
    for side in sides:
        if not all(isinstance(item, dict) and isinstance(item.get("id"), str) for item in side):
            return None
        numbered.append({item["id"]: (index, item) for index, item in enumerate(side)})
    return numbered[0], numbered[1]


def _told(
    before: Meaning, old_place: Path, old: Any, after: Meaning, place: Path, new: Any
) -> tuple[Kind, Json, Json]:
    """The kind of a difference, and its two values as the files have them: what is the default may be written out."""
    was, now = _raw(before, old_place, old), _raw(after, place, new)
    kind: Kind = "added" if was is _ABSENT else "removed" if now is _ABSENT else "changed"
    return kind, None if was is _ABSENT else was, None if now is _ABSENT else now


def _raw(meaning: Meaning, place: Path, made: Any) -> Any:
    found = _at(meaning.document.data, place)
    return made if found is _ABSENT else found


def _at(data: Any, place: Path) -> Any:
    for part in place:
        here = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if not here:
            return _ABSENT
        data = data[part]
    return data


def place_of(difference: Difference) -> tuple[int, int]:
    """Line and column of a difference in the new file; of what is around it, where it is gone."""
    document = difference.after.document
    found = _at(document.data, difference.place)
    if found is not _ABSENT:
        return document.at_key(difference.place)
    # What is gone is looked for at the nearest thing that is left of it.
    place = difference.place
    while place and _at(document.data, place) is _ABSENT:
        place = place[:-1]
    return document.at_key(place) if place else (1, 1)
