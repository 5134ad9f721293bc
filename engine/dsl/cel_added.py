"""What Pinflow adds to CEL: lists, maps and JSON, all bounded.

An implementation takes the frame and the arguments (a method's target first) and raises ExpressionError.
"""

from __future__ import annotations

import json
from functools import cmp_to_key
from typing import Any

from engine.dsl.cel_conversions import as_double
from engine.dsl.cel_values import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_TEXT,
    ExpressionError,
    Frame,
    Implementations,
    charge_items,
    charge_text,
    checked_int,
    dump,
    export,
    identity,
    kind,
    less,
    no_overload,
)


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
    charge_items(
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
        charge_items(frame, sum(len(item) if type(item) is list else 1 for item in flat))
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
    charge_items(frame, len(_list("sort", items)))
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
    charge_items(frame, len(_list("distinct", items)))
    seen: dict[Any, Any] = {}
    for item in items:
        seen.setdefault(identity(frame, item), item)
    return list(seen.values())


def _sum(frame: Frame, items: Any) -> Any:
    charge_items(frame, len(_list("sum", items)))
    if all(type(i) is int for i in items):
        return checked_int(sum(items))
    if all(type(i) in (int, float) for i in items):
        total = 0.0
        for item in items:
            total += as_double(item)
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
    if type(text) is not str:
        raise no_overload("parse_json()", text)
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
    charge_text(frame, len(text))
    return text


ADDED: Implementations = {
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
