"""What the rooms say to each other: the pin, the start of a run, events, commands, calls.

Plain frozen data that can be written as JSON; no behaviour beyond that.  Everything that enters a
Temporal history is declared here or in the state of `state_machine.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list or dict with text keys."""

TaskStatus = Literal["PENDING", "RUNNING", "WAITING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"]
RunStatus = Literal[
    "PENDING", "QUEUED", "RUNNING", "WAITING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"
]
SkipReason = Literal["condition", "upstream", "ended", "untargeted"]


@dataclass(frozen=True, slots=True)
class Pin:
    """What a run may execute, and nothing else (promise P3).

    `commit_sha` is the commit of the version; `revision_sha` the tip that was live when the pin was taken.
    Digests are lower-case hex sha256: `digest` of the definition's bytes as in git, `compiled_digest` of the
    compiled form that the worker loads, `bundle_digest` of the `functions/` bundle ("" if none is used).
    """

    workflow: str
    source: str
    commit_sha: str
    revision_sha: str
    digest: str
    compiled_digest: str
    bundle_digest: str = ""
    dsl: str = "1"
    calls: dict[str, str] = field(default_factory=dict)
    """What this definition may start: `name@ref` as written in it (`smoke-tests@same`) → a key of `closure`."""
    closure: dict[str, Json] = field(default_factory=dict)
    """Every version that this run or a descendant may start, by `source/name@commit_sha`:
    `{workflow, source, commit_sha, revision_sha, digest, compiled_digest, bundle_digest, dsl, size, calls}`."""


@dataclass(frozen=True, slots=True)
class Parent:
    """Whose child a run is: the run, the address of its task, the root of the family, and how deep it stands (from 1)."""

    execution_id: str
    task: str
    root_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class Carried:
    """What an earlier run had of one task; taken over if definition and resolved inputs are still the same.

    `task_digest` is `task_digest()` of its definition, `call_digest` the sha256 of its resolved call (see
    `core/carrying.py`).
    """

    task_digest: str
    call_digest: str
    outputs: Json
    execution_id: str


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a large map, run by a workflow of its own on behalf of the same run.

    `task` is the map's address; its items from `offset` on are `items`. `bindings` are the values of all that the
    body reads from outside of it, by name as in the expressions' `refs`. `limit` is how many activities may be in
    flight. `undo` is what `SliceEnded.undo` said, if the slice is to be undone instead of run. `tolerated` is how many
    more failures the map could bear when the slice began (None: the slice judges nothing).
    """

    task: str
    offset: int
    items: list[Json]
    bindings: dict[str, Json]
    limit: int
    undo: Json = None
    tolerated: int | None = None


@dataclass(frozen=True, slots=True)
class RunStart:
    """The second argument of every workflow (the first is the compiled definition, by reference).

    Times are RFC 3339 in UTC. `started_by` is the subject of the token that asked.  All that follows it is left out
    of the JSON while it is empty.  `trigger` is what expressions read as `trigger`; `targets` ids of top-level tasks
    (with their ancestors, nothing else runs); `carried` by address; `callback` is `{base, key}`: where callbacks
    reach us and the run's own key for their tokens; `groups` the concurrency groups that ancestors hold.
    """

    execution_id: str
    pin: Pin
    inputs: dict[str, Json]
    started_by: str
    started_at: str
    trigger: Json = None
    targets: tuple[str, ...] = ()
    parent: Parent | None = None
    carried: dict[str, Carried] = field(default_factory=dict)
    rerun_of: str = ""
    callback: Json = None
    groups: tuple[str, ...] = ()
    slice: Slice | None = None


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why an attempt, a task or a run failed. `type` is what `non_retryable_errors` and readers match."""

    type: str
    message: str
    task: str = ""
    details: Json = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """An expression to be evaluated beside the attempt: an entry of the expression table and what it may read.

    The names that only the attempt knows (`result`, `attempt`, `error`) are added where it is judged.
    """

    expr: Json
    bindings: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Temporal's retry policy in seconds; `when` is judged after each failed attempt."""

    max_attempts: int = 1
    initial_interval: float = 1.0
    backoff_coefficient: float = 2.0
    max_interval: float = 60.0
    non_retryable_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ActivityCall:
    """The one argument of every task's activity; what the worker knows about the attempt besides Temporal's info.

    `idempotency_key` is the same over all attempts of a task.
    """

    execution_id: str
    workflow: str
    commit_sha: str
    source: str
    bundle_digest: str
    task: str
    activity_type: str
    config: Json
    idempotency_key: str
    success_when: Judgement | None = None
    retry_when: Judgement | None = None
    secrets: list[Json] = field(default_factory=list)
    """`{path, parts}`: where in `config` a text with secrets belongs, and its pieces: texts and `{"secret": NAME}`.

    Beside the config and never in it, so that no data can be taken for a secret. The door puts them in at each attempt.
    """
    cache: Json = None
    """`{key, max_age}`: the door looks here first, and keeps a success under it. `key` is complete; `max_age` in
    seconds or None."""


@dataclass(frozen=True, slots=True)
class ActivityOutcome:
    """What a task's activity returns: its result, the attempt that produced it, and the run it was cached from."""

    result: Json
    attempt: int = 1
    cached_from: str = ""


# --- events: what happened -------------------------------------------------------------------------------
# `at` is the driver's clock in seconds since the epoch (workflow.time() on Temporal, virtual time offline).


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins."""

    start: RunStart
    at: float


@dataclass(frozen=True, slots=True)
class ActivityCompleted:
    """The activity of `task` returned."""

    task: str
    outcome: ActivityOutcome
    at: float


@dataclass(frozen=True, slots=True)
class ActivityFailed:
    """The activity of `task` failed for good: its retries are used up or refused."""

    task: str
    error: TaskError
    attempts: int
    at: float


@dataclass(frozen=True, slots=True)
class ActivityCancelled:
    """The activity of `task` ended because we asked it to."""

    task: str
    at: float


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that a `StartTimer` command asked for has fired."""

    timer: str
    at: float


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """The approval request of `task` is durable and can be seen: its deadline counts from `requested_at`.

    `deadline` is the row's own, in seconds since the epoch; None means that the request waits without end.
    """

    task: str
    approval_id: str
    requested_at: float
    at: float
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class ApprovalResolved:
    """The row of the approval request was resolved. The row is the judge; the brain takes the first word only.

    `outcome` is APPROVED, REJECTED, TIMED_OUT, or PENDING after an escalation (`deadline` is then the new one).
    `decisions` are `{by, decision, comment, form, at}` in the order in which they were recorded.
    """

    task: str
    approval_id: str
    outcome: Literal["APPROVED", "REJECTED", "TIMED_OUT", "CANCELLED", "PENDING"]
    decisions: list[Json]
    at: float
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the run to end. A second one skips the clean-up.

    `id` tells a repeat of the same request (delivered at least once) from a second one; "" is always a new one.
    """

    by: str
    reason: str
    at: float
    id: str = ""


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Somebody wants nothing new to be started until it is resumed. `id` as in `CancelRequested`."""

    by: str
    reason: str
    at: float
    id: str = ""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """Somebody ends a pause."""

    by: str
    at: float
    id: str = ""


MOST_SIGNALS: Final = 5_000
"""Signals that a run takes, and so the most that it may have to keep for tasks to come. Who would send one more is told.

Temporal itself takes no more than 10,000."""


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A signal came, perhaps before anybody waits for it: kept, and given to one task, in order.

    `task` is the address of the task that a callback is for, "" for a signal by name. A repeat of `id` is nothing new.
    """

    id: str
    name: str
    payload: Json
    at: float
    correlation: str = ""
    task: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class SlotGranted:
    """The concurrency group of `task` ("" for the run itself) has room for it now."""

    task: str
    at: float


@dataclass(frozen=True, slots=True)
class SlotRefused:
    """No slot, and none to wait for: `skip` under `on_conflict`, or waiting would be a deadlock."""

    task: str
    error: TaskError
    at: float


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """The child run of `task` is over. `attempt` is the one that `StartChild` named."""

    task: str
    attempt: int
    status: Literal["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
    outputs: Json
    error: TaskError | None
    at: float


@dataclass(frozen=True, slots=True)
class SliceDrained:
    """The run that this slice is a part of wants no further items begun: too many have failed elsewhere."""

    at: float


@dataclass(frozen=True, slots=True)
class SliceEnded:
    """A slice of the map `task` is over.

    `results` in item order, null for a failed one; `failures` are `{index, error}` (index in the whole map);
    `status` is COMPLETED if the slice ran to its end, whatever its items did, CANCELLED if it left out some of them,
    FAILED if it broke itself (`error`). `ended` is `{status, outputs, message}` if a task of type `end` ended the run.
    `undo` is what is needed to undo it, null if nothing is.
    """

    task: str
    offset: int
    status: Literal["COMPLETED", "FAILED", "CANCELLED"]
    results: list[Json]
    failures: list[Json]
    error: TaskError | None
    undo: Json
    at: float
    ended: Json = None


Event: TypeAlias = (
    Started
    | ActivityCompleted
    | ActivityFailed
    | ActivityCancelled
    | TimerFired
    | ApprovalRequested
    | ApprovalResolved
    | CancelRequested
    | PauseRequested
    | ResumeRequested
    | SignalReceived
    | SlotGranted
    | SlotRefused
    | ChildEnded
    | SliceDrained
    | SliceEnded
)


# --- commands: what to do ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartActivity:
    """Run the activity of `task`. Times in seconds; None means no limit of that kind."""

    task: str
    call: ActivityCall
    retry: RetryPolicy
    timeout: float | None
    total_timeout: float | None
    execution: Literal["auto", "local", "worker"] = "auto"
    task_queue: str = ""
    summary: str = ""


@dataclass(frozen=True, slots=True)
class CancelActivity:
    """Ask the activity of `task` to end."""

    task: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Fire `timer` after `seconds`."""

    timer: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget `timer`."""

    timer: str


@dataclass(frozen=True, slots=True)
class RequestApproval:
    """Make the approval request of `task` durable and visible (an activity that writes the row)."""

    task: str
    call: ActivityCall
    summary: str = ""


@dataclass(frozen=True, slots=True)
class CloseApproval:
    """The deadline of `task`'s request has passed, or the run ends: resolve the row by compare-and-set, tell how it stands.

    `why` is `deadline` (apply `on_timeout`) or `cancelled`.
    """

    task: str
    approval_id: str
    why: Literal["deadline", "cancelled"]


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a child run for `task`. `start` holds all that it is (its id, pin, inputs, parent); `size` of its compiled
    form in bytes. `attempt` counts from 1: each attempt is a run of its own."""

    task: str
    attempt: int
    start: RunStart
    size: int
    summary: str = ""


@dataclass(frozen=True, slots=True)
class CancelChild:
    """Ask the child run of `task` to end."""

    task: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StartSlice:
    """Run (or undo) a part of the map `task` in a workflow of its own, with the same definition and pin."""

    task: str
    start: RunStart
    summary: str = ""


@dataclass(frozen=True, slots=True)
class CancelSlice:
    """Ask a slice to end."""

    task: str
    offset: int


@dataclass(frozen=True, slots=True)
class DrainSlice:
    """Have a slice begin no further items; those under way go on."""

    task: str
    offset: int


@dataclass(frozen=True, slots=True)
class TellFamily:
    """Hand a pause or its end on to every open child and slice."""

    what: Literal["pause", "resume"]
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AcquireSlot:
    """Ask for a slot of a concurrency group, for `task` or ("") for the run itself: `SlotGranted` or `SlotRefused` answers."""

    task: str
    group: str
    limit: int
    on_conflict: Literal["queue", "skip", "cancel_running"] = "queue"


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """Give a slot back, or stop waiting for it. The slot of the run itself is given back when its end is recorded."""

    task: str
    group: str


@dataclass(frozen=True, slots=True)
class FinishRun:
    """The run is over. Always the last command."""

    status: Literal["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
    outputs: Json
    error: TaskError | None


@dataclass(frozen=True, slots=True)
class FinishSlice:
    """The slice is over. Always the last command of a run with `RunStart.slice`; fields as in `SliceEnded`."""

    status: Literal["COMPLETED", "FAILED", "CANCELLED"]
    results: list[Json]
    failures: list[Json]
    error: TaskError | None
    undo: Json
    ended: Json = None


Command: TypeAlias = (
    StartActivity
    | CancelActivity
    | StartTimer
    | CancelTimer
    | RequestApproval
    | CloseApproval
    | StartChild
    | CancelChild
    | StartSlice
    | CancelSlice
    | DrainSlice
    | TellFamily
    | AcquireSlot
    | ReleaseSlot
    | FinishRun
    | FinishSlice
)
