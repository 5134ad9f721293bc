"""Run lowered expressions: nested lists of JSON become closures once, and then only read their bindings.

The lowered form (made by `cel_lowering`) is part of the compiled definition, so its words may be added to and
never change their meaning:

    ["const", json]               ["ref", name]              a bound name, such as inputs.service
    ["var", name]                 ["type", name]             a variable of a comprehension; a type
    ["get", node, field]          ["has", node, field]       a field; whether it is there
    ["hasref", name]              ["optref", name]           the same for a bound name itself
    ["list", [node], [index]]     ["map", [[key, node, optional]]]
    ["and"|"or"|"or_else", a, b]  ["if", test, a, b]         what is not needed is not evaluated
    ["call", function, [node]]    ["method", name, [node]]
    ["fold", variable, range, accu, init, condition, step, result, cost]
    ["push", accu, node]          append to the list that a fold builds
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from engine.dsl.cel_functions import FUNCTIONS, METHODS
from engine.dsl.cel_values import (
    MAX_ITEMS,
    NONE,
    ExpressionError,
    Frame,
    Optional_,
    TypeName,
    export,
    kind,
    no_overload,
)

Step: TypeAlias = Callable[[Frame], Any]


class _Failure:
    """An error held as the running result of a fold: `[0, 1].exists(x, 1/x > 0)` is true all the same."""

    __slots__ = ("error",)

    def __init__(self, error: ExpressionError) -> None:
        self.error = error


def run(code: str, bindings: dict[str, Any]) -> Any:
    """Evaluate lowered `code` (JSON text) with `bindings` by name; the result is JSON.

    Raises ExpressionError, and nothing else, whatever the data are.
    """
    try:
        return export(_program(code)(Frame(bindings)))
    except RecursionError:
        raise ExpressionError("a value or the expression is nested too deeply") from None


# A process runs few definitions at a time, and a program is small: this holds some thousand of them.
@lru_cache(maxsize=8192)
def _program(code: str) -> Step:
    return _build(json.loads(code))


def _build(node: list[Any]) -> Step:
    return _BUILDERS[node[0]](*node[1:])


def _const(value: Any) -> Step:
    return lambda frame: value


def _ref(name: str) -> Step:
    def read(frame: Frame) -> Any:
        try:
            return frame.refs[name]
        except KeyError:
            raise ExpressionError(f"{name} has no value") from None

    return read


def _var(name: str) -> Step:
    def read(frame: Frame) -> Any:
        value = frame.variables[name]
        if type(value) is _Failure:
            raise value.error
        return value

    return read


def _get(operand: list[Any], field: str) -> Step:
    of = _build(operand)

    def read(frame: Frame) -> Any:
        value = of(frame)
        if type(value) is dict:
            try:
                return value[field]
            except KeyError:
                raise ExpressionError(f"no such key {field[:80]!r}") from None
        if type(value) is Optional_:
            return _inside(value, field)
        raise ExpressionError(f"no field {field[:80]!r} in a value of type {kind(value)}")

    return read


def _inside(optional: Optional_, field: str) -> Optional_:
    if not optional.present:
        return NONE
    if type(optional.value) is not dict:
        raise ExpressionError(f"no field {field[:80]!r} in a value of type {kind(optional.value)}")
    return Optional_(True, optional.value[field]) if field in optional.value else NONE


def _has(operand: list[Any], field: str) -> Step:
    of = _build(operand)

    def test(frame: Frame) -> bool:
        value = of(frame)
        if type(value) is dict:
            return field in value
        if type(value) is Optional_:
            return _inside(value, field).present
        raise ExpressionError(f"has(): no fields in a value of type {kind(value)}")

    return test


def _hasref(name: str) -> Step:
    return lambda frame: name in frame.refs


def _optref(name: str) -> Step:
    return lambda frame: Optional_(True, frame.refs[name]) if name in frame.refs else NONE


def _list(items: list[Any], optional: list[int]) -> Step:
    steps = [_build(item) for item in items]
    if not optional:
        return lambda frame: [step(frame) for step in steps]
    may_lack = frozenset(optional)

    def make(frame: Frame) -> list[Any]:
        made = []
        for index, step in enumerate(steps):
            value = step(frame)
            if index not in may_lack:
                made.append(value)
            elif _optional(value).present:
                made.append(value.value)
        return made

    return make


def _optional(value: Any) -> Optional_:
    if type(value) is not Optional_:
        raise ExpressionError(f"an entry marked with ? must be optional, and is of type {kind(value)}")
    return value


def _map(entries: list[Any]) -> Step:
    steps = [(_build(key), _build(value), optional) for key, value, optional in entries]

    def make(frame: Frame) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key_step, value_step, optional in steps:
            key, value = key_step(frame), value_step(frame)
            if type(key) is not str:
                raise ExpressionError(f"a key of a map must be a string, and is of type {kind(key)}")
            if key in made:
                raise ExpressionError(f"a map has the key {key[:80]!r} twice")
            if not optional:
                made[key] = value
            elif _optional(value).present:
                made[key] = value.value
        return made

    return make


def _logic(word: str, decides: bool) -> Callable[[list[Any], list[Any]], Step]:
    """`&&` and `||` as in CEL: a side that decides wins over an error on the other side."""

    def build(left: list[Any], right: list[Any]) -> Step:
        one, two = _build(left), _build(right)

        def judge(frame: Frame) -> bool:
            try:
                first = _truth(word, one(frame))
            except ExpressionError:
                if _truth(word, two(frame)) is decides:
                    return decides
                raise
            return decides if first is decides else _truth(word, two(frame))

        return judge

    return build


def _truth(word: str, value: Any) -> bool:
    if type(value) is bool:
        return value
    raise no_overload(f"'{word}'", value)


def _if(test: list[Any], then: list[Any], other: list[Any]) -> Step:
    one, two, three = _build(test), _build(then), _build(other)
    return lambda frame: two(frame) if _truth("?:", one(frame)) else three(frame)


def _or_else(optional: list[Any], other: list[Any], unwrap: bool) -> Step:
    """`.orValue(x)` and `.or(o)`; the other side is evaluated only if it is needed."""
    one, two = _build(optional), _build(other)

    def choose(frame: Frame) -> Any:
        value = one(frame)
        if type(value) is not Optional_:
            raise no_overload("orValue()" if unwrap else "or()", value)
        if value.present:
            return value.value if unwrap else value
        return two(frame)

    return choose


def _call(table: dict[str, tuple[Callable[..., Any], int, int]]) -> Callable[[str, list[Any]], Step]:
    def build(name: str, arguments: list[Any]) -> Step:
        function = table[name][0]
        steps = [_build(argument) for argument in arguments]
        if len(steps) == 1:
            (only,) = steps
            return lambda frame: function(frame, only(frame))
        if len(steps) == 2:
            one, two = steps
            return lambda frame: function(frame, one(frame), two(frame))
        return lambda frame: function(frame, *[step(frame) for step in steps])

    return build


def _push(accu: str, item: list[Any]) -> Step:
    step = _build(item)

    def push(frame: Frame) -> Any:
        made = frame.variables[accu]
        if type(made) is _Failure:
            raise made.error
        made.append(step(frame))
        return made

    return push


def _fold(
    variable: str,
    source: list[Any],
    accu: str,
    init: list[Any],
    condition: list[Any],
    step: list[Any],
    result: list[Any],
    cost: int,
) -> Step:
    items_of, start, go_on, advance, finish = (_build(n) for n in (source, init, condition, step, result))

    def fold(frame: Frame) -> Any:
        items = _ordered(items_of(frame))
        variables = frame.variables
        # Comprehensions nest and may use the same names: what they hide comes back at the end.
        hidden = variables.get(variable), variables.get(accu)
        variables[accu] = start(frame)
        try:
            for item in items:
                frame.charge(cost)
                variables[variable] = item
                if not _not_false(go_on, frame):
                    break
                variables[accu] = _attempt(advance, frame)
            return finish(frame)
        finally:
            variables[variable], variables[accu] = hidden

    return fold


def _ordered(items: Any) -> list[Any]:
    """What a comprehension walks: a list, or the keys of a map in sorted order."""
    if type(items) is dict:
        items = sorted(items)
    if type(items) is not list:
        raise no_overload("a comprehension", items)
    if len(items) > MAX_ITEMS:
        raise ExpressionError(f"a comprehension over {len(items)} items (limit {MAX_ITEMS})")
    return items


def _attempt(step: Step, frame: Frame) -> Any:
    try:
        return step(frame)
    except ExpressionError as error:
        if frame.left < 0:
            raise
        return _Failure(error)


def _not_false(condition: Step, frame: Frame) -> bool:
    """CEL's `@not_strictly_false`: an error does not end the walk, as a later item may still decide."""
    try:
        return condition(frame) is not False
    except ExpressionError:
        return True


_BUILDERS: dict[str, Callable[..., Step]] = {
    "const": _const,
    "ref": _ref,
    "var": _var,
    "type": lambda name: _const(TypeName(name)),
    "get": _get,
    "has": _has,
    "hasref": _hasref,
    "optref": _optref,
    "list": _list,
    "map": _map,
    "and": _logic("&&", False),
    "or": _logic("||", True),
    "if": _if,
    "or_else": _or_else,
    "call": _call(FUNCTIONS),
    "method": _call(METHODS),
    "push": _push,
    "fold": _fold,
}
