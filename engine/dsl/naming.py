"""What expressions may name: the environments of a definition, and which of its names each place may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine.dsl.activity_types import ActivityTypeInfo
from engine.dsl.environment import Environment, Shape, schema_of
from engine.dsl.outline import Outline, OutlineTask, Scope, TaskSet
from engine.dsl.shapes import TASK_ERROR, failures_shape, outputs_shape

RUN = frozenset({"run.id", "run.workflow", "run.commit_sha", "run.started_at", "run.started_by"})
RUN_AT_END = RUN | {"run.status", "run.error", "run.failed_tasks"}
SCHEDULED = frozenset({"trigger.type", "trigger.id", "trigger.scheduled_at", "trigger.previous_scheduled_at"})
RECEIVED = frozenset({"trigger.type", "trigger.id", "trigger.headers", "trigger.body"})
TRIGGER = SCHEDULED | RECEIVED
_EVERYWHERE: dict[str, Shape] = {
    **dict.fromkeys(sorted(RUN | {"run.status"}), "string"),
    "run.error": TASK_ERROR, "run.failed_tasks": "list", "task.id": "string", "task.attempt": "dyn",
    "attempt": "dyn", "error": TASK_ERROR, "result": {},
    **dict.fromkeys(sorted(TRIGGER), "string"), "trigger.headers": "map", "trigger.body": {},
}  # fmt: skip
"""The names that do not depend on the definition; which of them a place may read is another matter."""
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
NO_TASKS = TaskSet({}, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Names that the expressions of one place may read.

    `roots` are `inputs`, `env`, `tasks`; `names` are single names, such as `result` or `run.id`.
    `visible` holds the tasks whose end has been awaited, `certain` those sure to have completed; `scope` is the body of a
    task that the place stands in, None in the workflow's own lists.
    """

    roots: frozenset[str]
    names: frozenset[str] = frozenset()
    visible: TaskSet = NO_TASKS
    certain: TaskSet = NO_TASKS
    scope: Scope | None = None
    why: str = ""

    def with_names(self, *names: str) -> Place:
        """The same place, where `names` may be read as well."""
        # Not by `replace`, which looks every field up: this is done several times for every task.
        return Place(self.roots, self.names.union(names), self.visible, self.certain, self.scope, self.why)

    def with_certain(self, ids: frozenset[str]) -> Place:
        """The same place, behind a test of the status of the tasks `ids`."""
        return replace(self, certain=self.certain | ids) if ids else self


class Naming:
    """The environments of one definition: one for its own lists, one for each body of a task, and one more of each for
    each shape of `result`."""

    def __init__(self, definition: Mapping[str, Any], outline: Outline) -> None:
        self._outline = outline
        names = {**_EVERYWHERE, **self._names_of(outline.by_id.values())}
        objects = {
            "inputs": inputs_shape(definition),
            "env": _env_shape(definition),
            "secrets": _secrets_shape(definition),
        }
        top = Environment(names, objects, partial(_why_unknown, outline))
        self._environments: dict[tuple[Scope | None, str], Environment] = {(None, ""): top}

    def enter(self, body: Scope, names: Mapping[str, Shape]) -> None:
        """Make the environment of a body: what is known around it, `names`, and its own tasks."""
        assert body.owner is not None
        around = self._environments[_key(body.owner.scope), ""]
        own = {**names, **self._names_of(body.tasks)}
        self._environments[body, ""] = around.extended(own)

    def beside(self, scope: Scope | None, info: ActivityTypeInfo | None) -> tuple[Any, Environment]:
        """The environment of a place in which `result` is what that activity type gives, and what it is known by."""
        key = (scope, info.name if info else "")
        if key not in self._environments:
            shape: Shape = info.result_schema if info and isinstance(info.result_schema, dict) else {}
            self._environments[key] = self._environments[scope, ""].extended({"result": shape})
        return key, self._environments[key]

    def _names_of(self, tasks: Iterable[OutlineTask]) -> dict[str, Shape]:
        names: dict[str, Shape] = {}
        for task in tasks:
            name = f"tasks.{task.id}"
            names[f"{name}.outputs"] = outputs_shape(task, self._outline)
            names[f"{name}.status"] = "string"
            names[f"{name}.error"] = TASK_ERROR
            names[f"{name}.attempts"] = "dyn"
            if task.kind == "signal":
                names[f"{name}.callback_url"] = "string"
            elif task.kind == "map":
                names[f"{name}.failures"] = failures_shape()
        return names


def _why_unknown(outline: Outline, name: str) -> str:
    """A hint for a name that is known elsewhere; "" if there is nothing to say."""
    root, _, rest = name.partition(".")
    if root == "tasks":
        for body in outline.bodies:
            if rest in body.positions and body.owner:
                return f"it stands inside of `{body.owner.id}`: from outside, only `tasks.{body.owner.id}` is seen"
    elif root == "secrets" and rest:
        return f"declare it at the top: `secrets: [{rest}]`"
    elif root in ("state", "iteration"):
        return f"`{root}` is known inside of a `loop`"
    elif root in ("item", "item_index"):
        return "inside of a `map` it is known by the map's `as`"
    elif root in _NEIGHBOURS_NAMES:
        return _NEIGHBOURS_NAMES[root]
    return ""


_NEIGHBOURS_NAMES = {
    "matrix": "inside of a `map` the item is known by the map's `as`",
    "needs": "write `tasks.<id>.outputs`",
    "steps": "write `tasks.<id>.outputs`",
    "params": "write `inputs.<name>`",
    "parameters": "write `inputs.<name>`",
    "vars": "write `env.<name>`",
    "github": "what is known of a run is `run.id`, `run.workflow`, `run.commit_sha`, `run.started_at`, `run.started_by`",
    "workflow": "what is known of a run is `run.id`, `run.workflow`, `run.commit_sha`, `run.started_at`, `run.started_by`",
    "event": "what started a run is `trigger.body`, `trigger.headers`",
}
"""Roots of names in other systems."""


def _key(scope: Scope) -> Scope | None:
    return scope if scope.owner else None


def inputs_shape(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON Schema of `inputs`: closed unless it says otherwise."""
    inputs = definition.get("inputs", _NOTHING)
    if not isinstance(inputs, dict):
        return {}
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


def _secrets_shape(definition: Mapping[str, Any]) -> dict[str, Any]:
    listed = definition.get("secrets", [])
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}
