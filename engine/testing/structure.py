"""The shape of a test file: every fault located, in words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from engine.dsl import codes, durations
from engine.dsl.json_schemas import compile_schema
from engine.dsl.loader import Document, Path, shown
from engine.dsl.structure import closest, pruned
from engine.errors import Problem
from engine.testing.schema import SCHEMA, TOOK_PATTERN

_KINDS = {
    "string": "text", "object": "a mapping", "array": "a list", "integer": "a whole number",
    "boolean": "true or false",
}  # fmt: skip
_HINTS = {
    durations.PATTERN: "write a duration like 90s, 1h30m, 250ms or PT10M",
    TOOK_PATTERN: 'write it like "<5h", ">=1m" or "2h"',
}
_NAMES = {
    "id": "the trigger",
    "type": "the error",
    "by": "the vote",
    "decision": "the vote",
    "status": "`expect`",
}


def check_shape(document: Document) -> tuple[list[Problem], Any]:
    """The problems of the file's shape, and its data without what is wrong in it."""
    problems: list[Problem] = []
    bad: set[Path] = set()
    for error in _validator().iter_errors(document.data):
        problems.extend(_explained(document, error, bad))
    return problems, pruned(document.data, bad) if bad else document.data


@cache
def _validator() -> Any:
    return compile_schema(SCHEMA)


def _explained(document: Document, error: Any, bad: set[Path]) -> Iterator[Problem]:
    path: Path = tuple(error.instance_path)
    kind = error.kind.name
    if kind == "additionalProperties":
        known = _at(SCHEMA, list(error.schema_path)[:-1]).get("properties", {})
        for key in error.kind.unexpected:
            bad.add((*path, key))
            yield _unknown_key(document, (*path, key), known)
    elif kind == "required":
        key = error.kind.property
        where = "the file" if not path else "the case" if len(path) == 2 else _NAMES.get(key, "this")
        yield document.problem(codes.MISSING_KEY, f"{where} needs `{key}`", path)
    else:
        bad.add(path)
        yield _wrong(document, error, path)


def _unknown_key(document: Document, path: Path, known: dict[str, Any]) -> Problem:
    key = str(path[-1])
    hint = closest(key, list(known)) or "there are " + ", ".join(f"`{name}`" for name in known)
    return document.problem(codes.UNKNOWN_KEY, f"unknown key `{shown(key)}`", path, hint=hint, key=True)


def _wrong(document: Document, error: Any, path: Path) -> Problem:
    value = _at(document.data, path)
    holder = _at(SCHEMA, list(error.schema_path)[:-1])
    match error.kind.name:
        case "type":
            wanted = _KINDS.get(str(holder.get("type")), "another kind of value")
            quoted = wanted == "text" and isinstance(value, (bool, int, float))
            hint = f'quote it: "{document.raw(path)}"' if quoted else ""
            return document.problem(codes.TYPE, f"`{shown(_named(path))}` takes {wanted}", path, hint=hint)
        case "enum":
            options = [str(option) for option in holder["enum"]]
            near = f"did you mean `{str(value).upper()}`?" if str(value).upper() in options else ""
            hint = near or "one of " + ", ".join(f"`{option}`" for option in options)
            return document.problem(codes.VALUE, f"`{shown(value)}` cannot stand here", path, hint=hint)
        case "pattern":
            hint = _HINTS.get(error.kind.pattern, "")
            code = codes.DURATION if error.kind.pattern == durations.PATTERN else codes.VALUE
            return document.problem(code, f"`{shown(value)}` cannot stand here", path, hint=hint)
        case "minItems" | "minLength":
            return document.problem(codes.VALUE, f"`{shown(_named(path))}` is empty", path)
    return document.problem(codes.VALUE, shown(str(error.message).split("\n", 1)[0], 200), path)


def _named(path: Path) -> str:
    names = [part for part in path if isinstance(part, str)]
    return names[-1] if names else "the file"


def _at(value: Any, path: Any) -> Any:
    for part in path:
        try:
            value = value[int(part) if isinstance(value, list) else part]
        except (KeyError, IndexError, ValueError, TypeError):
            return {}
        if isinstance(value, dict) and isinstance(value.get("$ref"), str) and len(value) == 1:
            value = SCHEMA["$defs"][value["$ref"].rsplit("/", 1)[1]]
    return value
