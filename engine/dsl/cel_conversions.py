"""The functions that make a value of one type into another, and tell of types.

An implementation takes the frame and the arguments (a method's target first) and raises ExpressionError.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from engine.dsl.cel_time import Duration, Timestamp, parse_duration, parse_timestamp
from engine.dsl.cel_values import (
    ExpressionError,
    Frame,
    Implementations,
    TypeName,
    checked_int,
    kind,
    no_overload,
    timed,
)


def _size(frame: Frame, value: Any) -> int:
    if type(value) in (str, list, dict):
        return len(value)
    raise no_overload("size()", value)


def double_text(value: float) -> str:
    """CEL's text of a double: the shortest digits that read back, as C's `%g` would lay them out."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"inf": "+infinity", "-inf": "-infinity", "nan": "nan"}[repr(value)]
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).lstrip("0").rstrip("0") or "0"
    point = len("".join(map(str, digits)).lstrip("0")) + int(exponent) if text != "0" else 1
    minus = "-" if sign else ""
    if not -4 <= point - 1 < 6 and text != "0":
        mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
        return f"{minus}{mantissa}e{point - 1:+03d}"
    if point <= 0:
        return f"{minus}0.{'0' * -point}{text}"
    return minus + (text.ljust(point, "0") if len(text) <= point else f"{text[:point]}.{text[point:]}")


def _string(frame: Frame, value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(checked_int(value))
    if type(value) is float:
        return double_text(value)
    if type(value) in (Timestamp, Duration):
        return str(value)
    raise no_overload("string()", value)


def _int(frame: Frame, value: Any) -> int:
    if type(value) in (int, bool):
        return int(value)
    if type(value) is float:
        if value - value != 0:
            raise ExpressionError("int() of a number that is not finite")
        return checked_int(int(value))
    if type(value) is Timestamp:
        return value.ns // 1_000_000_000
    if type(value) is str:
        digits = value[1:] if value[:1] == "-" else value
        if digits.isascii() and digits.isdigit() and len(digits) < 40:
            return checked_int(int(value))
        raise ExpressionError("int() of a text that is not a whole number")
    raise no_overload("int()", value)


def as_double(value: Any) -> float:
    """A number as a double. Raises ExpressionError for one that is too large."""
    try:
        return float(value)
    except OverflowError:  # JSON knows whole numbers of any size
        raise ExpressionError("a whole number is too large for a double") from None


def _double(frame: Frame, value: Any) -> float:
    if type(value) in (int, float):
        return as_double(value)
    if type(value) is str:
        try:
            # An underscore and blanks are Python's, not CEL's.
            return float(value if value.strip() == value and "_" not in value and len(value) < 400 else "?")
        except ValueError:
            raise ExpressionError("double() of a text that is not a number") from None
    raise no_overload("double()", value)


def _bool(frame: Frame, value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is str:
        if value in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        if value in ("0", "f", "F", "false", "FALSE", "False"):
            return False
        raise ExpressionError("bool() of a text that is neither true nor false")
    raise no_overload("bool()", value)


def _timestamp(frame: Frame, value: Any) -> Timestamp:
    if type(value) is Timestamp:
        return value
    if type(value) is str:
        result: Timestamp = timed(lambda: parse_timestamp(value))
        return result
    if type(value) is int:
        result = timed(lambda: Timestamp(value * 1_000_000_000))
        return result
    raise no_overload("timestamp()", value)


def _duration(frame: Frame, value: Any) -> Duration:
    if type(value) is Duration:
        return value
    if type(value) is str:
        result: Duration = timed(lambda: parse_duration(value))
        return result
    raise no_overload("duration()", value)


CONVERSIONS: Implementations = {
    "size": (_size, 1, 1),
    "string": (_string, 1, 1),
    "int": (_int, 1, 1),
    "double": (_double, 1, 1),
    "bool": (_bool, 1, 1),
    "timestamp": (_timestamp, 1, 1),
    "duration": (_duration, 1, 1),
    "dyn": (lambda f, v: v, 1, 1),
    "type": (lambda f, v: TypeName(kind(v)), 1, 1),
}
