"""The immutable index of a compiled definition: positions instead of ids, successor lists, values ready to render.

Built once per definition and process; a run keeps nothing of it in its state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from engine.core.contracts import Json, RetryPolicy
from engine.dsl.templates import Renderer, expressions_in

FORMAT: Final = 1
HUMAN_APPROVAL: Final = "human_approval"

TASKS: Final = 0
ON_FAILURE: Final = 1
FINALLY: Final = 2
PHASES: Final = ("tasks", "on_failure", "finally")

Kind = Literal["activity", "approval", "wait", "set"]
Lookup = Callable[[str], Json]


class Value:
    """A value of the definition that may hold expressions. One without any is rendered once, for all runs."""

    __slots__ = ("_constant", "_raw", "_renderer", "_static")

    def __init__(self, raw: Json, renderer: Renderer) -> None:
        self._raw = raw
        self._renderer = renderer
        self._static = not expressions_in(raw)
        self._constant: Json = renderer.render(raw, _no_lookup) if self._static else None

    def render(self, lookup: Lookup) -> Json:
        """The value with its expressions replaced. Raises ExpressionError. Never change what it returns."""
        return self._constant if self._static else self._renderer.render(self._raw, lookup)


@dataclass(frozen=True, slots=True)
class JudgedExpression:
    """An expression that is judged beside the attempt, not by the brain: `entry` as in the compiled form."""

    entry: Json
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task. `position` counts over the whole definition: tasks, then on_failure, then finally."""

    position: int
    phase: int
    id: str
    name: str
    kind: Kind
    activity_type: str
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]
    run_on: str
    continue_on_failure: bool
    when: Value | None
    config: Value
    retry: RetryPolicy
    retry_when: JudgedExpression | None
    success_when: JudgedExpression | None
    timeout: float | None
    total_timeout: float | None
    execution: Literal["auto", "local", "worker"]
    task_queue: str
    outputs: Value | None
    default_outputs: Json
    values: Value
    duration: Value | None
    until: Value | None
    continue_on_reject: bool


class Plan:
    """A compiled definition, indexed. Raises ValueError for a format that this engine does not know."""

    def __init__(self, compiled: Mapping[str, Any]) -> None:
        if compiled["format"] != FORMAT:
            raise ValueError(
                f"compiled form {compiled['format']} is newer than this engine (it knows {FORMAT})"
            )
        self.name: str = compiled["name"]
        self.exprs: list[Json] = compiled["exprs"]
        self.renderer = Renderer(self.exprs)
        self.title = Value(compiled["title"], self.renderer)
        self.env: dict[str, Json] = compiled["env"] or {}
        self.input_defaults = _input_defaults(compiled["inputs"])
        self.timeout: float | None = compiled["timeout"]
        self.cleanup_timeout: float | None = compiled["cleanup_timeout"]
        self.max_concurrency: int | None = compiled["max_concurrency"]
        self.on_task_failure: str = compiled["on_task_failure"]
        self.outputs = None if compiled["outputs"] is None else Value(compiled["outputs"], self.renderer)
        self.tasks: list[TaskPlan] = []
        self.positions: dict[str, int] = {}
        bounds = [0]
        for phase, key in enumerate(PHASES):
            self.tasks.extend(self._phase(phase, compiled[key], bounds[-1]))
            bounds.append(len(self.tasks))
        self._bounds = tuple(bounds)

    def phase(self, phase: int) -> range:
        """The positions of a phase's tasks."""
        return range(self._bounds[phase], self._bounds[phase + 1])

    def _phase(self, phase: int, tasks: list[dict[str, Any]], base: int) -> Iterator[TaskPlan]:
        for offset, task in enumerate(tasks):
            self.positions[task["id"]] = base + offset
        successors: list[list[int]] = [[] for _ in tasks]
        predecessors = [
            tuple(self.positions[name] for name in dict.fromkeys(task["depends_on"])) for task in tasks
        ]
        for offset, before in enumerate(predecessors):
            for position in before:
                successors[position - base].append(base + offset)
        for offset, task in enumerate(tasks):
            yield self._task(phase, base + offset, task, predecessors[offset], tuple(successors[offset]))

    def _task(
        self, phase: int, position: int, task: dict[str, Any], before: tuple[int, ...], after: tuple[int, ...]
    ) -> TaskPlan:
        retry = task.get("retry") or {}
        config = task.get("config")
        return TaskPlan(
            position=position,
            phase=phase,
            id=task["id"],
            name=task.get("name") or task["id"],
            kind=_kind(task),
            activity_type=task.get("activity_type") or "",
            predecessors=before,
            successors=after,
            run_on=task.get("run_on") or "success",
            continue_on_failure=bool(task.get("continue_on_failure")),
            when=self._optional(task, "when"),
            config=Value(config, self.renderer),
            retry=_retry(retry),
            retry_when=self._judged(retry.get("when")),
            success_when=self._judged(task.get("success_when")),
            timeout=task.get("timeout"),
            total_timeout=task.get("total_timeout"),
            execution=task.get("execution") or "auto",
            task_queue=task.get("task_queue") or "",
            outputs=self._optional(task, "outputs"),
            default_outputs={} if task.get("default_outputs") is None else task["default_outputs"],
            values=Value(task.get("values"), self.renderer),
            duration=self._optional(task, "duration"),
            until=self._optional(task, "until"),
            continue_on_reject=isinstance(config, dict) and config.get("on_reject") == "continue",
        )

    def _optional(self, task: dict[str, Any], key: str) -> Value | None:
        raw = task.get(key)
        return None if raw is None else Value(raw, self.renderer)

    def _judged(self, raw: Json) -> JudgedExpression | None:
        if raw is None:
            return None
        if isinstance(raw, dict) and "$expr" in raw:
            entry = self.exprs[raw["$expr"]]
            return JudgedExpression(entry, tuple(entry["refs"]))
        return JudgedExpression(raw, ())


def _kind(task: dict[str, Any]) -> Kind:
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


def _input_defaults(schema: Json) -> dict[str, Json]:
    properties = (schema or {}).get("properties") or {}
    return {
        name: prop["default"]
        for name, prop in properties.items()
        if isinstance(prop, dict) and "default" in prop
    }


def _no_lookup(ref: str) -> Json:
    raise AssertionError(f"a value without expressions asked for {ref}")
