"""Cursors of listings: where the next page begins, opaque to the caller. They hold sort keys and nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any

from engine.errors import InputProblem, InvalidInput


def encode(*keys: str | int) -> str:
    """A cursor after the item with these sort keys."""
    return base64.urlsafe_b64encode(json.dumps(keys, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str, *kinds: type) -> tuple[Any, ...] | None:
    """The sort keys, None for "". Raises `InvalidInput` unless they are of these kinds."""
    if not cursor:
        return None
    try:
        keys = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        fits = isinstance(keys, list) and [type(key) for key in keys] == list(kinds)
    except (ValueError, RecursionError):
        fits = False
    if not fits or not all(_sound(key) for key in keys):
        raise InvalidInput(
            "this cursor is none of ours", [InputProblem("/cursor", "use the next_cursor of the page before")]
        )
    return tuple(keys)


def _sound(key: str | int) -> bool:
    """Whether Postgres can compare with it: a 64-bit number, or text without U+0000 and halves of surrogate pairs."""
    if isinstance(key, int):
        return 0 <= key < 2**63
    return "\0" not in key and key.encode(errors="replace").decode() == key
