"""The operators and functions of expressions: a closed list, each bounded by the frame's budget.

What is not listed here cannot be called, whatever CEL's own library offers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.dsl.cel_added import ADDED
from engine.dsl.cel_conversions import CONVERSIONS
from engine.dsl.cel_operators import OPERATORS
from engine.dsl.cel_texts import TEXTS
from engine.dsl.cel_time import Duration, Timestamp
from engine.dsl.cel_values import (
    NONE,
    ExpressionError,
    Frame,
    Function,
    Implementations,
    Optional_,
    no_overload,
    timed,
)

# --- times -----------------------------------------------------------------------------------------------


def _part(name: str, of_time: Callable[[Any], int], of_span: int = 0) -> Function:
    def run(frame: Frame, value: Any, zone: Any = "UTC") -> int:
        if type(value) is Timestamp and type(zone) is str:
            return int(timed(lambda: of_time(value.at(zone))))
        if type(value) is Duration and of_span:
            whole = abs(value.ns) // of_span
            whole = whole % 1000 if name == "getMilliseconds" else whole
            return -whole if value.ns < 0 else whole
        raise no_overload(f"{name}()", value)

    return run


# --- optionals -------------------------------------------------------------------------------------------


def _is_optional(what: str, value: Any) -> Optional_:
    if type(value) is not Optional_:
        raise no_overload(f"{what}()", value)
    return value


def _value(frame: Frame, optional: Any) -> Any:
    if not _is_optional("value", optional).present:
        raise ExpressionError("value() of an optional that is not there")
    return optional.value


def _of_non_zero(frame: Frame, value: Any) -> Optional_:
    zero = value is None or (type(value) in (bool, int, float, str, list, dict) and not value)
    return NONE if zero else Optional_(True, value)


# --- the closed lists ------------------------------------------------------------------------------------

FUNCTIONS: Implementations = {
    **OPERATORS,
    **CONVERSIONS,
    "matches": (TEXTS["matches"][0], 2, 2),
    "optional.of": (lambda f, v: Optional_(True, v), 1, 1),
    "optional.none": (lambda f: NONE, 0, 0),
    "optional.ofNonZeroValue": (_of_non_zero, 1, 1),
    **ADDED,
}

_HOUR, _MINUTE, _SECOND, _MILLI = 3_600_000_000_000, 60_000_000_000, 1_000_000_000, 1_000_000

METHODS: Implementations = {
    # arguments without the target
    "size": (CONVERSIONS["size"][0], 0, 0),
    **TEXTS,
    "hasValue": (lambda f, o: _is_optional("hasValue", o).present, 0, 0),
    "value": (_value, 0, 0),
    "getFullYear": (_part("getFullYear", lambda t: t.year), 0, 1),
    "getMonth": (_part("getMonth", lambda t: t.month - 1), 0, 1),
    "getDate": (_part("getDate", lambda t: t.day), 0, 1),
    "getDayOfMonth": (_part("getDayOfMonth", lambda t: t.day - 1), 0, 1),
    "getDayOfWeek": (_part("getDayOfWeek", lambda t: (t.weekday() + 1) % 7), 0, 1),
    "getDayOfYear": (_part("getDayOfYear", lambda t: t.timetuple().tm_yday - 1), 0, 1),
    "getHours": (_part("getHours", lambda t: t.hour, _HOUR), 0, 1),
    "getMinutes": (_part("getMinutes", lambda t: t.minute, _MINUTE), 0, 1),
    "getSeconds": (_part("getSeconds", lambda t: t.second, _SECOND), 0, 1),
    "getMilliseconds": (_part("getMilliseconds", lambda t: t.microsecond // 1000, _MILLI), 0, 1),
}

TYPE_NAMES = frozenset({"bool", "int", "double", "string", "list", "map", "null_type", "type"})
"""Names that stand for a type, to be compared with `type(x)`."""
