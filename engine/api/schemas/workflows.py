"""Messages about definitions and their versions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.api.schemas.common import Message


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


class WorkflowDetail(Workflow):
    """A definition as of a ref, with what a start needs to know."""

    revision_sha: str
    dsl: str
    compiled_digest: str
    inputs: dict[str, Any] | None
    """The JSON Schema of its inputs; null if it takes none."""
    tasks: list[str]
    """The ids of its tasks, in the order of the file."""
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
