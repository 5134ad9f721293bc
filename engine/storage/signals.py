"""Named queries for signals, and for what steers a run and all that it started."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import Signal
from engine.storage.rows import Record, one


async def add(
    connection: AsyncConnection,
    execution_id: str,
    *,
    id: str,
    name: str,
    correlation: str,
    task: str,
    payload: Any,
    by: str,
) -> bool:
    """Write a signal; False if its id is taken, or the callback of its task was used."""
    statement = insert(Signal).values(
        execution_id=execution_id,
        id=id,
        name=name,
        correlation=correlation,
        task=task,
        payload=payload,
        by=by,
    )
    done = await connection.execute(statement.on_conflict_do_nothing().returning(Signal.id))
    return done.one_or_none() is not None


async def get(connection: AsyncConnection, execution_id: str, id: str) -> Record | None:
    """One signal."""
    query = select(Signal.__table__).where(Signal.execution_id == execution_id, Signal.id == id)
    return await one(connection, query)


async def count(connection: AsyncConnection, execution_id: str) -> int:
    """How many signals a run was sent."""
    query = select(func.count()).select_from(Signal).where(Signal.execution_id == execution_id)
    return int((await connection.execute(query)).scalar_one())


_FAMILY = """
    WITH RECURSIVE family (id) AS (
        SELECT CAST(:id AS text)
        UNION ALL
        SELECT e.id FROM workflow_executions e JOIN family f ON e.parent_id = f.id AND e.parent_id <> ''),
    changed AS (
        UPDATE workflow_executions e SET status = {status}
          FROM family f WHERE e.id = f.id AND {which}
     RETURNING e.id, e.workflow, e.commit_sha, e.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, :action, s.name, changed.workflow, changed.id, changed.commit_sha,
           jsonb_strip_nulls(jsonb_build_object(
               'reason', CAST(:reason AS text), 'with', CASE WHEN changed.id <> :id THEN CAST(:id AS text) END))
      FROM changed JOIN sources s ON s.id = changed.source_id ORDER BY changed.id
"""
_PAUSE = text(
    _FAMILY.format(status="'PAUSED'", which="e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING')")
)
_RESUME = text(
    _FAMILY.format(
        # Never QUEUED: readers see that in the slots, and nobody would write that the group has room again.
        status="CASE WHEN e.started_at IS NULL THEN 'PENDING' ELSE 'RUNNING' END",
        which="e.status = 'PAUSED'",
    )
)


async def pause(connection: AsyncConnection, execution_id: str, *, actor: str, reason: str) -> None:
    """A run and all that it started are PAUSED from now on, an audit row for each."""
    values = {"id": execution_id, "actor": actor, "reason": reason, "action": "execution.pause_requested"}
    await connection.execute(_PAUSE, values)


async def resume(connection: AsyncConnection, execution_id: str, *, actor: str, reason: str) -> None:
    """A run and all that it started go on, an audit row for each."""
    values = {"id": execution_id, "actor": actor, "reason": reason, "action": "execution.resume_requested"}
    await connection.execute(_RESUME, values)
