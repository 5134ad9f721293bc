"""What expressions may name: the environment of a definition, and which of its names each place may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from engine.dsl.activity_types import ActivityTypeInfo
from engine.dsl.environment import Environment, Shape, schema_of
from engine.dsl.outline import TaskSet

Lookup: TypeAlias = Mapping[str, ActivityTypeInfo | None]

RUN = frozenset({"run.id", "run.workflow", "run.commit_sha", "run.started_at", "run.started_by"})
RUN_AT_END = RUN | {"run.status", "run.error", "run.failed_tasks"}
_TASK_ERROR: dict[str, Any] = {
    "properties": {
        "task": {"type": "string"},
        "type": {"type": "string"},
        "message": {"type": "string"},
        "details": {},
    }
}
_ANYTHING: dict[str, Any] = {}
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
NO_TASKS = TaskSet({}, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Names that the expressions of one place may read.

    `roots` are `inputs`, `env`, `tasks`; `names` are single names, such as `result` or `run.id`.
    `visible` holds the tasks whose end has been awaited, `certain` those sure to have completed.
    """

    roots: frozenset[str]
    names: frozenset[str] = frozenset()
    visible: TaskSet = NO_TASKS
    certain: TaskSet = NO_TASKS
    why: str = ""

    def with_names(self, *names: str) -> Place:
        """The same place, where `names` may be read as well."""
        # Not by `replace`, which looks every field up: this is done several times for every task.
        return Place(self.roots, self.names.union(names), self.visible, self.certain, self.why)

    def with_certain(self, ids: frozenset[str]) -> Place:
        """The same place, behind a test of the status of the tasks `ids`."""
        return replace(self, certain=self.certain | ids) if ids else self


@dataclass(slots=True)
class Naming:
    """The environments of one definition: one for all places, and one more for each shape of `result`."""

    base: Environment
    _by_result: dict[str, Environment] = field(default_factory=dict)

    def beside(self, info: ActivityTypeInfo | None) -> tuple[str, Environment]:
        """The environment in which `result` is what that activity type gives, and a name for it."""
        key = info.name if info else ""
        if key not in self._by_result:
            shape: Shape = info.result_schema if info and isinstance(info.result_schema, dict) else _ANYTHING
            self._by_result[key] = self.base.extended({"result": shape})
        return key, self._by_result[key]


def naming_of(definition: Mapping[str, Any], tasks: Iterable[Mapping[str, Any]], types: Lookup) -> Naming:
    """What the definition declares. Tolerates one that is wrong: what is not understood is open."""
    names: dict[str, Shape] = dict.fromkeys(sorted(RUN | {"run.status"}), "string")
    names |= {
        "run.error": _TASK_ERROR,
        "run.failed_tasks": "list",
        "task.id": "string",
        "task.attempt": "dyn",
    }
    names |= {"attempt": "dyn", "error": _TASK_ERROR, "result": _ANYTHING}
    for task in tasks:
        name = f"tasks.{task['id']}"
        names[f"{name}.outputs"] = outputs_shape(task, types)
        names[f"{name}.status"] = "string"
        names[f"{name}.error"] = _TASK_ERROR
        names[f"{name}.attempts"] = "dyn"
    return Naming(Environment(names, {"inputs": _inputs_shape(definition), "env": _env_shape(definition)}))


def outputs_shape(task: Mapping[str, Any], types: Lookup) -> dict[str, Any]:
    """A JSON Schema of `tasks.<id>.outputs`, as far as it can be known."""
    kind = task.get("type", "activity")
    if kind == "wait":
        shape = _NOTHING
    elif kind == "set":
        shape = _shape_of(task.get("values", _ANYTHING))
    elif kind != "activity":
        return _ANYTHING
    elif task.get("outputs") is not None:
        shape = _shape_of(task["outputs"])
    else:
        info = types.get(str(task.get("activity_type")))
        shape = info.result_schema if info and isinstance(info.result_schema, dict) else _ANYTHING
    return _or_default(shape, task)


def _or_default(shape: dict[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """The shape, where the outputs may be `default_outputs` instead."""
    if task.get("default_outputs") is None or "properties" not in shape:
        return shape
    other = schema_of(task["default_outputs"])
    if "properties" not in other:
        return _ANYTHING
    # Read from both: of which type a field is, is known of neither.
    return {"properties": {key: {} for key in (*shape["properties"], *other["properties"])}}


def _shape_of(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and "${{" in value:
        return {}
    if isinstance(value, dict):
        return {"type": "object", "properties": {key: _shape_of(item) for key, item in value.items()}}
    if isinstance(value, list):
        return {"type": "array"}
    return schema_of(value)


def _inputs_shape(definition: Mapping[str, Any]) -> dict[str, Any]:
    inputs = definition.get("inputs", _NOTHING)
    if not isinstance(inputs, dict):
        return _ANYTHING
    return (
        inputs
        if "properties" in inputs or inputs.get("additionalProperties")
        else {**inputs, "properties": {}}
    )


def _env_shape(definition: Mapping[str, Any]) -> dict[str, Any]:
    env = definition.get("env", {})
    return (
        {"type": "object", "properties": {k: schema_of(v) for k, v in env.items()}}
        if isinstance(env, dict)
        else {}
    )
