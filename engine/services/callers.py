"""Who calls, and what each role may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.errors import Forbidden

Role = Literal["viewer", "operator", "approver", "admin"]

ROLES: dict[Role, frozenset[Role]] = {
    "viewer": frozenset({"viewer"}),
    "operator": frozenset({"viewer", "operator"}),
    "approver": frozenset({"viewer", "approver"}),
    "admin": frozenset({"viewer", "operator", "approver", "admin"}),
}
"""What each role includes: viewers read, operators start and cancel, approvers decide, admins do all and make tokens."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The person or program behind a request. `subject` is what the audit names."""

    subject: str
    roles: frozenset[str]
    groups: tuple[str, ...] = ()

    def may(self, role: Role) -> bool:
        """Whether one of the caller's roles includes `role`."""
        return any(role in ROLES.get(own, ()) for own in self.roles)  # type: ignore[call-overload]

    def require(self, role: Role) -> None:
        """Raise `Forbidden` unless the caller may do what `role` may."""
        if not self.may(role):
            own = ", ".join(sorted(self.roles)) or "none"
            raise Forbidden(f"this needs the role {role}; the token of {self.subject} has {own}")
