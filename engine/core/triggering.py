"""What a trigger makes of the moment at which it fires: whether there is a run, and with which inputs.

Pure: the server judges with it when a schedule or a webhook fires, and tests of definitions judge with the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.core.contracts import Json
from engine.core.plan import Lookup, Value
from engine.core.values import ValueProblem, boolean
from engine.dsl.templates import Renderer

TRIGGER_FIELDS = ("type", "id", "scheduled_at", "previous_scheduled_at", "headers", "body")


def trigger_of(compiled: Mapping[str, Any], trigger_id: str) -> dict[str, Any] | None:
    """The compiled trigger of a definition, None if it has no such one."""
    return next((each for each in compiled.get("triggers") or () if each["id"] == trigger_id), None)


def inputs_of(
    compiled: Mapping[str, Any], trigger: Mapping[str, Any], fired: Mapping[str, Json]
) -> dict[str, Json] | None:
    """The inputs of the run that `trigger` starts, before the defaults; None if its `when` is false.

    `fired` is what expressions read as `trigger` (`TRIGGER_FIELDS`, what there is of them).
    Raises ExpressionError or ValueProblem if an expression cannot be worked out.
    """
    renderer = Renderer(compiled["exprs"])
    lookup = _lookup(compiled.get("env") or {}, fired)
    if (when := trigger.get("when")) is not None and not boolean(
        Value(when, renderer).render(lookup), "when"
    ):
        return None
    inputs = Value(trigger.get("inputs") or {}, renderer).render(lookup)
    if not isinstance(inputs, dict):
        raise ValueProblem("the inputs of a trigger are no mapping")
    return inputs


def _lookup(env: Mapping[str, Json], fired: Mapping[str, Json]) -> Lookup:
    def lookup(ref: str) -> Json:
        root, _, rest = ref.partition(".")
        holder = {"env": env, "trigger": fired}[root]
        return holder[rest] if rest else holder

    return lookup
