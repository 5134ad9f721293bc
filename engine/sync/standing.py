"""How a source stands, in words for people, from what the registry holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.registry.revisions import Cursor
from engine.sync import conditions


@dataclass(frozen=True, slots=True)
class Standing:
    """How a source stands after a pass; the words are those of `conditions.py`."""

    condition: str
    reason: str
    message: str
    observed_sha: str | None = None


def synced(cursor: Cursor, count: int) -> Standing:
    """All of the last commit is live."""
    if not count:
        message = f"{cursor.live_sha[:12]} is live and holds no definition in {cursor.folder or 'its root'}"
        return Standing(conditions.SYNCED, conditions.NO_DEFINITIONS, message)
    message = f"{cursor.live_sha[:12]} is live with {count} definition{'s' if count > 1 else ''}"
    return Standing(conditions.SYNCED, conditions.UP_TO_DATE, message)


def rejected(cursor: Cursor, rows: Sequence[dict[str, Any]]) -> Standing:
    """The last commit is not taken, by these problems: it is bad, or it waits for somebody."""
    first = rows[0] if rows else {"file": "", "line": 0, "column": 0, "code": "", "message": ""}
    if first["code"] in conditions.HELD_BY:
        message = f"{cursor.last_sha[:12]} is held: {first['message']}"[:2000]
        return Standing(conditions.HELD, conditions.HELD_BY[first["code"]], message)
    message = f"{cursor.last_sha[:12]} has {_count(rows)}"[:2000]
    return Standing(conditions.REJECTED, conditions.INVALID_REVISION, message)


def kept(cursor: Cursor, rows: Sequence[dict[str, Any]]) -> Standing:
    """The good files of the last commit are live, beside these problems."""
    message = f"{cursor.live_sha[:12]} is live but for files that keep their last good version: it has {_count(rows)}"
    return Standing(conditions.OUT_OF_SYNC, conditions.FILES_KEPT, message[:2000])


def _count(rows: Sequence[dict[str, Any]]) -> str:
    first = rows[0] if rows else {"file": "", "line": 0, "column": 0, "code": "", "message": ""}
    line = f":{first['line']}:{first['column']}" if first["line"] else ""
    place = f"{first['file']}{line}: " if first["file"] else ""
    return f"{len(rows)} problem{'s' if len(rows) > 1 else ''}, the first: {place}{first['code']} {first['message']}"
