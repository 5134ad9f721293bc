"""The pure judge of approvals: who may vote, what the votes say, what a passed deadline means.

Services judge a decision with it inside the transaction that writes the decision; the offline driver uses the same.
A vote is JSON: `{by, decision: "approve" | "reject", comment, form, at}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.core.contracts import Json
from engine.core.ids import named_uuid

Standing = Literal["PENDING", "APPROVED", "REJECTED"]
Expiry = Literal["TIMED_OUT", "APPROVED", "ESCALATED"]


def approval_id(execution_id: str, task: str) -> str:
    """The id of a task's approval request: UUIDv5 of `<execution id>/<address of the task>`, the same at every replay."""
    return named_uuid(f"{execution_id}/{task}")


@dataclass(frozen=True, slots=True)
class People:
    """Users by subject and groups by name."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @classmethod
    def from_json(cls, value: Json) -> People:
        """`{users: [...], groups: [...]}`; None and missing keys mean nobody."""
        named = value or {}
        return cls(frozenset(named.get("users") or ()), frozenset(named.get("groups") or ()))

    def include(self, subject: str, groups: Sequence[str]) -> bool:
        """Whether the person is named, alone or by a group."""
        return subject in self.users or not self.groups.isdisjoint(groups)

    def __bool__(self) -> bool:
        return bool(self.users or self.groups)


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """What a request asks for. Nobody named in `approvers` means that everyone with the role of an approver may vote."""

    approvers: People = People()
    required_approvals: int = 1
    prevent_self_approval: tuple[str, ...] = ()
    on_timeout: Literal["reject", "approve", "escalate"] = "reject"
    escalate_to: People = People()

    @classmethod
    def from_json(cls, policy: Mapping[str, Any]) -> ApprovalPolicy:
        """From the config of a `human_approval` task or the `policy` of its request's row; other keys are left alone."""
        return cls(
            approvers=People.from_json(policy.get("approvers")),
            required_approvals=int(policy.get("required_approvals") or 1),
            prevent_self_approval=tuple(policy.get("prevent_self_approval") or ()),
            on_timeout=policy.get("on_timeout") or "reject",
            escalate_to=People.from_json(policy.get("escalate_to")),
        )


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the run knows about itself: who started it, who wrote its commit (`author_names`)."""

    started_by: str = ""
    commit_authors: frozenset[str] = frozenset()
    escalated: bool = False


def author_names(author: str, email: str) -> frozenset[str]:
    """All names by which the author of a commit may hold a token, in lower case: git knows no subjects."""
    local, _, domain = email.casefold().partition("@")
    hidden = domain.startswith(
        "users.noreply."
    )  # `12345+ada@`: what forges write for who hides their address
    short = local.rpartition("+")[2] if hidden else local.partition("+")[0]
    return frozenset({author.casefold(), email.casefold(), local, short} - {""})


def refusal(policy: ApprovalPolicy, subject: str, groups: Sequence[str], around: Circumstances) -> str:
    """Why this person may not vote, "" if they may. Membership is judged at the moment of the decision."""
    if "starter" in policy.prevent_self_approval and subject == around.started_by:
        return f"{subject} started this run and may not decide on it"
    if "commit_author" in policy.prevent_self_approval and subject.casefold() in around.commit_authors:
        return f"{subject} wrote the commit of this run and may not decide on it"
    if not policy.approvers or policy.approvers.include(subject, groups):
        return ""
    if around.escalated and policy.escalate_to.include(subject, groups):
        return ""
    named = policy.approvers if not around.escalated else _both(policy.approvers, policy.escalate_to)
    users = ", ".join(sorted(named.users))
    teams = ", ".join(sorted(named.groups))
    who = "; ".join(
        part for part in (f"users {users}" if users else "", f"groups {teams}" if teams else "") if part
    )
    return f"{subject} is not an approver of this request ({who})"


def standing(policy: ApprovalPolicy, votes: Sequence[Mapping[str, Any]]) -> Standing:
    """What the votes say, in the order in which they were recorded.

    One reject decides at once; one voice per person, whose last word before the resolution counts.  Votes after the
    resolution change nothing.
    """
    approving: set[str] = set()
    for vote in votes:
        if vote["decision"] == "reject":
            return "REJECTED"
        approving.add(vote["by"])
        if len(approving) >= policy.required_approvals:
            return "APPROVED"
    return "PENDING"


def expiry(policy: ApprovalPolicy, *, escalated: bool) -> Expiry:
    """What a passed deadline does to a request that is still open. Escalation gives one fresh deadline, then rejects."""
    if policy.on_timeout == "approve":
        return "APPROVED"
    if policy.on_timeout == "escalate" and not escalated:
        return "ESCALATED"
    return "TIMED_OUT"


def _both(one: People, other: People) -> People:
    return People(one.users | other.users, one.groups | other.groups)
