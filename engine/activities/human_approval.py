"""`human_approval`: a task that waits for people. The engine performs it; here stands what it may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from engine.activities.fields import Duration
from engine.activities.registry import ActivityConfig, ActivityType


class Approvers(ActivityConfig):
    """Who may decide: everybody who is in one of the groups or is named."""

    groups: list[str] = Field(default_factory=list, description="Names of groups.")
    users: list[str] = Field(default_factory=list, description="Names of persons.")

    @property
    def empty(self) -> bool:
        """Nobody is named."""
        return not self.groups and not self.users


class HumanApprovalConfig(ActivityConfig):
    """What is asked, who may answer, and what happens if nobody does."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "dependentRequired": {"on_timeout": ["deadline"], "escalate_to": ["deadline"]},
            "if": {"properties": {"on_timeout": {"const": "escalate"}}, "required": ["on_timeout"]},
            "then": {"required": ["escalate_to"]},
        },
    )

    message: str = Field(description="What the approvers read.", min_length=1, max_length=10_000)
    approvers: Approvers | None = Field(
        default=None, description="Who may decide. Without it, everybody who has the role `approver`."
    )
    required_approvals: int = Field(
        default=1, ge=1, le=100, description="How many approvals complete the task."
    )
    prevent_self_approval: list[Literal["starter", "commit_author"]] = Field(
        default_factory=list,
        description="Who may not decide: the person who started the run, whoever wrote the version's commit, co-authors included (of a merge: any commit that it brought).",
    )
    form: dict[str, Any] | None = Field(
        default=None, description="A JSON Schema; each decision must bring a `form` that fits it."
    )
    deadline: Duration | None = Field(
        default=None,
        gt=0,
        description="Counted from the moment at which the request can be seen. Without it: no end.",
    )
    on_timeout: Literal["reject", "approve", "escalate"] = Field(
        default="reject", description="What the deadline does if nothing was decided."
    )
    escalate_to: Approvers | None = Field(
        default=None, description="Who is added by `on_timeout: escalate`, with one fresh deadline."
    )
    remind_every: Duration | None = Field(default=None, description="Time between reminders.")
    on_reject: Literal["fail", "continue"] = Field(
        default="fail", description="`continue` completes the task with `outputs.decision == 'rejected'`."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> HumanApprovalConfig:
        if self.on_timeout == "escalate" and (self.escalate_to is None or self.escalate_to.empty):
            raise ValueError("`on_timeout: escalate` needs `escalate_to`")
        if self.deadline is None and {"on_timeout", "escalate_to"} & self.model_fields_set:
            raise ValueError("`on_timeout` and `escalate_to` need a `deadline`")
        people = self.approvers
        if people is not None and people.empty:
            raise ValueError("`approvers` names nobody")
        if people is not None and not people.groups and len(set(people.users)) < self.required_approvals:
            raise ValueError(
                f"{self.required_approvals} approvals can never come from {len(set(people.users))} approvers"
            )
        return self


class Decision(TypedDict):
    """What one person said. `at` is RFC 3339 in UTC."""

    by: str
    decision: Literal["approve", "reject"]
    comment: str
    form: Any
    at: str


class ApprovalResult(TypedDict):
    """How the request ended, and every word that led to it."""

    decision: Literal["approved", "rejected"]
    decisions: list[Decision]


HUMAN_APPROVAL = ActivityType(
    name="human_approval",
    config=HumanApprovalConfig,
    result=ApprovalResult,
    errors=("ApprovalRejected", "ApprovalTimedOut"),
    run=None,
    description=(
        "Wait until enough of the named people approve. One rejection decides. Each person has one voice, and the "
        "last word before the quorum counts. Takes no `retry` and no `timeout`: it has its `deadline`."
    ),
    builtin=True,
)
