"""Messages about definitions and their versions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from engine.api.schemas.common import Body, Message


class Workflow(Message):
    """A live definition."""

    name: str
    source: str
    path: str
    version: str
    title: str
    description: str
    labels: dict[str, Any]
    commit_sha: str
    """The commit that brought this version."""
    digest: str
    bundle_digest: str


class Fired(Message):
    """What came of a trigger's moment."""

    key: str
    """The scheduled time, or what tells a delivery from others."""
    status: Literal["CLAIMED", "WAITING", "STARTED", "IGNORED", "SKIPPED", "MISSED", "FAILED"]
    reason: str
    execution_id: str
    at: datetime


class Trigger(Message):
    """What starts a live workflow by itself."""

    id: str
    type: Literal["schedule", "webhook"]
    status: Literal["PENDING", "APPLIED", "REFUSED", "NO_SECRET"]
    """Whether Temporal has it as the live version says; REFUSED with Temporal's `message`. NO_SECRET is a webhook whose
    secret the API does not have: all that is sent to it is refused."""
    message: str
    last: Fired | None
    next: list[datetime] | None
    """The next times, jitter included; null if Temporal does not say so now, and for a webhook."""
    paused: bool
    """Somebody has paused the schedule through Temporal."""
    cron: list[str] | str | None = None
    timezone: str | None = None
    overlap: str | None = None
    catchup_window: float | None = None
    jitter: float | None = None
    path: str | None = None
    """Where a webhook is sent."""


class Span(Body):
    """From when, and up to when (which is not in it)."""

    from_: AwareDatetime = Field(alias="from")
    to: AwareDatetime


class Backfilled(Message):
    """One scheduled time of the span."""

    scheduled_at: datetime
    status: Literal["STARTED", "IGNORED", "FAILED", "CLAIMED", "WAITING", "GONE"]
    execution_id: str
    reason: str
    repeated: bool
    """The run was there already."""


class Backfill(Message):
    """The runs of a span, or the first hundred of them."""

    items: list[Backfilled]
    next: datetime | None
    """Send it as `from` to go on; null if that was all."""


class WorkflowDetail(Workflow):
    """A definition as of a ref, with what a start needs to know."""

    revision_sha: str
    dsl: str
    compiled_digest: str
    inputs: dict[str, Any] | None
    """The JSON Schema of its inputs; null if it takes none."""
    tasks: list[str]
    """The ids of its tasks, in the order of the file."""
    triggers: list[Trigger]
    """Those of the live version."""
    definition: str | None = None
    """The text as in git, if `definition=true` asks for it."""


class Version(Message):
    """A span of revisions over which a version was the live one."""

    name: str
    source: str
    version: str
    commit_sha: str
    digest: str
    bundle_digest: str
    path: str
    live: bool
    from_sha: str
    from_at: datetime
    to_sha: str | None
    """The revision that ended it."""
    to_at: datetime | None
    author: str
    """Of the commit that made it live, as the commit says; git does not prove it."""
    author_email: str
    committed_at: datetime
    subject: str
    signer: str = ""
    """Who signed that commit, if the source asks for signatures."""
    pull_request: int | None
    """The number that the commit's subject names."""
    restored: bool
    """Its bytes are those of an older commit, as after a revert: `commit_sha` is that one."""
    runs: int
    """Runs of this version; of a restored one, over all its spans."""
    runs_open: int
    runs_completed: int
    runs_failed: int
    """FAILED and TIMED_OUT."""
    failure_rate: float | None
    """Of those that completed or failed; null without one."""
