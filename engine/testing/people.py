"""The request that a `human_approval` makes: a row like that in the database, judged by the same judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from engine.core.approvals import ApprovalPolicy, Circumstances, expiry, standing
from engine.core.contracts import ApprovalResolved, Json
from engine.core.values import seconds
from engine.dsl.json_schemas import SchemaFault, compile_schema
from engine.testing.cases import Vote
from engine.testing.reading import refused_vote

Outcome = Literal["APPROVED", "REJECTED", "TIMED_OUT", "CANCELLED", "PENDING"]


@dataclass(slots=True)
class Request:
    """One request. `deadline` is in seconds since the epoch. Raises ValueProblem if the config's is no duration."""

    task: str
    id: str
    config: dict[str, Any]
    opened: float
    outcome: Outcome = "PENDING"
    deadline: float | None = None
    escalated: bool = False
    decisions: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        span = self.config.get("deadline")
        self.deadline = None if span is None else self.opened + seconds(span)

    @property
    def policy(self) -> ApprovalPolicy:
        """What the request asks for."""
        return ApprovalPolicy.from_json(self.config)

    def decide(self, vote: Vote, around: Circumstances, at: float) -> str:
        """Record a vote; why it is refused, "" if it is not."""
        around = Circumstances(around.started_by, around.commit_authors, self.escalated)
        own = [said["decision"] for said in self.decisions if said["by"] == vote.by]
        refused = refused_vote(self.policy, vote, around)
        if not refused and self.outcome != "PENDING":
            refused = f"the request is {self.outcome} already"
        if not refused and self.deadline is not None and self.deadline <= at:
            refused = "the deadline of the request has passed"
        if not refused and own and own[-1] == vote.decision:
            refused = f"{vote.by} has decided so already: each person has one voice"
        refused = refused or self._form_fault(vote)
        if refused:
            return refused
        said = {"by": vote.by, "decision": vote.decision, "comment": vote.comment, "form": vote.form}
        self.decisions.append(said | {"at": rfc3339(at)})
        self.outcome = standing(self.policy, self.decisions)
        return ""

    def close(self, why: Literal["deadline", "cancelled"], at: float) -> None:
        """Apply a passed deadline, or the end of the run, unless somebody was quicker."""
        if self.outcome != "PENDING":
            return
        if why == "cancelled":
            self.outcome = "CANCELLED"
            return
        applied = expiry(self.policy, escalated=self.escalated)
        if applied == "ESCALATED":
            self.escalated = True
            self.deadline = at + seconds(self.config["deadline"])
        else:
            self.outcome = applied

    def resolved(self, at: float) -> ApprovalResolved:
        """How the request stands, as the run is told."""
        deadline = self.deadline if self.outcome == "PENDING" else None
        return ApprovalResolved(self.task, self.id, self.outcome, list(self.decisions), at, deadline)

    def _form_fault(self, vote: Vote) -> str:
        """A form is owed by those who approve; who rejects may leave it out."""
        schema = self.config.get("form")
        if schema is None:
            return "the request asks for no form" if vote.form is not None else ""
        if vote.form is None and vote.decision == "reject":
            return ""
        try:
            validator = compile_schema(schema)
        except SchemaFault as fault:
            return f"the form of the request is no valid schema: {fault.message}"
        for error in validator.iter_errors({} if vote.form is None else vote.form):
            return "the form does not fit: " + str(error.message).split("\n", 1)[0][:200]
        return ""


def rfc3339(at: float) -> str:
    """Seconds since the epoch as the server writes them."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
