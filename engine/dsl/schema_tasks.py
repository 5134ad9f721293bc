"""The types of tasks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag
from typing_extensions import TypeAliasType

from engine.dsl import words
from engine.dsl.schema_base import (
    Duration,
    DurationOrExpression,
    Expression,
    Id,
    InFlight,
    ListExpression,
    Name,
    NameOrExpression,
    Queue,
    Retry,
    Strict,
    TaskConcurrency,
)


class TaskHead(Strict):
    """What all tasks have."""

    id: Id
    """Known by this everywhere: in `depends_on`, in expressions, in the history. Unique in its list and in those around
    it; `tasks`, `on_failure` and `finally` of the workflow count as one."""

    name: Annotated[str, Field(max_length=200)] | None = None
    """A label for people."""

    description: Annotated[str, Field(max_length=10_000)] | None = None
    """What the task is for."""

    depends_on: list[str] = Field(default_factory=list)
    """Ids of tasks of the same list that must be done before this one is looked at."""

    run_on: Literal["success", "any_success", "failure", "always"] = "success"
    """Which outcome of `depends_on` lets the task run: `success` (all completed, or skipped by their own `when`),
    `any_success` (at least one completed), `failure` (one failed, or was skipped because an ancestor failed), `always`."""

    when: bool | Expression | None = None
    """A condition, judged after `run_on`. False skips the task, and its successors take it as done."""


class Task(TaskHead):
    """What all tasks have that can complete."""

    continue_on_failure: bool = False
    """A failure of this task does not make the run fail."""

    default_outputs: Any = None
    """What readers of `tasks.<id>.outputs` see if the task did not complete."""


class Cache(Strict):
    """Take the result of an earlier run instead of doing the work again. Only COMPLETED results are kept; a change of the
    task's definition, or of the commit's `functions/` for a `python_function`, makes a new place for them."""

    key: Annotated[str, Field(min_length=1, max_length=4096, examples=["${{ run.commit_sha }}"])]
    """What the result depends on; may hold expressions."""

    max_age: Duration | None = None
    """Older results do not count. Without it they are good for ever."""


class Compensate(Strict):
    """How to undo the task, if the run fails, times out or is cancelled after it completed. Undoing goes in reverse order
    of completion, one task at a time, before `on_failure`. May read the task's own outcome and all tasks of the workflow."""

    activity_type: str
    """Which activity type undoes it."""

    config: dict[str, Any] = Field(default_factory=dict)
    """What the activity type needs; values may hold expressions and secrets."""

    on: Literal["completed", "started"] = "completed"
    """Undo the task if it `completed`, or as soon as it `started`, whatever became of it."""

    retry: Retry | None = None
    """How failed attempts are repeated; without it, as `defaults.retry` says."""

    timeout: Duration | None = None
    """Limit of one attempt."""

    total_timeout: Duration | None = None
    """Limit of all attempts and the waits between them together."""

    execution: Literal["auto", "local", "worker"] = "auto"
    """Where it runs, as on the task."""

    task_queue: Queue = ""
    """Send it to workers that listen on this queue."""


class ActivityTask(Task):
    """Work that an activity type does."""

    type: Literal["activity"] = "activity"
    """The kind of task; `activity` if nothing is said."""

    activity_type: str
    """Which activity type does the work: `http_request`, `python_function`, `human_approval`, or one of your own."""

    config: dict[str, Any] = Field(default_factory=dict)
    """What the activity type needs; its own schema says what may stand here. Values may hold expressions, and
    `${{ secrets.NAME }}` but on a `human_approval`."""

    success_when: bool | Expression | None = None
    """Judged on `result` after each attempt; if false, the attempt fails with `NOT_SUCCESSFUL` and may be retried."""

    retry: Retry | None = None
    """How failed attempts are repeated. Without it and without `defaults.retry` there is one attempt."""

    timeout: Duration | None = None
    """Limit of one attempt; 5 minutes if nothing is said."""

    total_timeout: Duration | None = None
    """Limit of all attempts and the waits between them together."""

    execution: Literal["auto", "local", "worker"] = "auto"
    """Where it runs: `local` inside of the workflow's own step (fast, for short work), `worker` as an ordinary
    activity, `auto` lets the engine choose."""

    task_queue: Queue = ""
    """Send the task to workers that listen on this queue."""

    outputs: Any = None
    """What readers of `tasks.<id>.outputs` see; `result` is the activity's result, and also what they see without this."""

    cache: Cache | None = None
    """Take the result of an earlier run."""

    concurrency: TaskConcurrency | None = None
    """A group of tasks of which only so many run at once."""

    compensate: Compensate | None = None
    """How to undo it."""


class WaitTask(Task):
    """A pause: give either `duration` or `until`."""

    type: Literal["wait"]
    """The kind of task."""

    duration: DurationOrExpression | None = None
    """How long to wait."""

    until: Annotated[str, Field(min_length=1, examples=["2030-01-01T06:00:00Z"])] | None = None
    """The moment to wait for, in RFC 3339."""


class SetTask(Task):
    """Values worked out once, for later tasks to read as `tasks.<id>.outputs`."""

    type: Literal["set"]
    """The kind of task."""

    values: dict[str, Any]
    """Names and values; values may hold expressions."""


class MapTask(Task):
    """The same tasks for each item of a list. Its outputs are a list in the order of the items: for each item `results`,
    else the outputs of the only last task, else `{id: outputs}`. From outside only the map is seen. Large lists are cut
    into parts that run as workflows of their own; nothing has to be done for that."""

    type: Literal["map"]
    """The kind of task."""

    items: list[Any] | ListExpression
    """The list: written out, or an expression that gives one."""

    as_: Id = Field(default="item", alias="as")
    """The name of the item in expressions inside; its index, from 0, is `<as>_index`. A map in a map must name its own."""

    tasks: list[AnyTask] = Field(min_length=1, max_length=words.MAX_TASKS)
    """What is done for each item, with dependencies of their own."""

    max_concurrency: InFlight | None = None
    """Items at once."""

    tolerated_failures: (
        Annotated[int, Field(ge=0)]
        | Annotated[str, Field(pattern=words.PERCENT_PATTERN, examples=["10%"])]
        | None
    ) = None
    """How many items may fail: a count or a percentage (rounded down). A failed item is null in the outputs and listed
    in `tasks.<id>.failures`, as `{index, error}`."""

    results: Any = None
    """What each item gives; may read the tasks inside and the item."""

    timeout: Duration | None = None
    """Limit of the whole map."""


class LoopTask(Task):
    """The same tasks again and again until a condition holds: polling, pagination, do-while. Its outputs, unless it says
    its own, are `{state, iterations, last}`: the last state, how many times it ran, and what the last time gave."""

    type: Literal["loop"]
    """The kind of task."""

    state: dict[str, Any] = Field(default_factory=dict)
    """Values that go from one iteration to the next, read as `state.<name>`; here what they begin with."""

    tasks: list[AnyTask] = Field(min_length=1, max_length=words.MAX_TASKS)
    """What is done in each iteration; `iteration` counts from 0."""

    next: dict[str, Any] = Field(default_factory=dict)
    """New values of the state after an iteration; what is not named stays. May read `state` and the tasks inside."""

    until: bool | Expression
    """Judged after each iteration, with the new state; true ends the loop."""

    interval: DurationOrExpression | None = None
    """Wait between two iterations."""

    max_iterations: int = Field(ge=1, le=words.MAX_ITERATIONS)
    """If `until` does not hold after so many iterations, the loop fails with `LOOP_EXHAUSTED`."""

    timeout: Duration | None = None
    """Limit of the whole loop."""

    outputs: Any = None
    """What readers of `tasks.<id>.outputs` see; may read `state`, `iteration` and the tasks of the last iteration."""


class GroupTask(Task):
    """Tasks that belong together: a whole branch under one `when`, or a part with limits of its own. Its outputs, unless
    it says its own, are those of the only last task inside, else `{id: outputs}`."""

    type: Literal["group"]
    """The kind of task."""

    tasks: list[AnyTask] = Field(min_length=1, max_length=words.MAX_TASKS)
    """The tasks inside, with dependencies of their own."""

    outputs: Any = None
    """What readers of `tasks.<id>.outputs` see; may read the tasks inside."""

    timeout: Duration | None = None
    """Limit of the whole group."""

    max_concurrency: InFlight | None = None
    """Tasks of the group in flight at once."""

    concurrency: TaskConcurrency | None = None
    """A group of tasks, over all runs, of which only so many run at once."""


class WorkflowTask(Task):
    """A run of another workflow, as a child. Which version that is, is settled when the first run of the family starts,
    for the whole family: no merge in between changes it."""

    type: Literal["workflow"]
    """The kind of task."""

    workflow: NameOrExpression
    """Name of the workflow, or an expression that chooses one of `one_of`."""

    one_of: list[Name] = Field(default_factory=list, max_length=words.MAX_CALLS)
    """The workflows that an expression in `workflow` may choose."""

    ref: Annotated[str, Field(pattern=words.REF_PATTERN, examples=["same", "latest"])] = "same"
    """Which version: the one of the same commit (`same`), the one that is live when the root run starts (`latest`), or
    that of a commit, as a SHA."""

    inputs: dict[str, Any] = Field(default_factory=dict)
    """The child's inputs; values may hold expressions."""

    timeout: Duration | None = None
    """Limit of all attempts together, the child's clean-up not counted."""

    retry: Retry | None = None
    """How a failed child is repeated, each time as a new run. `defaults` do not reach it."""

    outputs: Any = None
    """What readers of `tasks.<id>.outputs` see; `result` is the child's outputs, and also what they see without this."""

    compensate: Compensate | None = None
    """How to undo a child that completed. One that failed has undone itself."""


class SignalTask(Task):
    """Waits for a signal from outside: `pinflow executions signal`, the API, or one request to `tasks.<id>.callback_url`,
    which other tasks may read and hand out before it starts. A signal that came early is kept."""

    type: Literal["signal"]
    """The kind of task."""

    signal: Annotated[str, Field(pattern=words.SIGNAL_PATTERN, max_length=200, examples=["freeze-lifted"])]
    """Name of the signal."""

    correlation: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Take only signals that are sent with this; may hold expressions."""

    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    """A JSON Schema of the payload; a signal that does not fit is refused to its sender."""

    timeout: Duration | None = None
    """How long to wait; then the task fails with `TIMEOUT`."""

    outputs: Any = None
    """What readers of `tasks.<id>.outputs` see; `result` is the payload, and also what they see without this."""


class EndTask(TaskHead):
    """Ends the run here: what still runs is cancelled, then `finally` runs."""

    type: Literal["end"]
    """The kind of task."""

    status: Literal["COMPLETED", "FAILED"] = "COMPLETED"
    """How the run ends. FAILED has the error type `ENDED`."""

    outputs: Any = None
    """The outputs of the run, instead of its own; may hold expressions."""

    message: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    """Why; may hold expressions."""


def _kind(value: Any) -> str:
    kind = value.get("type", "activity") if isinstance(value, dict) else getattr(value, "type", "activity")
    return kind if isinstance(kind, str) else "activity"


Kinds: TypeAlias = (
    Annotated[ActivityTask, Tag("activity")]
    | Annotated[WaitTask, Tag("wait")]
    | Annotated[SetTask, Tag("set")]
    | Annotated[MapTask, Tag("map")]
    | Annotated[LoopTask, Tag("loop")]
    | Annotated[GroupTask, Tag("group")]
    | Annotated[WorkflowTask, Tag("workflow")]
    | Annotated[SignalTask, Tag("signal")]
    | Annotated[EndTask, Tag("end")]
)
AnyTask = TypeAliasType("AnyTask", Annotated[Kinds, Discriminator(_kind)])
"""A task of any kind. Named, because it stands in itself."""

for _model in (MapTask, LoopTask, GroupTask):
    _model.model_rebuild()
