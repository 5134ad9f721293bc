"""Compiled definitions, written by hand: what the brain's tests run, without the language in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.core.contracts import Pin, RunStart
from engine.dsl.environment import Environment
from engine.dsl.expressions import compile_expression
from engine.dsl.templates import compile_value

MORE = frozenset(
    [
        "items",
        "as",
        "max_concurrency",
        "tolerated_failures",
        "results",
        "tasks",
        "reads",
        "weight",
        "whole",
        "state",
        "next",
        "interval",
        "max_iterations",
        "concurrency",
        "workflow",
        "ref",
        "one_of",
        "inputs",
        "signal",
        "correlation",
        "schema",
        "status",
        "message",
        "compensate",
        "cache",
        "secrets",
    ]
)
"""Keys that only some tasks have, and that are left out of all others."""
VALUES = (
    *(
        "when",
        "config",
        "success_when",
        "outputs",
        "values",
        "duration",
        "until",
        "items",
        "results",
        "state",
        "next",
    ),
    *("interval", "workflow", "inputs", "correlation", "message"),
)
TASK_FIELDS = ("outputs", "status", "error", "attempts", "failures")
RUN_FIELDS = ("id", "workflow", "commit_sha", "started_at", "started_by", "status", "error", "failed_tasks")


def task(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    """A task of type activity unless `type` says otherwise; durations in seconds, expressions as `${{ ... }}`."""
    made: dict[str, Any] = {
        "id": name,
        "type": "activity",
        "activity_type": None if fields.get("type", "activity") != "activity" else "echo",
        "depends_on": list(after),
        "when": None,
        "run_on": "success",
        "continue_on_failure": False,
        "config": {},
        "retry": None,
        "timeout": 300.0,
        "total_timeout": None,
        "success_when": None,
        "execution": "auto",
        "task_queue": "",
        "outputs": None,
        "default_outputs": None,
        "values": None,
        "duration": None,
        "until": None,
    }
    assert not fields.keys() - made.keys() - MORE, f"unknown fields {fields.keys() - made.keys() - MORE}"
    return made | fields


def many(name: str, *after: str, items: Any, tasks: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A map over `items`; `as_` is the name of an item."""
    if "as_" in fields:
        fields["as"] = fields.pop("as_")
    return task(name, *after, **{"type": "map", "timeout": None, "items": items, "tasks": tasks} | fields)


def loop(name: str, *after: str, tasks: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A loop; `next_` is `next`."""
    made = {
        "type": "loop",
        "timeout": None,
        "state": {},
        "next": fields.pop("next_", {}),
        "max_iterations": 10,
    }
    return task(name, *after, tasks=tasks, **made | fields)


def group(name: str, *after: str, tasks: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A DAG in a task."""
    return task(name, *after, tasks=tasks, **{"type": "group", "timeout": None} | fields)


def undo(**fields: Any) -> dict[str, Any]:
    """A compensation."""
    return {"activity_type": "undo", "config": {}, "timeout": 300.0, "on": "completed"} | fields


def approval(name: str, *after: str, **config: Any) -> dict[str, Any]:
    """A task that waits for people; `config` as in the language."""
    return task(name, *after, activity_type="human_approval", config={"message": f"{name}?"} | config)


def retry(max_attempts: int, **fields: Any) -> dict[str, Any]:
    """A retry policy as the compiler writes it."""
    return {
        "max_attempts": max_attempts,
        "initial_interval": 0.01,
        "backoff_coefficient": 2.0,
        "max_interval": 1.0,
        "non_retryable_errors": [],
        "when": None,
    } | fields


def definition(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A compiled form. `on_failure` and `finally_` are lists of tasks; other keys as in the compiled form."""
    made: dict[str, Any] = {
        "format": 2,
        "dsl": "1",
        "name": "under-test",
        "version": "1",
        "title": "",
        "description": "",
        "labels": {},
        "inputs": None,
        "env": {},
        "timeout": None,
        "cleanup_timeout": 900.0,
        "max_concurrency": None,
        "on_task_failure": "finish",
        "tasks": list(tasks),
        "on_failure": [],
        "finally": fields.pop("finally_", []),
        "outputs": None,
    }
    assert not fields.keys() - made.keys() - {"concurrency", "calls", "secrets"}
    return _compiled(made | fields)


def _compiled(made: dict[str, Any]) -> dict[str, Any]:
    phases = [made[phase] for phase in ("tasks", "on_failure", "finally")]
    every = [item for tasks in phases for item in _all(tasks)]
    names: dict[str, Any] = {
        f"tasks.{item['id']}.{field}": "dyn" for item in every for field in (*TASK_FIELDS, "callback_url")
    }
    names |= {f"run.{field}": "dyn" for field in RUN_FIELDS}
    names |= dict.fromkeys(("task.id", "task.attempt", "result", "attempt", "error", "trigger"), "dyn")
    names |= dict.fromkeys(("state", "iteration"), "dyn")
    for item in every:
        if item["type"] == "map":
            names |= dict.fromkeys(_own_names(item), "dyn")
    inputs = made["inputs"] or {"type": "object", "properties": {}}
    env = {"type": "object", "properties": {name: {} for name in made["env"]}}
    compiler = _Compiler(Environment(names, {"inputs": inputs, "env": env}), f"{inputs} {env}")
    for phase in ("tasks", "on_failure", "finally"):
        made[phase] = [compiler.task(item) for item in made[phase]]
    for key in ("title", "labels", "outputs"):
        made[key] = compiler.value(made[key])
    if "concurrency" in made:
        made["concurrency"] = made["concurrency"] | {"group": compiler.value(made["concurrency"]["group"])}
    return {**made, "exprs": compiler.exprs}


def _all(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in tasks:
        yield item
        yield from _all(item.get("tasks") or [])


def _own_names(item: dict[str, Any]) -> tuple[str, str]:
    name = item.get("as") or "item"
    return name, f"{name}_index"


_ENTRIES: dict[str, Any] = {}
"""Expressions compiled before: what they become depends on nothing but the types of inputs and `env`."""


class _Compiler:
    """Replaces expressions by their places in one table."""

    def __init__(self, environment: Environment, known: str) -> None:
        self._environment = environment
        self._known = known
        self.exprs: list[dict[str, Any]] = []

    def value(self, value: Any) -> Any:
        """One value."""
        return compile_value(value, self._add)

    def task(self, item: dict[str, Any]) -> dict[str, Any]:
        """One task, with what stands in it."""
        made = item | {key: self.value(item[key]) for key in VALUES if key in item}
        if item["retry"] is not None:
            made["retry"] = item["retry"] | {"when": self.value(item["retry"]["when"])}
        for key, parts in (("concurrency", ["group"]), ("cache", ["key"]), ("compensate", ["config"])):
            if key in item:
                made[key] = item[key] | {part: self.value(item[key][part]) for part in parts}
        if "secrets" in item:
            made["secrets"] = [
                text | {"parts": [self.value(part) for part in text["parts"]]} for text in item["secrets"]
            ]
        if "tasks" in item:
            made["tasks"] = [self.task(inner) for inner in item["tasks"]]
        if item["type"] == "map":
            made["reads"] = self._reads(made)
        return made

    def _reads(self, item: dict[str, Any]) -> list[str]:
        inside = {inner["id"] for inner in _all(item["tasks"])}
        own = {"state", "iteration", "result", "attempt", "error", "task", *_own_names(item)}
        for inner in _all(item["tasks"]):
            own |= set(_own_names(inner)) if inner["type"] == "map" else set()
        refs: set[str] = set()
        for index in _expressions(item["tasks"]) | _expressions(item.get("results")):
            refs |= set(self.exprs[index]["refs"])
        return sorted(
            ref
            for ref in refs
            if (ref.split(".")[1] not in inside if ref.startswith("tasks.") else ref.split(".")[0] not in own)
        )

    def _add(self, src: str, place: object) -> int:
        key = f"{src}\n{self._known}"
        if key not in _ENTRIES:
            _ENTRIES[key] = compile_expression(src, self._environment).entry()
        self.exprs.append(_ENTRIES[key])
        return len(self.exprs) - 1


def _expressions(value: Any) -> set[int]:
    if isinstance(value, list):
        return set().union(*map(_expressions, value))
    if not isinstance(value, dict):
        return set()
    if "$expr" in value:
        return {value["$expr"]}
    if "$text" in value:
        return {part for part in value["$text"] if isinstance(part, int)}
    return set().union(*map(_expressions, value.values()))


def start(execution_id: str = "run-1", **inputs: Any) -> RunStart:
    """The start of a run of `under-test`."""
    pin = Pin("under-test", "main", "c" * 40, "d" * 40, "1" * 64, "2" * 64, "3" * 64)
    return RunStart(execution_id, pin, inputs, "alice", "2030-01-01T00:00:00Z")
