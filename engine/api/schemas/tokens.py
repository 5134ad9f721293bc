"""Messages about tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from engine.api.schemas.common import Body, Message, Name


class CreateToken(Body):
    """Whom a token stands for, and what it may do."""

    subject: Name
    """The person or program; the audit names it."""
    roles: Annotated[list[Name], Field(max_length=10)]
    """viewer, operator, approver, admin."""
    groups: Annotated[list[Name], Field(max_length=100)] = Field(default_factory=list)
    """Groups that approval requests may name."""
    expires_in: float | None = None
    """Seconds; never if left out."""


class Token(Message):
    """A token, without its secret."""

    id: str
    subject: str
    roles: list[str]
    groups: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewToken(Token):
    """A token at the only moment at which its text is shown."""

    token: str
