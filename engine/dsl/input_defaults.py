"""The defaults of a run's inputs: the same for a start on the server and for a test offline."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any


def with_defaults(schema: Any, value: Any) -> Any:
    """A copy of `value` with the defaults of absent properties, at every depth that `properties` describe."""
    if not isinstance(schema, dict) or not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, part in _properties(schema):
        if name in filled:
            filled[name] = with_defaults(part, filled[name])
        elif isinstance(part, dict) and "default" in part:
            filled[name] = with_defaults(part, copy.deepcopy(part["default"]))
    return filled


def _properties(schema: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    properties = schema.get("properties")
    return properties.items() if isinstance(properties, dict) else ()
