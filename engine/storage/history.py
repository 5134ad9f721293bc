"""Named queries that read the audit."""

from __future__ import annotations

from sqlalchemy import and_, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import AuditEntry
from engine.storage.rows import Record, many


async def page(
    connection: AsyncConnection,
    *,
    count: int,
    after: int = 0,
    commit_sha: str = "",
    execution_id: str = "",
    workflow: str = "",
    source: str = "",
    actor: str = "",
    action: str = "",
) -> list[Record]:
    """Up to `count` rows in the order in which they were written, from after the id `after`. `commit_sha` may be a prefix.

    `action` is one action, or a noun with a dot (`approval.`) for all of its actions.
    """
    query = select(AuditEntry.__table__).where(AuditEntry.id > after).order_by(AuditEntry.id).limit(count)
    if len(commit_sha) == 40:
        query = query.where(AuditEntry.commit_sha == commit_sha)
    elif commit_sha:
        # A range and not LIKE, so that the index serves it in every collation: "g" comes after all hex digits.
        upper = literal(commit_sha + "g")
        query = query.where(and_(AuditEntry.commit_sha >= commit_sha, AuditEntry.commit_sha < upper))
    for column, value in (
        (AuditEntry.execution_id, execution_id),
        (AuditEntry.workflow, workflow),
        (AuditEntry.source, source),
        (AuditEntry.actor, actor),
    ):
        if value:
            query = query.where(column == value)
    if action:
        one = AuditEntry.action == action
        query = query.where(
            or_(one, AuditEntry.action.startswith(action, autoescape=True)) if action[-1] == "." else one
        )
    return await many(connection, query)


async def happened(connection: AsyncConnection, execution_id: str, action: str) -> bool:
    """Whether the audit of a run has this action."""
    query = select(AuditEntry.id).where(AuditEntry.execution_id == execution_id, AuditEntry.action == action)
    return (await connection.execute(query.limit(1))).first() is not None
