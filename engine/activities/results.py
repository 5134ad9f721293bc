"""What may leave an activity: JSON that every later reader can take, within bounds."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_jsonable_python

from engine.activities.failures import ActivityFailure
from engine.masking import Masker

MAX_RESULT_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 100
_MAX_MESSAGE = 2000
_MAX_DETAILS = 8 * 1024
_REPLACEMENT = "\ufffd"


def encode(result: Any, attempt: int, masker: Masker) -> tuple[Any, bytes]:
    """The result as plain JSON data without secrets, and the `ActivityOutcome` as JSON text.

    Raises `ActivityFailure` INVALID_RESULT or TOO_LARGE: the side effect has happened, so neither is retried.
    """
    try:
        plain = masker.value(to_jsonable_python(result, inf_nan_mode="constants"))
        data = _dump({"result": plain, "attempt": attempt})
    except (TypeError, ValueError, RecursionError) as error:
        raise ActivityFailure("INVALID_RESULT", f"the result is no JSON: {error}", retryable=False) from error
    if len(data) > MAX_RESULT_BYTES:
        raise ActivityFailure(
            "TOO_LARGE",
            f"the result has {len(data)} bytes, and {MAX_RESULT_BYTES} are the most",
            retryable=False,
        )
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(plain) > MAX_DEPTH:
        raise ActivityFailure(
            "INVALID_RESULT", f"the result is nested deeper than {MAX_DEPTH} levels", retryable=False
        )
    return plain, data


def bounded_message(text: str) -> str:
    """A message that fits into a history and into every text column."""
    text = whole_characters(text).replace("\x00", _REPLACEMENT)
    return text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "..."


def bounded_details(details: Any, masker: Masker) -> Any:
    """The details of an error without secrets, or None if they are no JSON; a note instead if they are too large."""
    try:
        data = _dump(masker.value(to_jsonable_python(details)))
    except (TypeError, ValueError, RecursionError):
        return None
    if len(data) > _MAX_DETAILS:
        return {"left_out": f"{len(data)} bytes of details"}
    return json.loads(data)


def whole_characters(text: str) -> str:
    """The text without halves of surrogate pairs, which no UTF-8 can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _dump(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return whole_characters(text).encode()


def _depth(value: Any) -> int:
    deepest = 0
    stack = [(value, 1)]
    while stack:
        node, level = stack.pop()
        deepest = max(deepest, level)
        if isinstance(node, dict):
            stack += [(item, level + 1) for item in node.values() if isinstance(item, dict | list)]
        elif isinstance(node, list):
            stack += [(item, level + 1) for item in node if isinstance(item, dict | list)]
    return deepest
