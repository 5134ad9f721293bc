"""Named queries for decisions: what waits for people, and the one place at which a request is resolved by them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Select,
    String,
    func,
    insert,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import ApprovalDecision as D
from engine.storage.models import ApprovalRequest as A
from engine.storage.models import Revision, Source
from engine.storage.models import WorkflowExecution as E
from engine.storage.rows import Record, many, one

_AT = func.to_char(func.timezone("UTC", D.at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"', type_=String)
_SAID = func.jsonb_build_object(
    "by", D.by, "decision", D.decision, "comment", D.comment, "form", D.form, "at", _AT, type_=JSONB
)
_DECISIONS = func.coalesce(
    select(func.jsonb_agg(aggregate_order_by(_SAID, D.position), type_=JSONB))
    .where(D.approval_id == A.id)
    .correlate(A)
    .scalar_subquery(),
    literal([], JSONB),
    type_=JSONB,
).label("decisions")

_SHOWN = (
    A.id,
    A.execution_id,
    A.task,
    A.workflow,
    Source.name.label("source"),
    A.commit_sha,
    A.message,
    A.policy,
    A.status,
    A.requested_at,
    A.deadline_at,
    A.escalated,
    A.resolved_at,
    _DECISIONS,
)


def _shown() -> Select[Any]:
    return select(*_SHOWN).join(E, E.id == A.execution_id).join(Source, Source.id == E.source_id)


async def get(connection: AsyncConnection, approval_id: str) -> Record | None:
    """One request with its `decisions` (`{by, decision, comment, form, at}`, in the order of their recording)."""
    return await one(connection, _shown().where(A.id == approval_id))


async def page(
    connection: AsyncConnection,
    *,
    count: int,
    before: tuple[datetime, str] | None = None,
    status: str = "",
    execution_id: str = "",
    workflow: str = "",
    source: str = "",
) -> list[Record]:
    """Up to `count` requests, the newest first, from before `(requested_at, id)`."""
    query = _shown().order_by(A.requested_at.desc(), A.id.desc()).limit(count)
    if before is not None:
        query = query.where(tuple_(A.requested_at, A.id) < tuple_(literal(before[0]), literal(before[1])))
    if status:
        query = query.where(A.status == status)
    if execution_id:
        query = query.where(A.execution_id == execution_id)
    if workflow:
        query = query.where(A.workflow == workflow)
    if source:
        query = query.where(Source.name == source)
    return await many(connection, query)


async def count_pending(connection: AsyncConnection) -> int:
    """How many requests wait for somebody."""
    query = select(func.count()).select_from(A).where(A.status == "PENDING")
    return int((await connection.execute(query)).scalar_one())


async def lock(connection: AsyncConnection, approval_id: str) -> Record | None:
    """A request for judgement, locked until the transaction ends.

    Besides its own columns: `source`, the run's `started_by` and `run_status`, and `expired` by the database's clock,
    which all processes share.
    """
    # Two statements: what is read must be read after the lock was granted, not when it was asked for.
    locked = await connection.execute(select(A.id).where(A.id == approval_id).with_for_update())
    if locked.one_or_none() is None:
        return None
    query = (
        select(
            *_SHOWN,
            A.told,
            E.started_by,
            E.source_id,
            E.status.label("run_status"),
            func.coalesce(A.deadline_at <= func.clock_timestamp(), False).label("expired"),
        )
        .join(E, E.id == A.execution_id)
        .join(Source, Source.id == E.source_id)
        .where(A.id == approval_id)
    )
    return await one(connection, query)


async def authors(connection: AsyncConnection, source_id: int, commit_sha: str) -> list[Record]:
    """`author, author_email` of a commit as git has them, and `authors` (`name, email`) of the others that it brought."""
    query = select(Revision.author, Revision.author_email, Revision.authors).where(
        Revision.source_id == source_id, Revision.sha == commit_sha
    )
    return await many(connection, query)


async def add(
    connection: AsyncConnection,
    *,
    decision_id: str,
    approval_id: str,
    by: str,
    decision: str,
    comment: str,
    form: Any,
    at: datetime,
) -> None:
    """Record what one person said."""
    await connection.execute(
        insert(D).values(
            id=decision_id,
            approval_id=approval_id,
            by=by,
            decision=decision,
            comment=comment,
            form=form,
            at=at,
        )
    )


async def of_runs(connection: AsyncConnection, execution_ids: Sequence[str]) -> list[Record]:
    """The requests of these runs, oldest first, with their decisions."""
    return await many(
        connection, _shown().where(A.execution_id.in_(list(execution_ids))).order_by(A.requested_at, A.id)
    )
