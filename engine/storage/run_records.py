"""Named query for the last step of a run: how it ended, written once and whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The end of a run. `tasks` are those of the run's snapshot, in order; times are seconds since the epoch."""

    execution_id: str
    status: str
    outputs: Any
    error: Mapping[str, Any] | None
    tasks: Sequence[Mapping[str, Any]]
    finished_at: float


# One statement, so that a run's end costs one round trip between BEGIN and COMMIT. Every part hangs on `run`: where
# the row has ended already (a repeat, or the reconciler was first), nothing at all is written.
_FINISH = text("""
    WITH run AS (
        UPDATE workflow_executions e
           SET status = :status, outputs = :outputs, error = :error,
               started_at = COALESCE(e.started_at, e.created_at),
               finished_at = to_timestamp(CAST(:finished_at AS double precision))
         WHERE e.id = :id AND e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
     RETURNING e.id, e.workflow, e.commit_sha, e.source_id, e.finished_at),
    tasks AS (
        INSERT INTO task_states (execution_id, task, position, status, skip_reason, attempts, started_at,
                                 finished_at, outputs, error)
        SELECT run.id, t.id, t.position, t.status, COALESCE(t.skip_reason, ''), COALESCE(t.attempts, 0),
               to_timestamp(t.started_at), to_timestamp(t.finished_at), t.outputs, t.error
          FROM run, jsonb_to_recordset(:tasks)
            AS t (id text, position int, status text, skip_reason text, attempts int,
                  started_at double precision, finished_at double precision, outputs jsonb, error jsonb)
        ON CONFLICT (execution_id, task) DO UPDATE
           SET position = excluded.position, status = excluded.status, skip_reason = excluded.skip_reason,
               attempts = excluded.attempts, started_at = excluded.started_at,
               finished_at = excluded.finished_at, outputs = excluded.outputs, error = excluded.error),
    closed AS (
        UPDATE approval_requests a SET status = 'CANCELLED', resolved_at = now()
          FROM run WHERE a.execution_id = run.id AND a.status = 'PENDING'
     RETURNING a.id, a.task),
    said AS (
        INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
        SELECT :actor, 'approval.cancelled', s.name, run.workflow, run.id, run.commit_sha,
               jsonb_build_object('approval_id', closed.id, 'task', closed.task)
          FROM closed, run JOIN sources s ON s.id = run.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, 'execution.' || lower(:status), s.name, run.workflow, run.id, run.commit_sha, :details
      FROM run JOIN sources s ON s.id = run.source_id
 RETURNING commit_sha
""").bindparams(
    *(bindparam(name, type_=JSONB(none_as_null=True)) for name in ("outputs", "error", "tasks", "details"))
)


async def finish(connection: AsyncConnection, record: RunRecord, *, actor: str) -> str:
    """Record the end of a run: its row, its tasks, its open approvals, the audit.

    Returns the commit SHA that it ran, "" if it had ended already.
    """
    error = record.error
    values = {
        "id": record.execution_id,
        "status": record.status,
        "outputs": record.outputs,
        "error": None if error is None else dict(error),
        "finished_at": record.finished_at,
        "tasks": [dict(task, position=position) for position, task in enumerate(record.tasks)],
        "details": {} if error is None else {"error": {k: error.get(k) for k in ("type", "message", "task")}},
        "actor": actor,
    }
    return (await connection.execute(_FINISH, values)).scalar_one_or_none() or ""
