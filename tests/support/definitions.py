"""Compiled definitions, written by hand: what the brain's tests run, without the language in front of it."""

from __future__ import annotations

from typing import Any

from engine.core.contracts import Pin, RunStart
from engine.dsl.environment import Environment
from engine.dsl.expressions import compile_expression
from engine.dsl.templates import compile_value

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
    assert not fields.keys() - made.keys(), f"unknown fields {fields.keys() - made.keys()}"
    return made | fields


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
        "format": 1,
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
    assert not fields.keys() - made.keys(), f"unknown fields {fields.keys() - made.keys()}"
    return _compiled(made | fields)


def _compiled(made: dict[str, Any]) -> dict[str, Any]:
    ids = [item["id"] for phase in ("tasks", "on_failure", "finally") for item in made[phase]]
    names: dict[str, Any] = {
        f"tasks.{name}.{field}": "dyn" for name in ids for field in ("outputs", "status", "error", "attempts")
    }
    names |= {f"run.{field}": "dyn" for field in RUN_FIELDS}
    names |= dict.fromkeys(("task.id", "task.attempt", "result", "attempt", "error"), "dyn")
    inputs = made["inputs"] or {"type": "object", "properties": {}}
    env = {"type": "object", "properties": {name: {} for name in made["env"]}}
    environment = Environment(names, {"inputs": inputs, "env": env})
    exprs: list[dict[str, Any]] = []

    def add(src: str, place: object) -> int:
        exprs.append(compile_expression(src, environment).entry())
        return len(exprs) - 1

    for phase in ("tasks", "on_failure", "finally"):
        made[phase] = [_compiled_task(item, add) for item in made[phase]]
    for key in ("title", "labels", "outputs"):
        made[key] = compile_value(made[key], add)
    return {**made, "exprs": exprs}


def _compiled_task(item: dict[str, Any], add: Any) -> dict[str, Any]:
    keys = ("when", "config", "success_when", "outputs", "values", "duration", "until")
    made = item | {key: compile_value(item[key], add) for key in keys}
    if item["retry"] is not None:
        made["retry"] = item["retry"] | {"when": compile_value(item["retry"]["when"], add)}
    return made


def start(execution_id: str = "run-1", **inputs: Any) -> RunStart:
    """The start of a run of `under-test`."""
    pin = Pin("under-test", "main", "c" * 40, "d" * 40, "1" * 64, "2" * 64, "3" * 64)
    return RunStart(execution_id, pin, inputs, "alice", "2030-01-01T00:00:00Z")
