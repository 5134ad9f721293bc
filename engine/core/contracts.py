"""What the rooms say to each other: the pin, the start of a run, events, commands, calls.

Plain frozen data that can be written as JSON; no behaviour beyond that.  Everything that enters a
Temporal history is declared here or in the state of `state_machine.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list or dict with text keys."""

TaskStatus = Literal["PENDING", "RUNNING", "WAITING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"]
RunStatus = Literal[
    "PENDING", "QUEUED", "RUNNING", "WAITING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"
]
SkipReason = Literal["condition", "upstream", "ended"]


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


@dataclass(frozen=True, slots=True)
class RunStart:
    """The second argument of every workflow (the first is the compiled definition, by reference).

    Times are RFC 3339 in UTC. `started_by` is the subject of the token that asked.
    """

    execution_id: str
    pin: Pin
    inputs: dict[str, Json]
    started_by: str
    started_at: str


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


@dataclass(frozen=True, slots=True)
class ActivityOutcome:
    """What a task's activity returns: its result and the attempt that produced it."""

    result: Json
    attempt: int = 1


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


Event: TypeAlias = (
    Started
    | ActivityCompleted
    | ActivityFailed
    | ActivityCancelled
    | TimerFired
    | ApprovalRequested
    | ApprovalResolved
    | CancelRequested
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
class FinishRun:
    """The run is over. Always the last command."""

    status: Literal["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
    outputs: Json
    error: TaskError | None


Command: TypeAlias = (
    StartActivity | CancelActivity | StartTimer | CancelTimer | RequestApproval | CloseApproval | FinishRun
)
