"""Values while an expression runs: JSON, three kinds of CEL's own, and the budget that bounds the work.

Numbers follow CEL: `int` is 64 bit, `double` is a float, they compare across kinds (`1 == 1.0`) and do not
mix in arithmetic.  `true` is never `1`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.dsl.cel_time import Duration, Timestamp

MAX_TEXT = 1 << 20
"""Characters in one text that an expression makes."""
MAX_RESULT = 4 << 20
"""Bytes (about) of a result's JSON: what an activity may return can also be read whole."""
MAX_ITEMS = 10_000
"""Items in a list that is walked or made by a function."""
MAX_WORK = 2_000_000
"""Units of work in one evaluation: about one per step of a comprehension or per 16 characters handled."""
MAX_DEPTH = 100
"""Levels of lists and maps in a value."""
INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1


Function: TypeAlias = Callable[..., Any]
Implementations: TypeAlias = dict[str, tuple[Function, int, int]]
"""By name: the implementation, the fewest arguments and the most."""


class ExpressionError(Exception):
    """An evaluation failed; `message` says why in words for the author of the definition."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ExpressionSyntaxError(Exception):
    """An expression cannot be used: `offset` is the character in it (from 0), `hint` what to do."""

    def __init__(self, message: str, offset: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint


@dataclass(frozen=True, slots=True)
class TypeName:
    """What `type(x)` gives."""

    name: str


class Optional_:
    """A value that may be absent, made by `.?`, `[?]` and `optional.of()`."""

    __slots__ = ("present", "value")

    def __init__(self, present: bool, value: Any = None) -> None:
        self.present = present
        self.value = value


NONE = Optional_(False)


class Frame:
    """One evaluation: the bound names, the variables of open comprehensions, and the work that is left."""

    __slots__ = ("left", "refs", "variables")

    def __init__(self, refs: dict[str, Any]) -> None:
        self.refs = refs
        self.variables: dict[str, Any] = {}
        self.left = MAX_WORK

    def charge(self, units: int) -> None:
        """Take `units` of work; raises ExpressionError when nothing is left."""
        self.left -= units
        if self.left < 0:
            raise ExpressionError(f"the expression does too much work (limit {MAX_WORK} steps)")


def charge_text(frame: Frame, size: int) -> None:
    """Take the work of making a text of `size` characters. Raises ExpressionError."""
    if size > MAX_TEXT:
        raise ExpressionError(f"a text is longer than {MAX_TEXT} characters")
    frame.charge(1 + size // 16)


def charge_items(frame: Frame, count: int) -> None:
    """Take the work of making a list of `count` items. Raises ExpressionError."""
    if count > MAX_ITEMS:
        raise ExpressionError(f"a list has {count} items (limit {MAX_ITEMS})")
    frame.charge(1 + count)


def timed(make: Callable[[], Any]) -> Any:
    """What `make` gives. Raises ExpressionError for a time or a span that cannot be."""
    try:
        return make()
    except (ValueError, OverflowError) as error:
        raise ExpressionError(str(error)) from error


_KINDS: dict[type, str] = {
    bool: "bool",
    int: "int",
    float: "double",
    str: "string",
    list: "list",
    dict: "map",
    type(None): "null_type",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    Optional_: "optional_type",
    TypeName: "type",
}


def kind(value: Any) -> str:
    """CEL's name of the value's type."""
    return _KINDS.get(type(value), type(value).__name__)


def no_overload(what: str, *arguments: Any) -> ExpressionError:
    """The error of an operator or function that does not take values of these types."""
    kinds = [kind(a) for a in arguments]
    hint = "; convert with double() or int()" if set(kinds) == {"int", "double"} else ""
    return ExpressionError(f"{what} does not take ({', '.join(kinds)}){hint}")


def checked_int(value: int) -> int:
    """`value` if it fits 64 bit; raises ExpressionError otherwise."""
    if INT_MIN <= value <= INT_MAX:
        return value
    raise ExpressionError("integer overflow (64 bit)")


def equal(frame: Frame, a: Any, b: Any, depth: int = 0) -> bool:
    """CEL's equality: numbers by value, lists and maps by content, different kinds unequal."""
    ta, tb = type(a), type(b)
    if ta is not tb:
        return {ta, tb} == {int, float} and bool(a == b)
    if ta is str:
        frame.charge(1 + len(a) // 64)
        return bool(a == b)
    if ta is list or ta is dict:
        return _equal_content(frame, a, b, depth + 1)
    if ta is Optional_:
        return a.present == b.present and (not a.present or equal(frame, a.value, b.value, depth + 1))
    return bool(a == b)


def _equal_content(frame: Frame, a: Any, b: Any, depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise ExpressionError(f"a value has more than {MAX_DEPTH} levels")
    frame.charge(1 + len(a))
    if len(a) != len(b):
        return False
    if type(a) is list:
        return all(equal(frame, x, y, depth) for x, y in zip(a, b, strict=True))
    return all(key in b and equal(frame, value, b[key], depth) for key, value in a.items())


def less(frame: Frame, operator: str, a: Any, b: Any) -> bool:
    """Whether `a < b`, for two numbers, texts, bools, timestamps or durations."""
    ta, tb = type(a), type(b)
    if ta is str and tb is str:
        frame.charge(1 + len(a) // 64)
        return bool(a < b)
    if (ta is tb and ta in (int, float, bool, Timestamp, Duration)) or {ta, tb} == {int, float}:
        return bool(a < b)
    raise no_overload(f"'{operator}'", a, b)


def identity(frame: Frame, value: Any, depth: int = 0) -> Hashable:
    """A hashable key that is the same for equal values only."""
    if depth > MAX_DEPTH:
        raise ExpressionError(f"a value has more than {MAX_DEPTH} levels")
    frame.charge(1)
    if type(value) is list:
        return ("list", *(identity(frame, v, depth + 1) for v in value))
    if type(value) is dict:
        return ("map", *((k, identity(frame, value[k], depth + 1)) for k in sorted(value)))
    if type(value) is str:
        frame.charge(len(value) // 16)
    word = "number" if type(value) in (int, float) else kind(value)
    return (word, value)


def export(value: Any) -> Any:
    """The JSON value of a result: a copy with sorted keys, at most MAX_RESULT bytes of JSON.

    Timestamps become RFC 3339 text and durations seconds (`"90s"`).  Raises ExpressionError for what JSON
    cannot say (an optional, a type, NaN, an integer beyond 64 bit) and for what is too large.
    """
    return _Exporter().export(value, 0)


class _Exporter:
    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_RESULT

    def export(self, value: Any, depth: int) -> Any:
        kind_of = type(value)
        if kind_of is str:
            self._take(len(value) + 2 if value.isascii() else len(value.encode("utf-8", "surrogatepass")) + 2)
            return value
        if kind_of is int:
            self._take(8)
            return checked_int(value)
        if kind_of is bool or value is None:
            self._take(5)
            return value
        if kind_of is float:
            self._take(8)
            if value - value != 0:
                raise ExpressionError("the result is not a finite number")
            return value
        return self._composite(value, depth + 1)

    def _composite(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"the result has more than {MAX_DEPTH} levels")
        if type(value) is list:
            self._take(2 + len(value))
            return [self.export(item, depth) for item in value]
        if type(value) is dict:
            self._take(2 + 4 * len(value))
            return {self.export(key, depth): self.export(value[key], depth) for key in sorted(value)}
        if isinstance(value, (Timestamp, Duration)):
            return self.export(str(value), depth)
        if type(value) is Optional_:
            raise ExpressionError("the result is optional; end it with .orValue(...)")
        raise ExpressionError(f"a result cannot be of type {kind(value)}")

    def _take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ExpressionError(f"the result is larger than {MAX_RESULT} bytes of JSON")


def dump(value: Any) -> str:
    """JSON as expressions write it: sorted keys, no blanks, text as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
