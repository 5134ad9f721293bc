"""The operators and functions of expressions: a closed list, each bounded by the frame's budget.

An implementation takes the frame and the arguments (a method's target first) and raises ExpressionError.
What is not listed here cannot be called, whatever CEL's own library offers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from functools import cmp_to_key
from typing import Any, TypeAlias

from engine.dsl.cel_time import Duration, Timestamp, parse_duration, parse_timestamp
from engine.dsl.cel_values import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_TEXT,
    NONE,
    ExpressionError,
    Frame,
    Optional_,
    TypeName,
    checked_int,
    equal,
    export,
    identity,
    kind,
    less,
    no_overload,
)

Function: TypeAlias = Callable[..., Any]


# --- operators -------------------------------------------------------------------------------------------


def _text(frame: Frame, size: int) -> None:
    if size > MAX_TEXT:
        raise ExpressionError(f"a text is longer than {MAX_TEXT} characters")
    frame.charge(1 + size // 16)


def _items(frame: Frame, count: int) -> None:
    if count > MAX_ITEMS:
        raise ExpressionError(f"a list has {count} items (limit {MAX_ITEMS})")
    frame.charge(1 + count)


def _add(frame: Frame, a: Any, b: Any) -> Any:
    ta = type(a)
    if ta is type(b):
        if ta is int:
            return checked_int(a + b)
        if ta is str:
            _text(frame, len(a) + len(b))
            return a + b
        if ta is float:
            return a + b
        if ta is list:
            _items(frame, len(a) + len(b))
            return a + b
        if ta is Duration:
            return _timed(lambda: Duration(a.ns + b.ns))
    elif (ta is Timestamp and type(b) is Duration) or (ta is Duration and type(b) is Timestamp):
        return _timed(lambda: Timestamp(a.ns + b.ns))
    raise no_overload("'+'", a, b)


def _subtract(frame: Frame, a: Any, b: Any) -> Any:
    ta = type(a)
    if ta is type(b):
        if ta is int:
            return checked_int(a - b)
        if ta is float:
            return a - b
        if ta in (Timestamp, Duration):
            return _timed(lambda: Duration(a.ns - b.ns))
    elif ta is Timestamp and type(b) is Duration:
        return _timed(lambda: Timestamp(a.ns - b.ns))
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


# --- conversions -----------------------------------------------------------------------------------------


def _timed(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (ValueError, OverflowError) as error:
        raise ExpressionError(str(error)) from error


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


def _as_double(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON knows whole numbers of any size
        raise ExpressionError("a whole number is too large for a double") from None


def _double(frame: Frame, value: Any) -> float:
    if type(value) in (int, float):
        return _as_double(value)
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
        result: Timestamp = _timed(lambda: parse_timestamp(value))
        return result
    if type(value) is int:
        result = _timed(lambda: Timestamp(value * 1_000_000_000))
        return result
    raise no_overload("timestamp()", value)


def _duration(frame: Frame, value: Any) -> Duration:
    if type(value) is Duration:
        return value
    if type(value) is str:
        result: Duration = _timed(lambda: parse_duration(value))
        return result
    raise no_overload("duration()", value)


# --- text ------------------------------------------------------------------------------------------------


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
    _text(frame, last - first)
    return str(text[first:last])


def _replace(frame: Frame, text: Any, old: Any, new: Any, limit: Any = -1) -> str:
    _texts("replace", text, old, new)
    if type(limit) is not int:
        raise no_overload("replace()", text, old, new, limit)
    frame.charge(1 + len(text) // 16)
    count = text.count(old) if limit < 0 else min(text.count(old), limit)
    _text(frame, len(text) + count * (len(new) - len(old)))
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
    _items(frame, cuts + 1)
    if separator:
        return list(text.split(separator, cuts))
    return [*text[:cuts], text[cuts:]] if text else []


def _join(frame: Frame, items: Any, separator: Any = "") -> str:
    if type(items) is not list or type(separator) is not str or any(type(i) is not str for i in items):
        raise ExpressionError("join() takes a list of texts and a text")
    _items(frame, len(items))
    _text(frame, sum(map(len, items)) + len(separator) * max(len(items) - 1, 0))
    return str(separator.join(items))


def _ascii(what: str, convert: Callable[[str], str]) -> Function:
    def run(frame: Frame, text: Any) -> str:
        _texts(what, text)
        _text(frame, len(text))
        return convert(text)

    return run


_UPPER = {c: c - 32 for c in range(ord("a"), ord("z") + 1)}
_LOWER = {c: c + 32 for c in range(ord("A"), ord("Z") + 1)}


# --- times -----------------------------------------------------------------------------------------------


def _part(name: str, of_time: Callable[[Any], int], of_span: int = 0) -> Function:
    def run(frame: Frame, value: Any, zone: Any = "UTC") -> int:
        if type(value) is Timestamp and type(zone) is str:
            return int(_timed(lambda: of_time(value.at(zone))))
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


# --- added by Pinflow ------------------------------------------------------------------------------------


def _list(what: str, value: Any) -> list[Any]:
    if type(value) is not list:
        raise no_overload(f"{what}()", value)
    return value


def _range(frame: Frame, *bounds: Any) -> list[int]:
    if any(type(b) is not int for b in bounds):
        raise no_overload("range()", *bounds)
    if len(bounds) == 3 and bounds[2] == 0:
        raise ExpressionError("range() with a step of 0")
    numbers = range(*bounds)
    _items(
        frame, max(len(numbers) if -(1 << 62) < (numbers.stop - numbers.start) < (1 << 62) else 1 << 62, 0)
    )
    return list(numbers)


def _flatten(frame: Frame, items: Any, depth: Any = 1) -> list[Any]:
    if type(depth) is not int:
        raise no_overload("flatten()", items, depth)
    flat = _list("flatten", items)
    for _ in range(min(depth, MAX_DEPTH)):
        if not any(type(item) is list for item in flat):
            break
        _items(frame, sum(len(item) if type(item) is list else 1 for item in flat))
        flat = [inner for item in flat for inner in (item if type(item) is list else (item,))]
    return flat


def _product(frame: Frame, factors: Any) -> list[Any]:
    if type(factors) is dict:
        names = sorted(factors)
        rows = _product(frame, [factors[name] for name in names])
        return [dict(zip(names, row, strict=True)) for row in rows]
    lists = [_list("product", factor) for factor in _list("product", factors)]
    count = 1
    for factor in lists:
        count *= len(factor)
        if count > MAX_ITEMS:
            raise ExpressionError(f"product() has more than {MAX_ITEMS} items")
    frame.charge(1 + count * (len(lists) + 1))
    rows_: list[list[Any]] = [[]]
    for factor in lists:
        rows_ = [[*row, item] for row in rows_ for item in factor]
    return rows_


def _sort(frame: Frame, items: Any) -> list[Any]:
    _items(frame, len(_list("sort", items)))
    kinds = {"number" if type(i) in (int, float) else kind(i) for i in items}
    if len(kinds) > 1:
        raise ExpressionError(f"sort() of a list that mixes {', '.join(sorted(kinds))}")
    if any(type(i) is float and i != i for i in items):
        raise ExpressionError("sort() of a list that holds NaN")

    def compare(a: Any, b: Any) -> int:
        frame.charge(1)
        return -1 if less(frame, "<", a, b) else int(less(frame, "<", b, a))

    if len(items) == 1:
        less(frame, "<", items[0], items[0])
    return sorted(items, key=cmp_to_key(compare))


def _distinct(frame: Frame, items: Any) -> list[Any]:
    _items(frame, len(_list("distinct", items)))
    seen: dict[Any, Any] = {}
    for item in items:
        seen.setdefault(identity(frame, item), item)
    return list(seen.values())


def _sum(frame: Frame, items: Any) -> Any:
    _items(frame, len(_list("sum", items)))
    if all(type(i) is int for i in items):
        return checked_int(sum(items))
    if all(type(i) in (int, float) for i in items):
        total = 0.0
        for item in items:
            total += _as_double(item)
        return total
    raise ExpressionError("sum() of a list that holds more than numbers")


def _merge(frame: Frame, *parts: Any) -> dict[str, Any]:
    maps = parts[0] if len(parts) == 1 and type(parts[0]) is list else parts
    merged: dict[str, Any] = {}
    for part in maps:
        if type(part) is not dict:
            raise no_overload("merge()", *parts)
        frame.charge(1 + len(part))
        merged.update(part)
    return merged


def _parse_json(frame: Frame, text: Any) -> Any:
    _texts("parse_json", text)
    frame.charge(1 + len(text) // 4)
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"parse_json() of more than {MAX_TEXT} characters")
    try:
        return export(json.loads(text, parse_constant=_no_constant))
    except ExpressionError as error:
        raise ExpressionError(error.message.replace("the result", "parse_json(): the value")) from error
    except (ValueError, RecursionError) as error:
        where = f" (at character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise ExpressionError(f"parse_json() of a text that is not JSON{where}") from error


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _to_json(frame: Frame, value: Any) -> str:
    text = dump(export(value))
    _text(frame, len(text))
    return text


def dump(value: Any) -> str:
    """JSON as expressions write it: sorted keys, no blanks, text as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# --- the closed lists ------------------------------------------------------------------------------------

ADDED = ("range", "flatten", "product", "sort", "distinct", "sum", "merge", "parse_json", "to_json")
"""What Pinflow adds to CEL."""

FUNCTIONS: dict[str, tuple[Function, int, int]] = {
    # name: (implementation, fewest arguments, most arguments)
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
    "size": (_size, 1, 1),
    "string": (_string, 1, 1),
    "int": (_int, 1, 1),
    "double": (_double, 1, 1),
    "bool": (_bool, 1, 1),
    "timestamp": (_timestamp, 1, 1),
    "duration": (_duration, 1, 1),
    "dyn": (lambda f, v: v, 1, 1),
    "type": (lambda f, v: TypeName(kind(v)), 1, 1),
    "matches": (_matches, 2, 2),
    "optional.of": (lambda f, v: Optional_(True, v), 1, 1),
    "optional.none": (lambda f: NONE, 0, 0),
    "optional.ofNonZeroValue": (_of_non_zero, 1, 1),
    "range": (_range, 1, 3),
    "flatten": (_flatten, 1, 2),
    "product": (_product, 1, 1),
    "sort": (_sort, 1, 1),
    "distinct": (_distinct, 1, 1),
    "sum": (_sum, 1, 1),
    "merge": (_merge, 1, 2),
    "parse_json": (_parse_json, 1, 1),
    "to_json": (_to_json, 1, 1),
}

_HOUR, _MINUTE, _SECOND, _MILLI = 3_600_000_000_000, 60_000_000_000, 1_000_000_000, 1_000_000

METHODS: dict[str, tuple[Function, int, int]] = {
    # arguments without the target
    "size": (_size, 0, 0),
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
