"""Messages about approval requests."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from engine.api.schemas.common import Body, Message, Text

ApprovalStatus = Literal["PENDING", "APPROVED", "REJECTED", "TIMED_OUT", "CANCELLED"]


class Decide(Body):
    """What the caller says."""

    decision: Literal["approve", "reject"]
    comment: Text = ""
    form: Any = None
    """Fits the schema of the request's `form`; who rejects may leave it out."""


class Decision(Message):
    """What one person said."""

    by: str
    decision: Literal["approve", "reject"]
    comment: str
    form: Any
    at: datetime


class Approval(Message):
    """A request: a task that waits for people."""

    id: str
    execution_id: str
    task: str
    workflow: str
    source: str
    commit_sha: str
    message: str
    policy: dict[str, Any]
    """`approvers`, `required_approvals`, `prevent_self_approval`, `form`, `deadline`, `on_timeout`, `escalate_to`, ..."""
    status: ApprovalStatus
    requested_at: datetime
    deadline_at: datetime | None
    escalated: bool
    resolved_at: datetime | None
    decisions: list[Decision]
