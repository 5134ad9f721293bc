"""Named queries for bearer tokens. Only the sha256 of a token is ever here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import Token
from engine.storage.rows import Record, many, one

_SHOWN = (
    Token.id,
    Token.subject,
    Token.roles,
    Token.groups,
    Token.created_at,
    Token.expires_at,
    Token.revoked_at,
)


async def create(
    connection: AsyncConnection,
    *,
    token_id: str,
    subject: str,
    digest: str,
    roles: Sequence[str],
    groups: Sequence[str],
    expires_at: datetime | None,
) -> Record:
    """Keep a token by its `digest`; what may be shown of it."""
    statement = insert(Token).values(
        id=token_id,
        subject=subject,
        hash=digest,
        roles=list(roles),
        groups=list(groups),
        expires_at=expires_at,
    )
    row = (await connection.execute(statement.returning(*_SHOWN))).one()
    return dict(row._mapping)


async def valid(connection: AsyncConnection, digest: str) -> Record | None:
    """The `subject, roles, groups, expires_at` of a token that is neither revoked nor expired."""
    query = select(Token.id, Token.subject, Token.roles, Token.groups, Token.expires_at).where(
        Token.hash == digest,
        Token.revoked_at.is_(None),
        or_(Token.expires_at.is_(None), Token.expires_at > func.now()),
    )
    return await one(connection, query)


async def page(connection: AsyncConnection, *, count: int, before: str = "") -> list[Record]:
    """Up to `count` tokens, the newest first, without anything secret."""
    query = select(*_SHOWN).order_by(Token.id.desc()).limit(count)
    return await many(connection, query.where(Token.id < before) if before else query)


async def revoke(connection: AsyncConnection, token_id: str) -> tuple[Record | None, bool]:
    """Revoke a token: what may be shown of it (None if there is none of that id), and whether it was valid till now."""
    statement = (
        update(Token).where(Token.id == token_id, Token.revoked_at.is_(None)).values(revoked_at=func.now())
    )
    revoked = await one(connection, statement.returning(*_SHOWN))
    if revoked is not None:
        return revoked, True
    return await one(connection, select(*_SHOWN).where(Token.id == token_id)), False
