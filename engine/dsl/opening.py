"""Config schemas as the language needs them: an expression may stand for any value.

A schema that a piece of text could break is wrapped as `if it is text with an expression, then fine, else
the schema`, which keeps error messages exact where `anyOf` would blur them.
"""

from __future__ import annotations

from typing import Any

from engine.dsl import durations
from engine.dsl.json_schemas import subschemas
from engine.dsl.words import EXPRESSION_PATTERN

IS_EXPRESSION: dict[str, Any] = {"type": "string", "pattern": EXPRESSION_PATTERN}
_STRING_LIMITS = frozenset({"pattern", "minLength", "maxLength", "format", "enum", "const"})
_ANNOTATIONS = ("title", "description", "default", "examples", "deprecated")
_JUDGE_THE_WHOLE = frozenset({"not", "if", "then", "else", "allOf", "dependentSchemas", "propertyNames"})
"""Keywords whose schemas judge the object that they stand in, and no value inside of it."""
_MERGED = frozenset({"string", "integer", "number", "boolean", "array"})
"""Kinds whose limits say nothing of values of the other kinds."""


def opened(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a config that may hold expressions; the config itself must be an object."""
    return _inner(tidied(schema))


def _opened(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    inner = _inner(schema)
    if _takes_any_text(inner):
        return inner
    notes = {key: inner.pop(key) for key in _ANNOTATIONS if key in inner}
    return {**notes, "if": IS_EXPRESSION, "else": inner}


def _inner(schema: dict[str, Any]) -> dict[str, Any]:
    result = dict(schema)
    for keyword, *rest in (path for path, _ in subschemas(schema)):
        word = str(keyword)
        if word in _JUDGE_THE_WHOLE:
            continue
        if not rest:
            result[word] = _opened(schema[word])
            continue
        if result[word] is schema[word]:
            result[word] = schema[word].copy()
        child = schema[word][rest[0]]
        is_alternative = word in ("$defs", "anyOf", "oneOf") and isinstance(child, dict)
        result[word][rest[0]] = _inner(child) if is_alternative else _opened(child)
    return result


def _takes_any_text(schema: dict[str, Any]) -> bool:
    if "$ref" in schema or any(key in schema for key in ("anyOf", "oneOf", "allOf", "not", "if")):
        return False
    kinds = schema.get("type")
    if kinds is None:
        return not any(key in schema for key in ("enum", "const"))
    return "string" in ([kinds] if isinstance(kinds, str) else kinds) and not _STRING_LIMITS & schema.keys()


def tidied(schema: Any) -> Any:
    """What Pydantic makes, with null branches dropped, scalar unions merged, and durations spelled as ours."""
    if isinstance(schema, list):
        return [tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        key: value if key in ("default", "examples", "enum", "const") else tidied(value)
        for key, value in schema.items()
    }
    if result.get("type") == "string" and result.get("format") == "duration":
        del result["format"]
        result["pattern"] = durations.PATTERN
    if "default" in result and result["default"] is None:
        del result["default"]
    for keyword in ("anyOf", "oneOf"):
        if isinstance(result.get(keyword), list):
            _merge_branches(result, keyword)
    return result


def _merge_branches(schema: dict[str, Any], keyword: str) -> None:
    branches = [branch for branch in schema[keyword] if branch != {"type": "null"}]
    if len(branches) == 1:
        del schema[keyword]
        for key, value in branches[0].items():
            schema.setdefault(key, value)
    elif _are_distinct_scalars(branches):
        del schema[keyword]
        merged: dict[str, Any] = {"type": [branch["type"] for branch in branches]}
        for branch in branches:
            merged.update({key: value for key, value in branch.items() if key != "type"})
        schema.update(merged)
    else:
        schema[keyword] = branches


def _are_distinct_scalars(branches: list[Any]) -> bool:
    """Whether one schema can say what the branches say: kinds of values of which each has limits of its own."""
    kinds = [branch.get("type") for branch in branches if isinstance(branch, dict)]
    if len(kinds) != len(branches) or len(set(map(str, kinds))) != len(kinds):
        return False
    limits = [branch.keys() - {"type", "examples"} for branch in branches]
    numbers = [limit for kind, limit in zip(kinds, limits, strict=True) if kind in ("integer", "number")]
    return (
        all(kind in _MERGED for kind in kinds)
        and not any(limit & {"enum", "const"} for limit in limits)
        and (len(numbers) == 1 or not any(numbers))
    )
