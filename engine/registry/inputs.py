"""Inputs of a run against the schema of the version that it runs, with their defaults filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from engine.core.contracts import Json
from engine.dsl.expressions import ExpressionError
from engine.dsl.input_defaults import with_defaults
from engine.dsl.json_schemas import compile_schema
from engine.dsl.templates import Renderer

_REPORTED = 5


def fitted(compiled: Mapping[str, Any], inputs: dict[str, Json]) -> tuple[dict[str, Json], list[str]]:
    """The inputs with defaults, and what is wrong with them: `/path: why` each."""
    schema = compiled["inputs"]
    if schema is None:
        return inputs, [f"/{name}: no such input" for name in sorted(inputs)[:_REPORTED]]
    inputs = with_defaults(schema, inputs)
    problems = []
    for error in _validator(json.dumps(schema)).iter_errors(inputs):
        problems.append(f"/{'/'.join(str(part) for part in error.instance_path)}: {error.message[:300]}")
        if len(problems) == _REPORTED:
            break
    return inputs, problems


def titled(compiled: Mapping[str, Any], inputs: dict[str, Json]) -> str:
    """The run's title. What it cannot know before the run is there falls back to the workflow's name."""
    title = compiled["title"]
    if not isinstance(title, str):
        known = {"inputs": inputs, "env": compiled["env"]}

        def lookup(ref: str) -> Json:
            root, _, name = ref.partition(".")
            return known[root][name] if name else known[root]

        try:
            title = Renderer(compiled["exprs"]).render(title, lookup)
        except (ExpressionError, KeyError):
            title = ""
    return title[:1000] if isinstance(title, str) and title else str(compiled["name"])


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    return compile_schema(json.loads(schema))
