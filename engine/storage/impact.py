"""Named queries for what a change of a definition would meet: open runs, parents, and recorded runs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.rows import Record, many

_OPEN_RUNS = text(
    """
    SELECT e.commit_sha, e.status, count(*) AS count, min(e.created_at) AS oldest
    FROM workflow_executions e
    WHERE e.source_id = :source_id AND e.workflow = :workflow
      AND e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
    GROUP BY e.commit_sha, e.status ORDER BY min(e.created_at)
    """
)


async def open_runs(connection: AsyncConnection, source_id: int, workflow: str) -> list[Record]:
    """Open runs of a workflow by commit and status: `commit_sha, status, count, oldest`."""
    return await many(connection, _OPEN_RUNS, {"source_id": source_id, "workflow": workflow})


# The compiled form is canonical JSON, so that a child's name stands in it in one way only.
_PARENTS = text(
    """
    SELECT DISTINCT d.name
    FROM workflow_definitions d
    JOIN workflow_versions v ON v.id = d.live_version_id
    JOIN blobs b ON b.digest = v.compiled_digest
    WHERE d.source_id = :source_id AND d.name <> :workflow
      AND position(convert_to(:needle, 'UTF8') IN b.content) > 0
    ORDER BY d.name LIMIT 200
    """
)


async def parents(connection: AsyncConnection, source_id: int, workflow: str) -> list[str]:
    """Live workflows of the source that start `workflow` as a child by its name."""
    values = {"source_id": source_id, "workflow": workflow, "needle": f'"workflow":"{workflow}"'}
    return [row["name"] for row in await many(connection, _PARENTS, values)]


_RECORDED = text(
    """
    SELECT e.id, e.commit_sha, e.compiled_digest, e.status, e.inputs, e.started_by, e.trigger, e.targets,
           EXTRACT(EPOCH FROM COALESCE(e.started_at, e.created_at))::float8 AS started_at,
           COALESCE((SELECT min(r.author_email) FROM revisions r
                      WHERE r.source_id = e.source_id AND r.sha = e.commit_sha), '') AS commit_author
    FROM workflow_executions e
    WHERE e.source_id = :source_id AND e.workflow = :workflow
      AND e.status IN ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT')
    ORDER BY e.id DESC LIMIT :count
    """
)
_TASKS = text(
    """
    SELECT execution_id, task, status, attempts, EXTRACT(EPOCH FROM started_at)::float8 AS started_at,
           EXTRACT(EPOCH FROM finished_at)::float8 AS finished_at, outputs, error,
           COALESCE(more ->> 'cached_from', '') <> '' AS cached,
           COALESCE(more ->> 'compensation', '') AS compensation
    FROM task_states WHERE execution_id = ANY(:runs) ORDER BY execution_id, position
    """
).bindparams(bindparam("runs", type_=ARRAY(Text)))
# Of a worker that was killed the same attempt stands twice: the later one counts.
_ATTEMPTS = text(
    """
    SELECT DISTINCT ON (execution_id, task, attempt) execution_id, task, attempt, status, error,
           GREATEST(EXTRACT(EPOCH FROM finished_at - started_at), 0)::float8 AS seconds
    FROM task_attempts WHERE execution_id = ANY(:runs) AND phase = 1
    ORDER BY execution_id, task, attempt, scheduled_at DESC
    """
).bindparams(bindparam("runs", type_=ARRAY(Text)))
_SIGNALS = text(
    """
    SELECT s.execution_id, s.name, s.task, s.correlation, s.payload, s.by,
           GREATEST(EXTRACT(EPOCH FROM s.at - COALESCE(e.started_at, e.created_at)), 0)::float8 AS after
    FROM signals s JOIN workflow_executions e ON e.id = s.execution_id
    WHERE s.execution_id = ANY(:runs) ORDER BY s.at
    """
).bindparams(bindparam("runs", type_=ARRAY(Text)))
# A second request skips the clean-up; what was asked first is what ended the run.
_CANCELS = text(
    """
    SELECT DISTINCT ON (a.execution_id) a.execution_id, a.actor AS by, COALESCE(a.details ->> 'reason', '') AS reason,
           GREATEST(EXTRACT(EPOCH FROM a.at - COALESCE(e.started_at, e.created_at)), 0)::float8 AS after
    FROM audit a JOIN workflow_executions e ON e.id = a.execution_id
    WHERE a.execution_id = ANY(:runs) AND a.action = 'execution.cancel_requested'
    ORDER BY a.execution_id, a.id
    """
).bindparams(bindparam("runs", type_=ARRAY(Text)))
_VOTES = text(
    """
    SELECT a.execution_id, a.task, d.by, d.decision, d.comment, d.form,
           GREATEST(EXTRACT(EPOCH FROM d.at - a.requested_at), 0)::float8 AS after
    FROM approval_decisions d JOIN approval_requests a ON a.id = d.approval_id
    WHERE a.execution_id = ANY(:runs) ORDER BY d.position
    """
).bindparams(bindparam("runs", type_=ARRAY(Text)))


_OF_RUNS = (
    ("tasks", _TASKS), ("attempts", _ATTEMPTS), ("votes", _VOTES), ("signals", _SIGNALS), ("cancels", _CANCELS),
)  # fmt: skip


async def recorded_runs(
    connection: AsyncConnection, source_id: int, workflow: str, *, count: int
) -> list[Record]:
    """The newest runs that have ended, with `tasks`, `attempts`, `votes`, `signals` and `cancels`, each a list of rows."""
    runs = await many(connection, _RECORDED, {"source_id": source_id, "workflow": workflow, "count": count})
    ids = [run["id"] for run in runs]
    for name, query in _OF_RUNS:
        by_run = _by_run(await many(connection, query, {"runs": ids}) if ids else [])
        for run in runs:
            run[name] = by_run.get(run["id"], [])
    return runs


def _by_run(rows: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for row in rows:
        found.setdefault(row["execution_id"], []).append(row)
    return found
