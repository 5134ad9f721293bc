"""Named queries for approval requests: make one, see one, close one.

The row is the judge: whoever resolves it locks it first, and only a PENDING one can be resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.json_text import clean_text
from engine.storage.rows import Record, many, one

# The run's row is locked against its end: a request must not appear after the run's last step closed all of them.
_REQUEST = text("""
    WITH run AS (
        SELECT e.id, e.workflow, e.commit_sha, e.status, s.name AS source
          FROM workflow_executions e JOIN sources s ON s.id = e.source_id
         WHERE e.id = :execution_id FOR SHARE OF e),
    made AS (
        INSERT INTO approval_requests (id, execution_id, task, workflow, commit_sha, message, told, policy,
                                       requested_at, deadline_at, remind_at)
        SELECT :id, run.id, :task, run.workflow, run.commit_sha, :message, :told, :policy, clock_timestamp(),
               clock_timestamp() + make_interval(secs => CAST(:deadline AS double precision)),
               clock_timestamp() + make_interval(secs => CAST(:remind_every AS double precision))
          FROM run WHERE run.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
        ON CONFLICT (id) DO NOTHING
     RETURNING id, requested_at, deadline_at),
    said AS (
        INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
        SELECT :actor, 'approval.requested', run.source, run.workflow, run.id, run.commit_sha,
               jsonb_build_object('approval_id', made.id, 'task', CAST(:task AS text), 'deadline', made.deadline_at)
          FROM made, run)
    SELECT run.status AS run_status,
           CAST(EXTRACT(EPOCH FROM made.requested_at) AS double precision) AS requested_at,
           CAST(EXTRACT(EPOCH FROM made.deadline_at) AS double precision) AS deadline
      FROM run LEFT JOIN made ON true
""").bindparams(bindparam("policy", type_=JSONB))

_SEE = """
    SELECT a.id, a.execution_id, a.task, a.status, a.policy, a.escalated, a.workflow, a.commit_sha,
           s.name AS source, a.deadline_at > clock_timestamp() AS early,
           CAST(EXTRACT(EPOCH FROM a.deadline_at - clock_timestamp()) AS double precision) AS remaining,
           CAST(EXTRACT(EPOCH FROM a.requested_at) AS double precision) AS requested_at,
           CAST(EXTRACT(EPOCH FROM a.deadline_at) AS double precision) AS deadline
      FROM approval_requests a
      JOIN workflow_executions e ON e.id = a.execution_id
      JOIN sources s ON s.id = e.source_id
     WHERE a.id = :id
"""
_LOCK = text(_SEE + " FOR UPDATE OF a")
_LOOK = text(_SEE)

_DECISIONS = text("""
    SELECT by, decision, comment, form,
           to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at
      FROM approval_decisions WHERE approval_id = :id ORDER BY position
""")

_RESOLVE = text("""
    UPDATE approval_requests SET status = :status, resolved_at = clock_timestamp(), remind_at = NULL
     WHERE id = :id AND status = 'PENDING'
""")

_ESCALATE = text("""
    UPDATE approval_requests
       SET escalated = true,
           deadline_at = clock_timestamp() + make_interval(secs => CAST(:deadline AS double precision))
     WHERE id = :id AND status = 'PENDING'
 RETURNING CAST(EXTRACT(EPOCH FROM deadline_at) AS double precision) AS deadline
""")


async def request(
    connection: AsyncConnection,
    *,
    id: str,
    execution_id: str,
    task: str,
    message: str,
    policy: Mapping[str, Any],
    actor: str,
    told: str = "",
) -> Record | None:
    """Make the request, audited, or find the one that a former attempt made.

    `told` is the Temporal workflow that waits for the answer, "" for that of the run itself.

    Gives `{requested_at, deadline}` (seconds since the epoch), or None if there is no such run or it has ended.
    The deadline counts `policy.deadline` seconds from `requested_at`, by the database's clock.
    """
    values = {
        "id": id,
        "execution_id": execution_id,
        "task": task,
        "message": clean_text(message),
        "told": told,
        "policy": dict(policy),
        "deadline": policy.get("deadline"),
        "remind_every": policy.get("remind_every"),
        "actor": actor,
    }
    made = await one(connection, _REQUEST, values)
    if made is not None and made["requested_at"] is None:
        made = await one(connection, _LOOK, {"id": id})
    return None if made is None else {name: made[name] for name in ("requested_at", "deadline")}


async def lock(connection: AsyncConnection, id: str) -> Record | None:
    """The request, locked until the transaction ends, or None.

    `remaining` is the number of seconds until its deadline, by the database's clock.
    """
    return await one(connection, _LOCK, {"id": id})


async def decisions(connection: AsyncConnection, id: str) -> list[Record]:
    """What was said of the request (`by, decision, comment, form, at`), in the order in which it was recorded."""
    return await many(connection, _DECISIONS, {"id": id})


async def resolve(connection: AsyncConnection, id: str, status: str) -> bool:
    """Give a PENDING request its last status. False if it has one."""
    return bool((await connection.execute(_RESOLVE, {"id": id, "status": status})).rowcount)


async def escalate(connection: AsyncConnection, id: str, deadline: float) -> float:
    """Open the request to those it escalates to, with one fresh deadline in `deadline` seconds; when that is."""
    row = await one(connection, _ESCALATE, {"id": id, "deadline": deadline})
    assert row is not None, "the caller holds the lock on a pending request"
    return float(row["deadline"])
