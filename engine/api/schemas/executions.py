"""Messages about runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from engine.api.schemas.approvals import Decision
from engine.api.schemas.common import Body, Error, Message, Name, Text

Status = Literal[
    "PENDING", "QUEUED", "RUNNING", "WAITING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"
]


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


class Cancelling(Message):
    """A cancel that was asked for."""

    id: str
    status: Status


class Execution(Message):
    """A run, as listings show it."""

    id: str
    workflow: str
    source: str
    version_id: int
    commit_sha: str
    revision_sha: str
    digest: str
    title: str
    status: Status
    started_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Error | None


class Attempt(Message):
    """One attempt of a task's activity."""

    attempt: int
    status: str
    scheduled_at: datetime
    started_at: datetime
    finished_at: datetime | None
    worker: str
    error: Error | None


class Task(Message):
    """How a task of a run stands."""

    id: str
    status: Literal["PENDING", "RUNNING", "WAITING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"]
    skip_reason: str
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    outputs: Any
    error: Error | None
    attempt_log: list[Attempt]
    """Every attempt that was recorded, in order."""


class Asked(Message):
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
    inputs: dict[str, Any]
    outputs: Any
    live: bool
    """Whether an open run has spoken for itself just now; else this is what was recorded last."""
    tasks: list[Task]
    approvals: list[Asked]
