"""Named queries for signals: a signal is a row first, and the intent to tell the run, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.rows import Record, many

_KEEP = text("""
    WITH kept AS (
        INSERT INTO signals (execution_id, id, name, correlation, task, payload, by)
        VALUES (:execution_id, :id, :name, :correlation, :task, :payload, :by)
        ON CONFLICT DO NOTHING
     RETURNING execution_id, id, name, correlation, task, payload, by)
    INSERT INTO outbox (kind, execution_id, body, due_at)
    SELECT 'signal', execution_id,
           jsonb_build_object('id', id, 'name', name, 'payload', payload, 'correlation', correlation,
                              'task', task, 'by', by),
           now() + make_interval(secs => :delay)
      FROM kept RETURNING id
""").bindparams(bindparam("payload", type_=JSONB))


async def keep(
    connection: AsyncConnection,
    execution_id: str,
    *,
    id: str,
    name: str,
    payload: Any,
    by: str,
    correlation: str = "",
    task: str = "",
    delay: float = 0.0,
) -> bool:
    """Keep a signal and have it sent after `delay` seconds (a head start for a sender that has it in hand).

    False if it was kept before: the same `id`, or the callback of the same `task`.
    """
    values = {
        "execution_id": execution_id,
        "id": id,
        "name": name,
        "correlation": correlation,
        "task": task,
        "payload": payload,
        "by": by,
        "delay": delay,
    }
    return (await connection.execute(_KEEP, values)).one_or_none() is not None


async def of_execution(connection: AsyncConnection, execution_id: str) -> list[Record]:
    """The signals that a run was sent (`id, name, correlation, task, payload, by, at`), in order."""
    query = text("""
        SELECT id, name, correlation, task, payload, by, at FROM signals
         WHERE execution_id = :execution_id ORDER BY at, id
    """).columns(payload=JSONB)
    return await many(connection, query, {"execution_id": execution_id})


# A task waits since before the signal came: had the run heard it, the task would wait no longer.
_UNHEARD = (
    text("""
    SELECT DISTINCT s.id, s.name, s.payload, s.correlation, s.task, s.by
      FROM signals s, jsonb_to_recordset(CAST(:waiting AS jsonb))
                   AS w (task text, signal text, correlation text, since double precision)
     WHERE s.execution_id = :execution_id
       AND (s.task = w.task OR (s.task = '' AND s.name = w.signal AND s.correlation = COALESCE(w.correlation, '')))
       AND s.at > to_timestamp(w.since) AND s.at < now() - interval '10 seconds'
       AND NOT EXISTS (SELECT FROM outbox o WHERE o.execution_id = s.execution_id AND o.kind = 'signal'
                          AND o.body ->> 'id' = s.id AND o.parked_at IS NULL)
""")
    .bindparams(bindparam("waiting", type_=JSONB))
    .columns(payload=JSONB)
)


async def unheard(
    connection: AsyncConnection, execution_id: str, waiting: Sequence[Mapping[str, Any]]
) -> list[Record]:
    """The bodies of `signal` messages that a run still waits for (`waiting` of its snapshot), and nobody is about to send."""
    wanted = [
        {name: each.get(name) for name in ("task", "signal", "correlation", "since")} for each in waiting
    ]
    return await many(connection, _UNHEARD, {"execution_id": execution_id, "waiting": wanted})
