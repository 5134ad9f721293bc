"""`${{ ... }}` in values: found, compiled to slots of an expression table, rendered once and never again.

A value alone in its text keeps its type; inside text it becomes text.  What an expression returns is data: it
is put in as it is and never looked at for further expressions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.dsl.cel_values import dump
from engine.dsl.expressions import Entry, ExpressionError, evaluate

V: TypeAlias = Any
"""A JSON value in which `{"$expr": i}`, `{"$text": [...]}` and `{"$lit": {...}}` have a meaning."""

MAX_RENDERED = 4 << 20
"""Bytes (about) that one rendered value may have, all its expressions together."""
_WORDS = ("$expr", "$text", "$lit")
_NOT_PLAIN = re.compile(r"""['"{}]|//""")
"""What can hold a `}}` that is not the end of its expression."""


class TemplateSyntaxError(Exception):
    """`${{` without its end, or with nothing inside; `offset` is the character in the text (from 0)."""

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Slot:
    """An expression in a text; `offset` is where its first character stands in the text."""

    src: str
    offset: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression stands: the path of its text in the document, and the character in that text."""

    path: tuple[str | int, ...]
    offset: int


def split(text: str) -> list[str | Slot]:
    """Cut `text` into plain parts and expressions; `$${{` is the literal `${{`.

    Braces and quotes inside an expression count, so that `${{ {'a': {'b': 1}} }}` is one expression.
    Raises TemplateSyntaxError.
    """
    parts: list[str | Slot] = []
    plain: list[str] = []
    at = 0
    while (found := text.find("${{", at)) >= 0:
        if found > at and text[found - 1] == "$":
            plain.append(text[at : found - 1] + "${{")
            at = found + 3
            continue
        plain.append(text[at:found])
        end = _end(text, found)
        if "".join(plain):
            parts.append("".join(plain))
        plain = []
        parts.append(_slot(text, found, end))
        at = end + 2
    plain.append(text[at:])
    if "".join(plain) or not parts:
        parts.append("".join(plain))
    return parts


def _slot(text: str, start: int, end: int) -> Slot:
    inside = text[start + 3 : end]
    src = inside.strip()
    if not src:
        raise TemplateSyntaxError("an empty expression", start, "write $${{ for a literal ${{")
    return Slot(src, start + 3 + len(inside) - len(inside.lstrip()))


def _end(text: str, start: int) -> int:
    """Where the `}}` of the expression that opens at `start` stands."""
    end = text.find("}}", start)
    if end > 0 and not _NOT_PLAIN.search(text, start + 3, end):
        return end
    at, depth = start + 3, 0
    while at < len(text):
        character = text[at]
        if character in "'\"":
            at = _after_quote(text, at)
            continue
        if text.startswith("//", at):
            # A comment of CEL runs to the end of its line.
            line_end = text.find("\n", at)
            at = len(text) if line_end < 0 else line_end
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            if depth == 0:
                if text.startswith("}}", at):
                    return at
                raise TemplateSyntaxError("a } without its {", at)
            depth -= 1
        at += 1
    raise TemplateSyntaxError("an expression without its end }}", start, "write $${{ for a literal ${{")


def _after_quote(text: str, at: int) -> int:
    """Behind the string that opens at `at`; an unclosed one reaches to the end."""
    quote = text[at] * 3 if text.startswith(text[at] * 3, at) else text[at]
    raw = at > 0 and text[at - 1] in "rR" and not (at > 1 and (text[at - 2].isalnum() or text[at - 2] == "_"))
    at += len(quote)
    while at < len(text):
        if text.startswith(quote, at):
            return at + len(quote)
        at += 2 if text[at] == "\\" and not raw else 1
    return len(text)


def compile_value(
    value: Any,
    compile: Callable[[str, Place], int],
    path: tuple[str | int, ...] = (),
    problem: Callable[[TemplateSyntaxError, tuple[str | int, ...]], None] | None = None,
) -> V:
    """Replace every expression in `value` by the index that `compile(src, place)` gives for it.

    Keys of mappings are left as they are.  A template fault is raised as TemplateSyntaxError, or handed to
    `problem` with its path, so that all faults of a document can be told together.
    """
    if isinstance(value, str):
        if "${{" not in value:
            return value
        try:
            parts = split(value)
        except TemplateSyntaxError as error:
            if problem is None:
                raise
            problem(error, path)
            return value
        return _compiled_text(parts, compile, path)
    if isinstance(value, dict):
        made = {key: compile_value(item, compile, (*path, key), problem) for key, item in value.items()}
        return {"$lit": made} if any(word in made for word in _WORDS) else made
    if isinstance(value, list):
        return [compile_value(item, compile, (*path, index), problem) for index, item in enumerate(value)]
    return value


def _compiled_text(
    parts: Sequence[str | Slot], compile: Callable[[str, Place], int], path: tuple[str | int, ...]
) -> V:
    made: list[str | int] = [
        p if isinstance(p, str) else compile(p.src, Place(path, p.offset)) for p in parts
    ]
    if len(made) > 1:
        return {"$text": made}
    (only,) = made
    return only if isinstance(only, str) else {"$expr": only}


def expressions_in(value: V) -> list[int]:
    """The indices of the expressions in a compiled value, in order, each once."""
    found: dict[int, None] = {}
    _collect(value, found)
    return list(found)


def _collect(value: V, found: dict[int, None]) -> None:
    if isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        if "$expr" in value:
            found[value["$expr"]] = None
        elif "$text" in value:
            found.update((part, None) for part in value["$text"] if isinstance(part, int))
        else:
            for item in (value.get("$lit", value)).values():
                _collect(item, found)


class Renderer:
    """Renders compiled values against the expression table of one definition."""

    def __init__(self, exprs: Sequence[Entry]) -> None:
        self._exprs = exprs

    def refs(self, value: V) -> list[str]:
        """The bound names that rendering `value` reads, sorted."""
        return sorted({ref for index in expressions_in(value) for ref in self._exprs[index]["refs"]})

    def render(self, value: V, lookup: Callable[[str], Any]) -> Any:
        """The JSON value; `lookup(ref)` gives a bound name's value, or raises KeyError if it has none.

        Raises ExpressionError.
        """
        return _Rendering(self._exprs, lookup).render(value)


class _Rendering:
    """One rendering, bounded in total size."""

    def __init__(self, exprs: Sequence[Entry], lookup: Callable[[str], Any]) -> None:
        self._exprs = exprs
        self._lookup = lookup
        self._left = MAX_RENDERED

    def render(self, value: V) -> Any:
        if isinstance(value, list):
            return [self.render(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$expr" in value:
            return self._value(value["$expr"])
        if "$text" in value:
            return "".join(part if isinstance(part, str) else self._text(part) for part in value["$text"])
        return {key: self.render(item) for key, item in value.get("$lit", value).items()}

    def _value(self, index: int) -> Any:
        value = self._evaluate(index)
        if isinstance(value, str):
            self._take(len(value))
        elif isinstance(value, (list, dict)):
            self._take(len(dump(value)))
        return value

    def _text(self, index: int) -> str:
        value = self._evaluate(index)
        if value is None:
            raise ExpressionError(
                f"{self._exprs[index]['src']}: null has no text; use .?x.orValue('...') or ?:"
            )
        text = value if isinstance(value, str) else dump(value)
        self._take(len(text))
        return text

    def _evaluate(self, index: int) -> Any:
        entry = self._exprs[index]
        return evaluate(entry, self._bound(entry["refs"]))

    def _bound(self, refs: Sequence[str]) -> Mapping[str, Any]:
        bound = {}
        for ref in refs:
            try:
                bound[ref] = self._lookup(ref)
            except KeyError:
                continue  # an input that was not given: has() is false, and reading it is an error
        return bound

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ExpressionError(f"the rendered value is larger than {MAX_RENDERED} bytes")
