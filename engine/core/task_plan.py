"""One task of a compiled definition, ready to run: values to render, and what each kind of task says beyond that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from engine.core.contracts import Json, RetryPolicy
from engine.dsl.templates import Renderer, expressions_in

if TYPE_CHECKING:
    from engine.core.plan import Block

Kind = Literal["activity", "approval", "wait", "set", "map", "loop", "group", "workflow", "signal", "end"]
Lookup = Callable[[str], Json]

COMPOSITES: Final = frozenset({"map", "loop", "group"})
UNDO: Final = "~undo"
"""What the address of a task's compensation ends with."""


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

    @property
    def refs(self) -> list[str]:
        """The names that rendering it reads."""
        return self._renderer.refs(self._raw)


@dataclass(frozen=True, slots=True)
class JudgedExpression:
    """An expression that is judged beside the attempt, not by the brain: `entry` as in the compiled form."""

    entry: Json
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SecretText:
    """A text of the config with secrets in it: where it belongs, and its pieces (values, and names of secrets)."""

    path: list[Json]
    parts: tuple[Value | str, ...]


@dataclass(frozen=True, slots=True)
class CachePlan:
    """Under what an activity's result is kept, and for how long (seconds; None is for ever)."""

    key: Value
    max_age: float | None


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """The concurrency group that a run or a task belongs to."""

    group: Value
    limit: int
    on_conflict: Literal["queue", "skip", "cancel_running"]


@dataclass(frozen=True, slots=True)
class MapPlan:
    """`tolerated` gives the failures that a map of so many items may have; `whole` maps are never cut."""

    items: Value
    name: str
    results: Value | None
    max_concurrency: int | None
    tolerated_count: int
    tolerated_percent: float
    reads: tuple[str, ...]
    weight: int
    whole: bool

    def tolerated(self, items: int) -> int:
        """How many of so many items may fail."""
        return max(self.tolerated_count, int(items * self.tolerated_percent // 100))


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """`interval` is what passes between two iterations."""

    state: Value
    next: Value
    until: Value | None
    interval: Value | None
    max_iterations: int


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """Which workflow a task starts: `workflow` is its name, `ref` as written."""

    workflow: Value
    ref: str
    inputs: Value


@dataclass(frozen=True, slots=True)
class SignalPlan:
    """What a task waits for to be sent: the name, and the correlation that the sender must give too."""

    name: str
    correlation: Value | None


@dataclass(frozen=True, slots=True)
class EndPlan:
    """How a run ends where it meets the task."""

    status: Literal["COMPLETED", "FAILED"]
    outputs: Value | None
    message: Value | None


Special = MapPlan | LoopPlan | ChildPlan | SignalPlan | EndPlan | None


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task. `position` counts within its block, whose tasks `predecessors` and `successors` are positions of.

    `path` is the static path: the address without indices. `special` is what only its kind has; `body` the block of a
    composite; `undo` the activity of its compensation, `undo_started` whether that wants no more than a start.
    """

    position: int
    phase: int
    id: str
    path: str
    name: str
    kind: Kind
    activity_type: str
    predecessors: tuple[int, ...]
    successors: tuple[int, ...]
    run_on: str
    continue_on_failure: bool
    when: Value | None
    config: Value
    secrets: tuple[SecretText, ...]
    cache: CachePlan | None
    slot: SlotPlan | None
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
    max_concurrency: int | None
    special: Special
    body: Block | None
    undo: TaskPlan | None
    undo_started: bool
    source: Json
    """The task as compiled: what its digest is taken of."""


def _no_lookup(ref: str) -> Json:
    raise AssertionError(f"a value without expressions asked for {ref}")
