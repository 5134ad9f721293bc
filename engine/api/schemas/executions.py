"""Messages about runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from engine.api.schemas.approvals import Decision
from engine.api.schemas.common import Body, Error, Flag, Message, Name, Text

Status = Literal[
    "PENDING", "QUEUED", "RUNNING", "WAITING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"
]


TaskStatus = Literal["PENDING", "RUNNING", "WAITING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"]


class Execute(Body):
    """What a run is to be of."""

    inputs: dict[str, Any] = Field(default_factory=dict)
    """Checked against the inputs schema of the pinned version; its defaults are filled in."""
    ref: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "latest"
    """`latest`, a commit's full SHA, or a unique short one (at least 4 characters)."""
    targets: Annotated[list[Name], Field(max_length=1000)] = Field(default_factory=list)
    """Ids of tasks: only these and what they depend on will run. Empty for all."""


class Cancel(Body):
    """Why a run is to end."""

    reason: Text = ""


class Why(Body):
    """Why a run is to be paused or resumed."""

    reason: Text = ""


class Signal(Body):
    """Word to a run."""

    name: Name
    """What a task of the run waits for, now or later."""
    payload: Any = None
    """Fits the task's schema, if it has one."""
    correlation: Text = ""
    """Which of several tasks that wait for the name is meant, as the task's own `correlation` says."""


class Rerun(Body):
    """How a run is to be done once more."""

    ref: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "same"
    """`same` (all that the old run was pinned to), `latest`, a commit's full SHA, or a unique short one."""
    from_failed: Flag = False
    """Carry over what the old run had completed, wherever definition and resolved inputs are still the same."""


class Started(Message):
    """An acknowledged start: exactly one run comes of it, on this pin."""

    id: str
    workflow: str
    source: str
    commit_sha: str
    """The commit that brought the version."""
    revision_sha: str
    """The tip of the branch when the pin was taken."""
    digest: str
    """sha256 of the definition's bytes as in git."""
    status: Status
    created_at: datetime
    repeated: bool
    """Whether the idempotency key had led to this run before."""


class Asked(Message):
    """What was asked of a run, and its status by now."""

    id: str
    status: Status


class Signalled(Message):
    """A signal that is durable: it reaches the run exactly once."""

    id: str
    """The idempotency key, or an id of ours."""
    execution_id: str
    name: str
    repeated: bool
    """Whether the key had been used for this signal before."""


class TaskVerdict(Message):
    """What becomes of a task in a rerun."""

    task: str
    verdict: Literal["reuse", "run"]
    reason: str


class Rerunning(Started):
    """A run that does an old one once more."""

    rerun_of: str
    tasks: list[TaskVerdict]
    """For each task whether the old result is reused or it runs again, and why, as far as that can be told now."""


class Execution(Message):
    """A run, as listings show it."""

    id: str
    workflow: str
    source: str
    version_id: int
    commit_sha: str
    revision_sha: str
    digest: str
    signer: str
    """Whose trusted key has signed the commit that brought the version; empty if its source asks for no signature."""
    title: str
    status: Status
    started_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Error | None
    parent_id: str
    """The run whose child it is, empty for a root."""
    parent_task: str
    """The address of the parent's task."""
    root_id: str
    """The run at the top of the family, empty for that itself."""
    rerun_of: str


class Attempt(Message):
    """One attempt of a task's activity."""

    attempt: int
    status: str
    scheduled_at: datetime
    started_at: datetime
    finished_at: datetime | None
    worker: str
    error: Error | None


class Items(Message):
    """How far the items of a map are."""

    total: int
    completed: int
    failed: int


class Task(Message):
    """How a task of a run stands."""

    id: str
    """Its address: `build`; inside of others `rollout[3].deploy`, `group.inner`, `poll[0].probe`."""
    status: TaskStatus
    skip_reason: str
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    outputs: Any
    error: Error | None
    attempt_log: list[Attempt]
    """Every attempt that was recorded, in order."""
    cached_from: str = ""
    """The run that made the result, if it came from the cache."""
    reused_from: str = ""
    """The run that made the result, if a rerun carried it over."""
    compensation: str = ""
    """DONE or FAILED once the task was undone."""
    child_id: str = ""
    """The run that it started, if it is of type workflow."""
    items: Items | None = None
    """How far a map is."""


class Awaited(Message):
    """What a task of an open run waits for."""

    task: str
    kind: str
    """`approval`, `timer`, `signal` or `slot`."""
    since: datetime | None
    until: datetime | None
    approval_id: str
    signal: str
    correlation: str
    callback_url: str
    """POST the payload of the signal there, once; shown to operators only."""
    group: str
    """The concurrency group that is full."""


class Relative(Message):
    """A child or a rerun of a run."""

    id: str
    workflow: str
    commit_sha: str
    status: Status
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Error | None


class Child(Relative):
    """A run that a task of the run started."""

    task: str


class SignalSent(Message):
    """A signal that the run was sent."""

    id: str
    name: str
    correlation: str
    task: str
    """The address of the task whose callback URL was used, empty for a signal by name."""
    by: str
    at: datetime


class ClosureEntry(Message):
    """A version that the run or a descendant may start."""

    workflow: str
    source: str
    commit_sha: str
    revision_sha: str
    digest: str
    compiled_digest: str
    bundle_digest: str
    dsl: str
    size: int
    calls: dict[str, str]


class Request(Message):
    """An approval request of a run."""

    id: str
    task: str
    status: str
    message: str
    requested_at: datetime
    deadline_at: datetime | None
    resolved_at: datetime | None
    decisions: list[Decision]


class ExecutionDetail(Execution):
    """A run, whole."""

    bundle_digest: str
    """sha256 of the functions bundle that it may run, empty if it uses none."""
    closure: dict[str, ClosureEntry]
    """All that it may start, fixed at the start of the family; held by the root alone."""
    inputs: dict[str, Any]
    targets: list[str]
    trigger: Any
    outputs: Any
    live: bool
    """Whether an open run has spoken for itself just now; else this is what was recorded last."""
    task_count: int
    tasks: list[Task]
    """All of them, up to 1000; of more, those that stand in no other (`GET /executions/{id}/tasks` has the rest)."""
    waiting: list[Awaited]
    """What an open run waits for; empty unless it is `live`."""
    approvals: list[Request]
    children: list[Child]
    """The newest 100; `GET /executions?parent=` has all."""
    reruns: list[Relative]
    """The newest 100; `GET /executions?rerun_of=` has all."""
    signals: list[SignalSent]
    """The newest 100."""
