"""The shape of what each kind of task gives, as far as it can be known from the definition: JSON Schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.dsl.environment import Shape, schema_of
from engine.dsl.outline import Outline, OutlineTask, Scope

TASK_ERROR: dict[str, Any] = {
    "properties": {
        "task": {"type": "string"},
        "type": {"type": "string"},
        "message": {"type": "string"},
        "details": {},
    }
}
_ANYTHING: dict[str, Any] = {}
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def outputs_shape(task: OutlineTask, outline: Outline) -> dict[str, Any]:
    """A JSON Schema of `tasks.<id>.outputs`."""
    return _or_default(_outputs(task, outline), task.data)


def _outputs(task: OutlineTask, outline: Outline) -> dict[str, Any]:
    data, kind = task.data, task.kind
    if kind in ("wait", "end"):
        return _NOTHING
    if kind == "set":
        return shape_of(data.get("values", _ANYTHING))
    if kind == "map":
        return _list_of_items(task, outline)
    if data.get("outputs") is not None:
        return shape_of(data["outputs"])
    if kind == "activity":
        info = task.info
        return info.result_schema if info and isinstance(info.result_schema, dict) else _ANYTHING
    if kind == "signal":
        return data["schema"] if isinstance(data.get("schema"), dict) else _ANYTHING
    if kind == "group" and task.body:
        return _of_the_last(task.body, outline)
    if kind == "loop" and task.body:
        last = _of_the_last(task.body, outline)
        return {"type": "object", "properties": {"state": state_shape(data), "iterations": {}, "last": last}}
    return _ANYTHING


def _list_of_items(task: OutlineTask, outline: Outline) -> dict[str, Any]:
    if task.data.get("tolerated_failures") is not None or task.body is None:
        return {"type": "array"}  # of which some may be null
    if task.data.get("results") is not None:
        return {"type": "array", "items": shape_of(task.data["results"])}
    return {"type": "array", "items": _of_the_last(task.body, outline)}


def _of_the_last(body: Scope, outline: Outline) -> dict[str, Any]:
    """What a body gives that has no mapping: the outputs of its only last task, else those of each last one by its id."""
    last = body.last()
    if len(last) == 1:
        return outputs_shape(last[0], outline)
    certain = body.certain_at_end()
    shapes = {task.id: outputs_shape(task, outline) if task.id in certain else _ANYTHING for task in last}
    return {"type": "object", "properties": shapes}


def failures_shape() -> dict[str, Any]:
    """A JSON Schema of `tasks.<id>.failures` of a map."""
    return {"type": "array", "items": {"type": "object", "properties": {"index": {}, "error": TASK_ERROR}}}


def state_shape(loop: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema of a loop's `state`: of which kind a value is, may change from one iteration to the next."""
    state = loop.get("state", {})
    return {"type": "object", "properties": {key: {} for key in state} if isinstance(state, dict) else {}}


def items_shape(items: Any, found: Shape | None) -> Shape:
    """The shape of one item: of a list that is written out, or of the list whose shape was `found`."""
    shape: Any = shape_of(items) if isinstance(items, list) else found
    inner = shape.get("items") if isinstance(shape, dict) else None
    return inner if isinstance(inner, dict) else "dyn"


def _or_default(shape: dict[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """The shape, where the outputs may be `default_outputs` instead."""
    if task.get("default_outputs") is None:
        return shape
    if "properties" not in shape:
        return _ANYTHING if shape.get("type") == "array" else shape
    other = schema_of(task["default_outputs"])
    if "properties" not in other:
        return _ANYTHING
    # Read from both: of which type a field is, is known of neither.
    return {"properties": {key: {} for key in (*shape["properties"], *other["properties"])}}


def shape_of(value: Any) -> dict[str, Any]:
    """A JSON Schema of a value that may hold expressions."""
    if isinstance(value, str) and "${{" in value:
        return {}
    if isinstance(value, dict):
        return {"type": "object", "properties": {key: shape_of(item) for key, item in value.items()}}
    if isinstance(value, list):
        kinds = [shape_of(item) for item in value]
        same = bool(kinds) and all(kind == kinds[0] for kind in kinds)
        return {"type": "array", "items": kinds[0]} if same else {"type": "array"}
    return schema_of(value)
