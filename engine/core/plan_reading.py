"""Reads the tasks of a compiled definition: dictionaries become `TaskPlan`s, bodies become blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.core.block import Block
from engine.core.contracts import Json, RetryPolicy
from engine.core.task_plan import (
    COMPOSITES,
    UNDO,
    CachePlan,
    ChildPlan,
    EndPlan,
    JudgedExpression,
    Kind,
    LoopPlan,
    MapPlan,
    SecretText,
    SignalPlan,
    SlotPlan,
    Special,
    TaskPlan,
    Value,
)
from engine.dsl.templates import Renderer, expressions_in

HUMAN_APPROVAL: Final = "human_approval"
_ATTEMPT: Final = frozenset({"result", "attempt", "error", "task"})
_NO_TASK: Final[dict[str, Any]] = {"type": "activity", "name": "", "depends_on": ()}


class Reader:
    """Reads one definition; `signals` gathers the names that its tasks wait for."""

    def __init__(self, exprs: list[Json], renderer: Renderer) -> None:
        self._exprs = exprs
        self._renderer = renderer
        self.signals: set[str] = set()

    def tasks(self, tasks: Sequence[dict[str, Any]], phase: int, path: str) -> list[TaskPlan]:
        """The tasks of one block, joined by their positions."""
        positions = {task["id"]: position for position, task in enumerate(tasks)}
        before = [tuple(positions[name] for name in dict.fromkeys(task["depends_on"])) for task in tasks]
        after: list[list[int]] = [[] for _ in tasks]
        for position, awaited in enumerate(before):
            for other in awaited:
                after[other].append(position)
        return [
            self._task(task, phase, path, position, before[position], tuple(after[position]))
            for position, task in enumerate(tasks)
        ]

    def slot(self, raw: Mapping[str, Any] | None) -> SlotPlan | None:
        """The concurrency group of a run or a task."""
        if raw is None:
            return None
        group = Value(raw["group"], self._renderer)
        return SlotPlan(group, int(raw.get("limit") or 1), raw.get("on_conflict") or "queue")

    def _task(
        self,
        task: Mapping[str, Any],
        phase: int,
        path: str,
        position: int,
        before: tuple[int, ...],
        after: tuple[int, ...],
    ) -> TaskPlan:
        retry = task.get("retry") or {}
        config = task.get("config")
        kind = _kind(task)
        own_path = f"{path}.{task['id']}" if path else task["id"]
        undo = task.get("compensate")
        return TaskPlan(
            position=position,
            phase=phase,
            id=task["id"],
            path=own_path,
            name=task.get("name") or task["id"],
            kind=kind,
            activity_type=task.get("activity_type") or "",
            predecessors=before,
            successors=after,
            run_on=task.get("run_on") or "success",
            continue_on_failure=bool(task.get("continue_on_failure")),
            when=self._optional(task, "when"),
            config=Value(config, self._renderer),
            secrets=tuple(self._secret(text) for text in task.get("secrets") or ()),
            cache=self._cache(task.get("cache")),
            slot=self.slot(task.get("concurrency")),
            retry=_retry(retry),
            retry_when=self._judged(retry.get("when")),
            success_when=self._judged(task.get("success_when")),
            timeout=task.get("timeout"),
            total_timeout=task.get("total_timeout"),
            execution=task.get("execution") or "auto",
            task_queue=task.get("task_queue") or "",
            outputs=self._optional(task, "outputs"),
            default_outputs={} if task.get("default_outputs") is None else task["default_outputs"],
            values=Value(task.get("values"), self._renderer),
            duration=self._optional(task, "duration"),
            until=self._optional(task, "until") if kind == "wait" else None,
            continue_on_reject=isinstance(config, dict) and config.get("on_reject") == "continue",
            max_concurrency=task.get("max_concurrency"),
            special=self._special(kind, task),
            body=self._body(task, phase, own_path) if kind in COMPOSITES else None,
            undo=None if undo is None else self._undo(task, undo, phase, path, position),
            undo_started=undo is not None and undo.get("on") == "started",
            source=task,
        )

    def _body(self, task: Mapping[str, Any], phase: int, path: str) -> Block:
        return Block(path, phase, 0, self.tasks(task["tasks"], phase, path))

    def _undo(
        self, task: Mapping[str, Any], undo: Mapping[str, Any], phase: int, path: str, position: int
    ) -> TaskPlan:
        named = _NO_TASK | dict(undo) | {"id": task["id"] + UNDO, "type": "activity"}
        named["name"] = f"undo {task.get('name') or task['id']}"
        return self._task(named, phase, path, position, (), ())

    def _special(self, kind: Kind, task: Mapping[str, Any]) -> Special:
        match kind:
            case "map":
                tolerated = task.get("tolerated_failures") or {}
                return MapPlan(
                    items=Value(task["items"], self._renderer),
                    name=task.get("as") or "item",
                    results=self._optional(task, "results"),
                    max_concurrency=task.get("max_concurrency"),
                    tolerated_count=int(tolerated.get("count") or 0),
                    tolerated_percent=float(tolerated.get("percent") or 0),
                    reads=tuple(task.get("reads") or ()),
                    weight=max(int(task.get("weight") or 1), 1),
                    whole=bool(task.get("whole")),
                )
            case "loop":
                return LoopPlan(
                    state=Value(task.get("state") or {}, self._renderer),
                    next=Value(task.get("next") or {}, self._renderer),
                    until=self._optional(task, "until"),
                    interval=self._optional(task, "interval"),
                    max_iterations=int(task["max_iterations"]),
                )
            case "workflow":
                workflow = Value(task["workflow"], self._renderer)
                inputs = Value(task.get("inputs") or {}, self._renderer)
                return ChildPlan(workflow, task.get("ref") or "same", inputs)
            case "signal":
                self.signals.add(task["signal"])
                return SignalPlan(task["signal"], self._optional(task, "correlation"))
            case "end":
                outputs = self._optional(task, "outputs")
                return EndPlan(task.get("status") or "COMPLETED", outputs, self._optional(task, "message"))
            case _:
                return None

    def _secret(self, text: Mapping[str, Any]) -> SecretText:
        parts = (
            part["$secret"] if isinstance(part, dict) and "$secret" in part else Value(part, self._renderer)
            for part in text["parts"]
        )
        return SecretText(list(text["path"]), tuple(parts))

    def _cache(self, raw: Mapping[str, Any] | None) -> CachePlan | None:
        return None if raw is None else CachePlan(Value(raw["key"], self._renderer), raw.get("max_age"))

    def _optional(self, task: Mapping[str, Any], key: str) -> Value | None:
        raw = task.get(key)
        return None if raw is None else Value(raw, self._renderer)

    def _judged(self, raw: Json) -> JudgedExpression | None:
        if raw is None:
            return None
        if isinstance(raw, dict) and "$expr" in raw:
            entry = self._exprs[raw["$expr"]]
            return JudgedExpression(entry, tuple(entry["refs"]))
        return JudgedExpression(raw, ())


def outside_reads(task: Mapping[str, Any], exprs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that a task, and all inside of it, reads of what stands outside; sorted."""
    return sorted(_reads(task, exprs))


def _reads(task: Mapping[str, Any], exprs: Sequence[Mapping[str, Any]]) -> set[str]:
    inner = task.get("tasks") or ()
    plain = {key: value for key, value in task.items() if key != "tasks"}
    refs = {ref for index in expressions_in(plain) for ref in exprs[index]["refs"]}
    for each in inner:
        refs |= _reads(each, exprs)
    own = set(_ATTEMPT)
    if task["type"] == "map":
        name = task.get("as") or "item"
        own |= {name, f"{name}_index"}
    elif task["type"] == "loop":
        own |= {"state", "iteration"}
    ids = {each["id"] for each in inner}
    return {
        ref
        for ref in refs
        if (ref.split(".")[1] not in ids if ref.startswith("tasks.") else ref.split(".")[0] not in own)
    }


def _kind(task: Mapping[str, Any]) -> Kind:
    kind: Kind = task["type"]
    if kind == "activity" and task["activity_type"] == HUMAN_APPROVAL:
        return "approval"
    return kind


def _retry(retry: Mapping[str, Any]) -> RetryPolicy:
    if not retry:
        return RetryPolicy()
    initial = float(retry.get("initial_interval") or 1.0)
    return RetryPolicy(
        max_attempts=int(retry["max_attempts"]),
        initial_interval=initial,
        backoff_coefficient=float(retry.get("backoff_coefficient") or 2.0),
        # Temporal refuses a policy whose ceiling is below its first step.
        max_interval=max(float(retry.get("max_interval") or 60.0), initial),
        non_retryable_errors=tuple(retry.get("non_retryable_errors") or ()),
    )
