"""Named queries for the outbox: what Temporal must be told, and what telling it changes.

Sending is idempotent, so a claim is a lease that saves work, never a lock that anything relies on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Integer, Text, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.database import Database
from engine.storage.json_text import clean_text


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `kind` as in the table, `attempts` counts the refusals so far."""

    id: int
    kind: str
    execution_id: str
    body: dict[str, Any]
    attempts: int = 0


_COLUMNS: dict[str, Any] = {
    "id": BigInteger,
    "kind": Text,
    "execution_id": Text,
    "body": JSONB,
    "attempts": Integer,
}

# A message waits for every earlier one of its run: a cancel must not overtake its start.
_CLAIM = """
    UPDATE outbox SET due_at = now() + make_interval(secs => $1)
     WHERE id IN (
           SELECT o.id FROM outbox o
            WHERE o.parked_at IS NULL AND o.due_at <= now()
              AND NOT EXISTS (SELECT 1 FROM outbox earlier
                               WHERE earlier.execution_id = o.execution_id AND earlier.id < o.id
                                 AND earlier.parked_at IS NULL)
            ORDER BY o.due_at LIMIT $2
              FOR UPDATE OF o SKIP LOCKED)
    RETURNING id, kind, execution_id, body, attempts
"""

_OF_EXECUTION = text("""
    SELECT id, kind, execution_id, body, attempts FROM outbox
     WHERE execution_id = :execution_id AND parked_at IS NULL ORDER BY id
""").columns(**_COLUMNS)

_ENQUEUE = text("""
    INSERT INTO outbox (kind, execution_id, body, due_at)
    VALUES (:kind, :execution_id, :body, now() + make_interval(secs => :delay)) RETURNING id
""").bindparams(bindparam("body", type_=JSONB))

# Deleting is what decides who of several senders writes the rest: exactly one audit row per start.  The commit need not
# reach the disk before we go on: were it lost, all of it would be, and the start be sent again.
_STARTED = """
    WITH gone AS (DELETE FROM outbox WHERE id = ANY($1::bigint[]) RETURNING execution_id),
         run AS (UPDATE workflow_executions e
                    SET status = CASE WHEN e.status = 'PENDING' THEN 'RUNNING' ELSE e.status END,
                        started_at = COALESCE(e.started_at, now())
                   FROM gone WHERE e.id = gone.execution_id
              RETURNING e.id, e.workflow, e.commit_sha, e.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha)
    SELECT $2, 'execution.started', s.name, run.workflow, run.id, run.commit_sha
      FROM run JOIN sources s ON s.id = run.source_id, set_config('synchronous_commit', 'off', true)
"""

# Whoever is told of the slot of its own concurrency group is queued no more.
_SENT = text("""
    WITH gone AS (DELETE FROM outbox WHERE id = :id RETURNING execution_id, kind, body),
         run AS (UPDATE workflow_executions e SET status = 'RUNNING'
                   FROM gone WHERE e.id = gone.execution_id AND e.status = 'QUEUED'
                    AND gone.kind = 'slot' AND gone.body ->> 'task' = ''
              RETURNING e.id, e.workflow, e.commit_sha, e.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha)
    SELECT :actor, 'execution.admitted', s.name, run.workflow, run.id, run.commit_sha
      FROM run JOIN sources s ON s.id = run.source_id
""")

_TOO_LATE = text("""
    WITH gone AS (DELETE FROM outbox WHERE id = :id RETURNING execution_id, kind)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, 'execution.message_too_late', s.name, e.workflow, e.id, e.commit_sha,
           jsonb_build_object('kind', gone.kind)
      FROM gone JOIN workflow_executions e ON e.id = gone.execution_id JOIN sources s ON s.id = e.source_id
""")

_POSTPONE = text("""
    UPDATE outbox SET due_at = now() + make_interval(secs => :delay), last_error = :error WHERE id = :id
""")

_REFUSED = text("""
    UPDATE outbox SET attempts = attempts + 1, last_error = :error,
           due_at = now() + make_interval(secs => :delay),
           parked_at = CASE WHEN attempts + 1 >= :limit THEN now() END
     WHERE id = :id RETURNING parked_at IS NOT NULL AS parked
""")

# A start that Temporal refuses for good: the caller must see it at the run, not in a log.
_NEVER_STARTED = text("""
    WITH run AS (UPDATE workflow_executions e
                    SET status = 'FAILED', finished_at = now(), error = :error
                  WHERE e.id = :execution_id AND (e.status = 'PENDING' OR e.status = 'PAUSED' AND e.started_at IS NULL)
              RETURNING e.id, e.workflow, e.commit_sha, e.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, 'execution.refused', s.name, run.workflow, run.id, run.commit_sha, :error
      FROM run JOIN sources s ON s.id = run.source_id
""").bindparams(bindparam("error", type_=JSONB))

_BACKLOG = text("""
    SELECT count(*) FILTER (WHERE parked_at IS NULL) AS waiting,
           count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked,
           COALESCE(EXTRACT(EPOCH FROM now() - min(created_at) FILTER (WHERE parked_at IS NULL)), 0) AS oldest
      FROM outbox
""")


async def enqueue(
    connection: AsyncConnection, kind: str, execution_id: str, body: dict[str, Any], *, delay: float = 0.0
) -> int:
    """Add a message, to be sent after `delay` seconds (a head start for a sender that has it in hand)."""
    values = {"kind": kind, "execution_id": execution_id, "body": body, "delay": delay}
    return int((await connection.execute(_ENQUEUE, values)).scalar_one())


async def claim(database: Database, count: int, *, lease: float) -> list[Message]:
    """Up to `count` due messages, each the first of its run, hidden from other claims for `lease` seconds.

    One round trip: every worker asks several times a second, mostly for nothing.
    """
    async with database.direct() as driver:
        rows = await driver.fetch(_CLAIM, lease, count)
    return [
        Message(row["id"], row["kind"], row["execution_id"], json.loads(row["body"]), row["attempts"])
        for row in rows
    ]


async def of_execution(connection: AsyncConnection, execution_id: str) -> list[Message]:
    """The unsent messages of a run, in their order, claimed by others or not."""
    rows = await connection.execute(_OF_EXECUTION, {"execution_id": execution_id})
    return [Message(**row._mapping) for row in rows]


async def started(database: Database, message_ids: Sequence[int], *, actor: str) -> None:
    """Starts were sent: delete them, move their runs from PENDING to RUNNING, audit; all in one statement."""
    async with database.direct() as driver:
        await driver.execute(_STARTED, sorted(message_ids), actor)


async def sent(connection: AsyncConnection, message_id: int, *, actor: str) -> None:
    """Another message was sent: delete it. A run that was told of its own slot is RUNNING from now on."""
    await connection.execute(_SENT, {"id": message_id, "actor": actor})


async def too_late(connection: AsyncConnection, message_id: int, *, actor: str) -> None:
    """The run is closed or gone: delete the message and leave a note in the audit."""
    await connection.execute(_TOO_LATE, {"id": message_id, "actor": actor})


async def postpone(connection: AsyncConnection, message_id: int, *, delay: float, error: str) -> None:
    """Temporal is away: try again after `delay` seconds. Never parks."""
    await connection.execute(_POSTPONE, {"id": message_id, "delay": delay, "error": clean_text(error)})


async def refused(
    connection: AsyncConnection, message_id: int, *, delay: float, error: str, limit: int
) -> bool:
    """Temporal refused the message: try again after `delay` seconds, or park it at the `limit`th time (True)."""
    values = {"id": message_id, "delay": delay, "error": clean_text(error), "limit": limit}
    row = (await connection.execute(_REFUSED, values)).one_or_none()
    return row is not None and bool(row.parked)


async def never_started(
    connection: AsyncConnection, execution_id: str, *, error: dict[str, Any], actor: str
) -> None:
    """The start of a run was refused for good: FAILED, with `error`, audited."""
    await connection.execute(_NEVER_STARTED, {"execution_id": execution_id, "error": error, "actor": actor})


async def backlog(connection: AsyncConnection) -> dict[str, float]:
    """How many messages wait and are parked, and the age of the oldest waiting one in seconds."""
    row = (await connection.execute(_BACKLOG)).one()
    return {"waiting": float(row.waiting), "parked": float(row.parked), "oldest": float(row.oldest)}
