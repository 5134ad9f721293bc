"""Messages about sources, revisions, commits and the audit."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from engine.api.schemas.approvals import Approval
from engine.api.schemas.common import Body, DefinitionProblem, Message
from engine.api.schemas.executions import Execution


class RefusedTrigger(Message):
    """A schedule that Temporal does not take, though the check of the definition did."""

    workflow: str
    id: str
    message: str


class ForgeFault(Message):
    """What the source's forge could not be told."""

    error: str
    """Of the oldest message that waits or was given up."""
    since: datetime
    waiting: int
    parked: int
    """Refused too often: they are sent no more."""


class Source(Message):
    """A git repository, a branch and a folder in it, and how it stands."""

    name: str
    kind: Literal["definitions", "sources"]
    """`sources` for a file in git that lists further sources; `folder` is then the file."""
    url: str
    branch: str
    folder: str
    settings: dict[str, Any]
    """How it is synced: mode, verify, rules, what holds a commit, and the list that declares it."""
    watched: bool
    """Whether a daemon has looked at it lately. What it deployed stays startable in any case."""
    warnings: list[str]
    """What people should know besides the condition."""
    retired_at: datetime | None
    """When all that it deployed was retired by hand."""
    condition: str
    """A word of docs/reference/conditions.md, and so is `reason`."""
    reason: str
    message: str
    action: str
    """What helps; empty if nothing has to be done."""
    condition_since: datetime
    checked_at: datetime | None
    live_sha: str
    observed_sha: str
    """The last tip seen, registered or not."""
    refused_triggers: list[RefusedTrigger]
    """Their schedules stand as they were before."""
    forge: ForgeFault | None = None
    """Null while its forge was told all, and where there is none."""


class Confirm(Body):
    """What is meant."""

    commit_sha: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{4,64}$")]
    """The held commit: full, or the beginning of it."""


class Confirmed(Message):
    """A held commit will be taken at the next look, which is asked for."""

    source: str
    commit_sha: str
    codes: list[str]
    """The problems that the confirmation passes."""


class Retired(Message):
    """What starts no more by its name alone."""

    source: str
    retired: list[str]


class SyncAsked(Message):
    """The daemon will look at these now."""

    asked: list[str]


class Revision(Message):
    """A commit of a source's branch, as it was taken."""

    source: str
    seq: int
    sha: str
    parent_sha: str
    status: Literal["REGISTERED", "REJECTED"]
    history_rewritten: bool
    signer: str
    """Whose trusted key has signed it; empty if its source asks for no signature."""
    signer_key: str
    """The key's fingerprint."""
    author: str
    author_email: str
    committer: str
    committed_at: datetime
    subject: str
    bundle_digest: str
    registered_at: datetime
    problem_count: int
    problems: list[DefinitionProblem]
    """Of a registered one: of files that keep their last good version. The first 50 in listings; all of them in `GET /commits/{sha}`."""


class Change(Message):
    """What a commit did to one definition."""

    source: str
    name: str
    path: str
    change: str
    """`deployed` or `retired`."""
    commit_sha: str
    """Of the version: older than the commit itself where it brought back old bytes."""
    digest: str
    bundle_digest: str


class Commit(Message):
    """All about a commit."""

    sha: str
    revisions: list[Revision]
    changes: list[Change]
    runs: list[Execution]
    """Of versions that it brought, and those started while it was the tip; the newest 200."""
    approvals: list[Approval]


class AuditRow(Message):
    """One change of state."""

    id: int
    at: datetime
    actor: str
    action: str
    """A word of docs/reference/audit.md."""
    source: str
    workflow: str
    execution_id: str
    commit_sha: str
    details: dict[str, Any]
