"""The tasks of an open run, from its own word and from what was recorded beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from engine.storage.rows import Record

_FIELDS = ("id", "status", "skip_reason", "attempts", "outputs", "error")
_MORE = ("cached_from", "reused_from", "compensation", "child_id", "items")
_AWAITED = ("task", "kind", "approval_id", "signal", "correlation", "group")
_TIMES = ("since", "until")


def is_outer(address: str) -> bool:
    """Whether it is a task of the workflow itself, not one inside of another."""
    return "." not in address and "[" not in address


def merged(recorded: Sequence[Record], told: Sequence[Record]) -> list[Record]:
    """What the run tells, in its order, and after each outer task the recorded inner ones that it keeps no more.

    A finished item of a map is forgotten by the run, or was never known to it: a large map is run in slices.
    """
    standing = [_shown(task) for task in told]
    known = {task["id"] for task in standing}
    left: dict[str, list[Record]] = {}
    for task in recorded:
        if task["id"] not in known:
            left.setdefault(_outer(task["id"]), []).append(task)
    if not left:
        return standing
    result: list[Record] = []
    for position, task in enumerate(standing):
        result.append(task)
        outer = _outer(task["id"])
        if position + 1 == len(standing) or _outer(standing[position + 1]["id"]) != outer:
            result += left.pop(outer, [])
    return result + [task for rest in left.values() for task in rest]


def after(standing: Sequence[Record], keys: tuple[Any, ...] | None) -> int:
    """Where a page begins: behind the task of a cursor (position, address), wherever that stands by now."""
    if keys is None:
        return 0
    position, address = keys
    for at, task in enumerate(standing):
        if task["id"] == address:
            return at + 1
    return int(position) + 1


def fits(task: Record, under: str, status: str) -> bool:
    """Whether a task stands inside of `under` and has the status; "" is any."""
    inside = not under or task["id"].startswith((f"{under}.", f"{under}["))
    return inside and status in ("", task["status"])


def awaited(waiting: Record, *, urls: bool) -> Record:
    """What a task waits for. A callback's URL is a key: it is shown to those who may send signals themselves."""
    shown = {name: waiting.get(name) or "" for name in _AWAITED}
    shown |= {name: _time(waiting.get(name)) for name in _TIMES}
    return shown | ({"callback_url": waiting.get("callback_url") or ""} if urls else {"callback_url": ""})


def _outer(address: str) -> str:
    return address.partition(".")[0].partition("[")[0]


def _shown(task: Record) -> Record:
    shown = {name: task.get(name) for name in _FIELDS}
    shown["skip_reason"] = shown["skip_reason"] or ""
    shown |= {name: _time(task.get(name)) for name in ("started_at", "finished_at")}
    return shown | {name: task[name] for name in _MORE if task.get(name)}


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
