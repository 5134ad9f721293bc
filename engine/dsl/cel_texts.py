"""The functions on texts.

An implementation takes the frame and the arguments (a method's target first) and raises ExpressionError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.dsl.cel_values import (
    ExpressionError,
    Frame,
    Function,
    Implementations,
    charge_items,
    charge_text,
    no_overload,
)


def _texts(what: str, *values: Any) -> None:
    if any(type(v) is not str for v in values):
        raise no_overload(f"{what}()", *values)


def _contains(frame: Frame, text: Any, part: Any) -> bool:
    _texts("contains", text, part)
    frame.charge(1 + len(text) // 16)
    return bool(part in text)


def _starts_with(frame: Frame, text: Any, part: Any) -> bool:
    _texts("startsWith", text, part)
    return bool(text.startswith(part))


def _ends_with(frame: Frame, text: Any, part: Any) -> bool:
    _texts("endsWith", text, part)
    return bool(text.endswith(part))


def _matches(frame: Frame, text: Any, pattern: Any) -> bool:
    _texts("matches", text, pattern)
    if len(pattern) > 1000:
        raise ExpressionError("a pattern has more than 1000 characters")
    # RE2 only: Python's own engine can take for ever on a hostile pattern.  RE2 is linear in the text, and
    # what a pattern costs to prepare (each time) goes by its length, or by its counted repetitions: 4 ms at worst.
    frame.charge(50 + len(text) // 64 + 4 * len(pattern) + (5000 if "{" in pattern else 0))
    from engine.dsl.cel_syntax import re2_search

    return re2_search(text, pattern)


def _char_at(frame: Frame, text: Any, at: Any) -> str:
    if type(text) is not str or type(at) is not int:
        raise no_overload("charAt()", text, at)
    if not 0 <= at <= len(text):
        raise ExpressionError(f"charAt({at}) is outside of a text of {len(text)}")
    return text[at : at + 1]


def _index_of(frame: Frame, text: Any, part: Any, start: Any = 0) -> int:
    _texts("indexOf", text, part)
    frame.charge(1 + len(text) // 16)
    return int(text.find(part, _offset("indexOf", text, start)))


def _last_index_of(frame: Frame, text: Any, part: Any, start: Any = None) -> int:
    _texts("lastIndexOf", text, part)
    frame.charge(1 + len(text) // 16)
    if start is None:
        return int(text.rfind(part))
    return int(text.rfind(part, 0, _offset("lastIndexOf", text, start) + len(part)))


def _offset(what: str, text: str, at: Any) -> int:
    if type(at) is not int:
        raise no_overload(f"{what}()", text, at)
    if not 0 <= at <= len(text):
        raise ExpressionError(f"{what}(): position {at} is outside of a text of {len(text)}")
    return at


def _substring(frame: Frame, text: Any, start: Any, end: Any = None) -> str:
    _texts("substring", text)
    last = len(text) if end is None else _offset("substring", text, end)
    first = _offset("substring", text, start)
    if first > last:
        raise ExpressionError(f"substring(): {first} comes after {last}")
    charge_text(frame, last - first)
    return str(text[first:last])


def _replace(frame: Frame, text: Any, old: Any, new: Any, limit: Any = -1) -> str:
    _texts("replace", text, old, new)
    if type(limit) is not int:
        raise no_overload("replace()", text, old, new, limit)
    frame.charge(1 + len(text) // 16)
    count = text.count(old) if limit < 0 else min(text.count(old), limit)
    charge_text(frame, len(text) + count * (len(new) - len(old)))
    return str(text.replace(old, new, count))


def _split(frame: Frame, text: Any, separator: Any, limit: Any = -1) -> list[str]:
    _texts("split", text, separator)
    if type(limit) is not int:
        raise no_overload("split()", text, separator, limit)
    frame.charge(1 + len(text) // 16)
    if limit == 0:
        return []
    cuts = text.count(separator) if separator else max(len(text) - 1, 0)
    cuts = cuts if limit < 0 else min(cuts, limit - 1)
    charge_items(frame, cuts + 1)
    if separator:
        return list(text.split(separator, cuts))
    return [*text[:cuts], text[cuts:]] if text else []


def _join(frame: Frame, items: Any, separator: Any = "") -> str:
    if type(items) is not list or type(separator) is not str or any(type(i) is not str for i in items):
        raise ExpressionError("join() takes a list of texts and a text")
    charge_items(frame, len(items))
    charge_text(frame, sum(map(len, items)) + len(separator) * max(len(items) - 1, 0))
    return str(separator.join(items))


def _ascii(what: str, convert: Callable[[str], str]) -> Function:
    def run(frame: Frame, text: Any) -> str:
        _texts(what, text)
        charge_text(frame, len(text))
        return convert(text)

    return run


_UPPER = {c: c - 32 for c in range(ord("a"), ord("z") + 1)}
_LOWER = {c: c + 32 for c in range(ord("A"), ord("Z") + 1)}


TEXTS: Implementations = {
    "contains": (_contains, 1, 1),
    "startsWith": (_starts_with, 1, 1),
    "endsWith": (_ends_with, 1, 1),
    "matches": (_matches, 1, 1),
    "charAt": (_char_at, 1, 1),
    "indexOf": (_index_of, 1, 2),
    "lastIndexOf": (_last_index_of, 1, 2),
    "substring": (_substring, 1, 2),
    "replace": (_replace, 2, 3),
    "split": (_split, 1, 2),
    "join": (_join, 0, 1),
    "lowerAscii": (_ascii("lowerAscii", lambda t: t.translate(_LOWER)), 0, 0),
    "upperAscii": (_ascii("upperAscii", lambda t: t.translate(_UPPER)), 0, 0),
    "trim": (_ascii("trim", str.strip), 0, 0),
}
"""As methods: arguments without the text."""
