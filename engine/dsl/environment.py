"""What an expression may name, and of which shape it is.

A shape is a JSON Schema (of `inputs`, of a result) or one of the words string, bool, list, map, null and dyn.
Numbers are always `dyn`: JSON does not tell 1 from 1.0, so their kind is known only at run time.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

Shape: TypeAlias = str | dict[str, Any]

_OPENING = ("patternProperties", "$ref", "allOf", "anyOf", "oneOf", "if", "unevaluatedProperties")


class Environment:
    """The names that expressions of one place may use.

    `names` are whole names, dots included, such as `tasks.build.outputs` or `run.id`.  `objects` are names
    whose fields are names of their own: `{"inputs": <JSON Schema>, "env": schema_of(constants)}` declares
    `inputs`, `inputs.service` and so on.  A field that a schema does not declare is an error, unless the
    schema says `additionalProperties`.
    """

    def __init__(
        self,
        names: Mapping[str, Shape],
        objects: Mapping[str, dict[str, Any]] | None = None,
        why_unknown: Callable[[str], str] = lambda name: "",
    ) -> None:
        # A chain is its maker's own; whatever else is given stays as it is.
        self.names: MutableMapping[str, Shape] = names if isinstance(names, ChainMap) else dict(names)
        self.objects = dict(objects or {})
        self.why_unknown = why_unknown
        """A hint for a name that is not known here, "" if there is none."""
        for root, schema in self.objects.items():
            for field, shape in _properties(schema).items():
                self.names[f"{root}.{field}"] = shape if isinstance(shape, dict) else "dyn"

    def extended(self, names: Mapping[str, Shape]) -> Environment:
        """The same and more: `result`, `attempt`, `error` beside an attempt, or what is known inside of a task."""
        # Chained, not copied: there may be thousands of bodies inside of a definition with thousands of names.
        maps = self.names.maps if isinstance(self.names, ChainMap) else [self.names]
        more = Environment(ChainMap(dict(names), *maps), None, self.why_unknown)
        more.objects = self.objects
        return more


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def is_open(schema: dict[str, Any]) -> bool:
    """Whether an object of this schema may hold fields that the schema does not name."""
    if "properties" not in schema or any(word in schema for word in _OPENING):
        return True
    return schema.get("additionalProperties", False) is not False


def field_shape(shape: Shape | None, field: str) -> Shape | None:
    """The shape of a field, None if nothing is known; raises KeyError if the field cannot be there."""
    if not isinstance(shape, dict):
        return None
    if field in _properties(shape):
        found = _properties(shape)[field]
        return found if isinstance(found, dict) else None
    if is_open(shape):
        return None
    raise KeyError(field)


def fields(shape: Shape | None) -> list[str]:
    """The declared fields of a shape, for hints."""
    return list(_properties(shape)) if isinstance(shape, dict) else []


def item_shape(shape: Shape | None) -> Shape | None:
    """The shape of a list's items, None if nothing is known."""
    items = shape.get("items") if isinstance(shape, dict) else None
    return items if isinstance(items, dict) else None


def type_of(shape: Shape | None) -> str:
    """The word for the type checker: string, bool, list<...>, map, null or dyn."""
    if shape is None:
        return "dyn"
    if isinstance(shape, str):
        return shape if shape in ("string", "bool", "list", "map", "null") else "dyn"
    kind = shape.get("type")
    if kind == "array":
        inner = type_of(item_shape(shape))
        return "list" if inner == "dyn" else f"list<{inner}>"
    words = {"string": "string", "boolean": "bool", "object": "map", "null": "null"}
    return words.get(kind, "dyn") if isinstance(kind, str) else "dyn"


def is_number(shape: Shape | None) -> bool:
    """Whether a value of the shape is a number for certain, whole or not."""
    kinds = shape.get("type") if isinstance(shape, dict) else None
    return kinds in ("integer", "number") or (
        isinstance(kinds, list) and bool(kinds) and {"integer", "number"}.issuperset(kinds)
    )


def schema_of(value: Any) -> dict[str, Any]:
    """The JSON Schema of one constant, closed: for `env`."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, str):
        return {"type": "string"}
    if isinstance(value, dict):
        return {"type": "object", "properties": {str(k): schema_of(v) for k, v in value.items()}}
    if isinstance(value, list):
        kinds = [schema_of(v) for v in value]
        same = bool(kinds) and all(k == kinds[0] for k in kinds)
        return {"type": "array", "items": kinds[0]} if same else {"type": "array"}
    return {"type": "null"} if value is None else {"type": "number"}
