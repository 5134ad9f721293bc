"""The operators of expressions.

An implementation takes the frame and the arguments (a method's target first) and raises ExpressionError.
"""

from __future__ import annotations

from typing import Any

from engine.dsl.cel_time import Duration, Timestamp
from engine.dsl.cel_values import (
    NONE,
    ExpressionError,
    Frame,
    Implementations,
    Optional_,
    charge_items,
    charge_text,
    checked_int,
    equal,
    kind,
    less,
    no_overload,
    timed,
)


def _add(frame: Frame, a: Any, b: Any) -> Any:
    ta = type(a)
    if ta is type(b):
        if ta is int:
            return checked_int(a + b)
        if ta is str:
            charge_text(frame, len(a) + len(b))
            return a + b
        if ta is float:
            return a + b
        if ta is list:
            charge_items(frame, len(a) + len(b))
            return a + b
        if ta is Duration:
            return timed(lambda: Duration(a.ns + b.ns))
    elif (ta is Timestamp and type(b) is Duration) or (ta is Duration and type(b) is Timestamp):
        return timed(lambda: Timestamp(a.ns + b.ns))
    raise no_overload("'+'", a, b)


def _subtract(frame: Frame, a: Any, b: Any) -> Any:
    ta = type(a)
    if ta is type(b):
        if ta is int:
            return checked_int(a - b)
        if ta is float:
            return a - b
        if ta in (Timestamp, Duration):
            return timed(lambda: Duration(a.ns - b.ns))
    elif ta is Timestamp and type(b) is Duration:
        return timed(lambda: Timestamp(a.ns - b.ns))
    raise no_overload("'-'", a, b)


def _multiply(frame: Frame, a: Any, b: Any) -> Any:
    if type(a) is int and type(b) is int:
        return checked_int(a * b)
    if type(a) is float and type(b) is float:
        return a * b
    raise no_overload("'*'", a, b)


def _divide(frame: Frame, a: Any, b: Any) -> Any:
    if type(a) is int and type(b) is int:
        if b == 0:
            raise ExpressionError("division by zero")
        quotient = abs(a) // abs(b)
        return checked_int(quotient if (a < 0) == (b < 0) else -quotient)
    if type(a) is float and type(b) is float:
        if b == 0.0:
            raise ExpressionError("division by zero")
        return a / b
    raise no_overload("'/'", a, b)


def _modulo(frame: Frame, a: Any, b: Any) -> Any:
    if type(a) is int and type(b) is int:
        if b == 0:
            raise ExpressionError("modulo by zero")
        rest = abs(a) % abs(b)
        return -rest if a < 0 else rest
    raise no_overload("'%'", a, b)


def _negate(frame: Frame, a: Any) -> Any:
    if type(a) is int:
        return checked_int(-a)
    if type(a) is float:
        return -a
    raise no_overload("'-'", a)


def _not(frame: Frame, a: Any) -> bool:
    if type(a) is not bool:
        raise no_overload("'!'", a)
    return not a


def _in(frame: Frame, item: Any, container: Any) -> bool:
    if type(container) is dict and type(item) in (str, int, float, bool):
        return type(item) is str and item in container
    if type(container) is list:
        frame.charge(1 + len(container))
        return any(equal(frame, item, other) for other in container)
    raise no_overload("'in'", item, container)


def _index(frame: Frame, container: Any, key: Any) -> Any:
    if type(container) is dict:
        if type(key) is str and key in container:
            return container[key]
        raise ExpressionError(f"no such key {_name(key)}")
    if type(container) is list:
        at = int(key) if type(key) is float and key.is_integer() else key
        if type(at) is not int:
            raise no_overload("an index", container, key)
        if 0 <= at < len(container):
            return container[at]
        raise ExpressionError(f"index {at} is outside of a list of {len(container)}")
    if type(container) is Optional_:
        return _optional_index(frame, container, key)
    raise no_overload("an index", container, key)


def _optional_index(frame: Frame, container: Any, key: Any) -> Optional_:
    value = container
    if type(container) is Optional_:
        if not container.present:
            return NONE
        value = container.value
    if type(value) is dict:
        return Optional_(True, value[key]) if type(key) is str and key in value else NONE
    if type(value) is list:
        inside = type(key) is int and 0 <= key < len(value)
        return Optional_(True, value[key]) if inside else NONE
    raise no_overload("an optional index", value, key)


def _name(key: Any) -> str:
    return repr(key[:80]) if type(key) is str else f"of type {kind(key)}"


OPERATORS: Implementations = {
    "_+_": (_add, 2, 2),
    "_-_": (_subtract, 2, 2),
    "_*_": (_multiply, 2, 2),
    "_/_": (_divide, 2, 2),
    "_%_": (_modulo, 2, 2),
    "-_": (_negate, 1, 1),
    "!_": (_not, 1, 1),
    "_==_": (equal, 2, 2),
    "_!=_": (lambda f, a, b: not equal(f, a, b), 2, 2),
    "_<_": (lambda f, a, b: less(f, "<", a, b), 2, 2),
    "_>_": (lambda f, a, b: less(f, ">", b, a), 2, 2),
    "_<=_": (lambda f, a, b: less(f, "<=", a, b) or equal(f, a, b), 2, 2),
    "_>=_": (lambda f, a, b: less(f, ">=", b, a) or equal(f, a, b), 2, 2),
    "@in": (_in, 2, 2),
    "_[_]": (_index, 2, 2),
    "_[?_]": (_optional_index, 2, 2),
    "_?._": (_optional_index, 2, 2),
}
