"""Named queries for the last step of a run: how it ended, written once and whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from engine.storage import slots, task_states
from engine.storage.database import Connection, Database
from engine.storage.json_text import dumps


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The end of a run. `tasks` are those of the run's snapshot, in order; times are seconds since the epoch."""

    execution_id: str
    status: str
    outputs: Any
    error: Mapping[str, Any] | None
    tasks: Sequence[Mapping[str, Any]]
    finished_at: float


# One statement, so that a run's end costs one round trip. Every part hangs on `run`: where the row has ended already
# (a repeat, or the reconciler was first), nothing at all is written. Slots are given back before it, as that serves others.
_FINISH = f"""
    WITH run AS (
        UPDATE workflow_executions e
           SET status = $2::text, outputs = $3::jsonb, error = $4::jsonb,
               started_at = COALESCE(e.started_at, e.created_at),
               finished_at = to_timestamp(CAST($5 AS double precision))
         WHERE e.id = $1::text AND e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
           AND NOT EXISTS (SELECT FROM slots WHERE execution_id = $1::text)
     RETURNING e.id, e.workflow, e.commit_sha, e.source_id, e.finished_at),
    tasks AS (
        INSERT INTO task_states (execution_id, task, position, status, skip_reason, attempts, started_at,
                                 finished_at, outputs, error, more)
        SELECT run.id, t.id, t.position, t.status, COALESCE(t.skip_reason, ''), COALESCE(t.attempts, 0),
               to_timestamp(t.started_at), to_timestamp(t.finished_at), t.outputs, t.error, t.more
          FROM run, jsonb_to_recordset($6::jsonb) {task_states.COLUMNS}
        ON CONFLICT (execution_id, task) DO UPDATE
           SET position = excluded.position, status = excluded.status, skip_reason = excluded.skip_reason,
               attempts = excluded.attempts, started_at = excluded.started_at,
               finished_at = excluded.finished_at, outputs = excluded.outputs, error = excluded.error,
               more = excluded.more),
    closed AS (
        UPDATE approval_requests a SET status = 'CANCELLED', resolved_at = now()
          FROM run WHERE a.execution_id = run.id AND a.status = 'PENDING'
     RETURNING a.id, a.task),
    said AS (
        INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
        SELECT $8::text, 'approval.cancelled', s.name, run.workflow, run.id, run.commit_sha,
               jsonb_build_object('approval_id', closed.id, 'task', closed.task)
          FROM closed, run JOIN sources s ON s.id = run.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT $8::text, 'execution.' || lower($2::text), s.name, run.workflow, run.id, run.commit_sha, $7::jsonb
      FROM run JOIN sources s ON s.id = run.source_id
 RETURNING commit_sha
"""


async def finish(database: Database, record: RunRecord, *, actor: str) -> tuple[str, list[str]]:
    """Record the end of a run: its row, its tasks, its open approvals, the audit, and that its slots are free.

    Gives the commit SHA that it ran ("" if it had ended already), and the runs that have a slot now.
    """
    tasks = task_states.as_json(record.tasks)
    if len(tasks) <= task_states.BATCH:
        async with database.direct() as driver:
            commit_sha = await driver.fetchval(_FINISH, *_values(record, tasks, actor))
        if commit_sha:
            return commit_sha, []
    return await _finish_at_length(database, record, tasks, actor)


async def _finish_at_length(
    database: Database, record: RunRecord, tasks: list[dict[str, Any]], actor: str
) -> tuple[str, list[str]]:
    """The same for a run with slots, or with more tasks than one statement should carry: in one transaction."""
    async with database.begin() as connection:
        if not await _locked(connection, record.execution_id):
            return "", []
        told = await slots.give_back(connection, record.execution_id)
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        first, rest = tasks[: task_states.BATCH], tasks[task_states.BATCH :]
        commit_sha = await driver.fetchval(_FINISH, *_values(record, first, actor))
        await task_states.note(connection, record.execution_id, rest, ended=True)
    return commit_sha or "", told


_LOCK = text("""
    SELECT id FROM workflow_executions
     WHERE id = :id AND status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED') FOR UPDATE
""")


async def _locked(connection: Connection, execution_id: str) -> bool:
    return (await connection.execute(_LOCK, {"id": execution_id})).one_or_none() is not None


def _values(record: RunRecord, tasks: list[dict[str, Any]], actor: str) -> tuple[Any, ...]:
    error = record.error
    return (
        record.execution_id,
        record.status,
        None if record.outputs is None else dumps(record.outputs),
        None if error is None else dumps(dict(error)),
        record.finished_at,
        dumps(tasks),
        dumps({} if error is None else {"error": {k: error.get(k) for k in ("type", "message", "task")}}),
        actor,
    )
