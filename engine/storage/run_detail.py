"""Named queries for a look at one run: all of it in one round trip, and its tasks page by page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from engine.storage.database import Database
from engine.storage.models import TaskState
from engine.storage.rows import Record, many

MANY = 1000
"""Tasks of a run that are shown with it; of more, the inner ones are left to their own pages."""
LISTED = 100
"""Children, reruns and signals that are shown with a run."""

T = TaskState

_ATTEMPT = """json_build_object(
    'attempt', a.attempt, 'status', a.status, 'scheduled_at', a.scheduled_at, 'started_at', a.started_at,
    'finished_at', a.finished_at, 'worker', a.worker, 'error', a.error)"""
_FIELDS = f"""
    'id', t.task, 'status', t.status, 'skip_reason', t.skip_reason, 'attempts', t.attempts,
    'started_at', t.started_at, 'finished_at', t.finished_at, 'outputs', t.outputs, 'error', t.error,
    'attempt_log', (SELECT COALESCE(json_agg({_ATTEMPT} ORDER BY a.scheduled_at, a.attempt), '[]')
                      FROM task_attempts a WHERE a.execution_id = t.execution_id AND a.task = t.task)"""
# Most tasks have nothing more, and `jsonb` is several times dearer to build.
_TASK = f"""CASE WHEN t.more IS NULL THEN json_build_object({_FIELDS})
                 ELSE CAST(jsonb_build_object({_FIELDS}) || t.more AS json) END"""
_SHORT = """'id', c.id, 'workflow', c.workflow, 'commit_sha', c.commit_sha, 'status', c.status,
    'created_at', c.created_at, 'started_at', c.started_at, 'finished_at', c.finished_at, 'error', c.error"""


def _outer(column: str) -> str:
    """Whether an address is that of a task of the workflow itself, not of one inside of another."""
    return f"strpos({column}, '.') = 0 AND strpos({column}, '[') = 0"


_STATUS = """CASE WHEN e.status = 'RUNNING' AND EXISTS (
    SELECT FROM slots q WHERE q.execution_id = e.id AND q.task = '' AND q.held_since IS NULL) THEN 'QUEUED' ELSE e.status END"""
# The whole of a run in one round trip, as the JSON text that a reader gets: a run that has ended is passed on as it is.
# The fourth column says whether relatives may be found, the fifth whether these are all of its tasks.
_DETAIL = f"""
    SELECT e.status, json_build_object(
           'id', e.id, 'workflow', e.workflow, 'source', s.name, 'version_id', e.version_id,
           'commit_sha', e.commit_sha, 'revision_sha', e.revision_sha, 'digest', e.digest,
           'signer', COALESCE((SELECT r.signer FROM revisions r WHERE r.source_id = e.source_id AND r.sha = e.commit_sha
                                AND r.status = 'REGISTERED' ORDER BY r.seq LIMIT 1), ''),
           'bundle_digest', e.bundle_digest, 'closure', e.closure, 'title', e.title, 'status', {_STATUS}, 'live', false,
           'started_by', e.started_by, 'created_at', e.created_at, 'started_at', e.started_at,
           'finished_at', e.finished_at, 'inputs', e.inputs, 'targets', e.targets, 'trigger', e.trigger,
           'outputs', e.outputs, 'error', e.error,
           'parent_id', e.parent_id, 'parent_task', e.parent_task, 'root_id', e.root_id, 'rerun_of', e.rerun_of,
           'waiting', '[]'::json, 'tasks', tasks.shown, 'task_count', tasks.count,
           'approvals', (SELECT COALESCE(json_agg(json_build_object(
                       'id', r.id, 'task', r.task, 'status', r.status, 'message', r.message,
                       'requested_at', r.requested_at, 'deadline_at', r.deadline_at, 'resolved_at', r.resolved_at,
                       'decisions', (SELECT COALESCE(json_agg(json_build_object(
                                                'by', d.by, 'decision', d.decision, 'comment', d.comment,
                                                'form', d.form, 'at', d.at) ORDER BY d.position), '[]')
                                       FROM approval_decisions d WHERE d.approval_id = r.id))
                       ORDER BY r.requested_at, r.id), '[]')
              FROM approval_requests r WHERE r.execution_id = e.id))::text,
           CASE WHEN e.finished_at IS NULL THEN
               (SELECT json_object_agg(log.task, log.attempts)
                  FROM (SELECT a.task, json_agg({_ATTEMPT} ORDER BY a.scheduled_at, a.attempt) AS attempts
                          FROM task_attempts a
                         WHERE a.execution_id = e.id
                           AND ({_outer("a.task")} OR (SELECT count(*) FROM (SELECT FROM task_attempts
                                   WHERE execution_id = e.id LIMIT {MANY} + 1) few) <= {MANY})
                         GROUP BY a.task) log)::text END,
           e.callback_key IS NOT NULL
               OR EXISTS (SELECT FROM workflow_executions c WHERE c.parent_id = e.id AND c.parent_id <> '')
               OR EXISTS (SELECT FROM workflow_executions c WHERE c.rerun_of = e.id AND c.rerun_of <> ''),
           tasks.count <= {MANY}
      FROM workflow_executions e JOIN sources s ON s.id = e.source_id
      CROSS JOIN LATERAL (
           SELECT count(*) AS count, COALESCE(json_agg({_TASK} ORDER BY t.position, t.task), '[]') AS shown
             FROM (SELECT * FROM task_states WHERE execution_id = e.id LIMIT {MANY} + 1) t) tasks
     WHERE e.id = $1
"""
_OUTER_TASKS = f"""
    SELECT COALESCE(json_agg({_TASK} ORDER BY t.position, t.task), '[]')::text, (
               SELECT count(*) FROM task_states WHERE execution_id = $1)
      FROM task_states t WHERE t.execution_id = $1 AND {_outer("t.task")}
"""
_RELATIVES = f"""
    SELECT (SELECT json_agg(json_build_object('task', c.parent_task, {_SHORT}) ORDER BY c.created_at, c.id)
              FROM (SELECT * FROM workflow_executions WHERE parent_id = $1 AND parent_id <> ''
                     ORDER BY created_at DESC, id DESC LIMIT {LISTED}) c)::text,
           (SELECT json_agg(json_build_object({_SHORT}) ORDER BY c.id)
              FROM (SELECT * FROM workflow_executions WHERE rerun_of = $1 AND rerun_of <> ''
                     ORDER BY id DESC LIMIT {LISTED}) c)::text,
           (SELECT json_agg(json_build_object(
                       'id', g.id, 'name', g.name, 'correlation', g.correlation, 'task', g.task, 'by', g.by, 'at', g.at)
                       ORDER BY g.at, g.id)
              FROM (SELECT * FROM signals WHERE execution_id = $1 ORDER BY at DESC, id DESC LIMIT {LISTED}) g)::text
"""


async def detail(database: Database, execution_id: str) -> tuple[str, str, str] | None:
    """A run's status, all of it as JSON text (tasks with their `attempt_log`), and, of an open one, its attempts by task."""
    async with database.direct() as driver:
        row = await driver.fetchrow(_DETAIL, execution_id)
        if row is None:
            return None
        status, text, attempts, has_relatives, is_all = row
        if not is_all:
            outer = await driver.fetchrow(_OUTER_TASKS, execution_id)
            assert outer is not None, "an aggregate has a row"
            text = json.dumps(json.loads(text) | {"tasks": json.loads(outer[0]), "task_count": outer[1]})
        relatives = await driver.fetchrow(_RELATIVES, execution_id) if has_relatives else None
    children, reruns, signals = (each or "[]" for each in relatives or (None, None, None))
    # The parts are JSON already: put together as text, as most runs have none of them.
    whole = f'{text[:-1]}, "children": {children}, "reruns": {reruns}, "signals": {signals}}}'
    return status, whole, attempts or "{}"


# --- tasks -----------------------------------------------------------------------------------------------------

_PAGE = text(
    f"""
    SELECT t.task, t.position, {_TASK} AS shown FROM task_states t
     WHERE t.execution_id = :execution_id AND (t.position, t.task) > (:position, :task)
       AND (:under = '' OR starts_with(t.task, :under || '.') OR starts_with(t.task, :under || '['))
       AND (:status = '' OR t.status = :status)
     ORDER BY t.position, t.task LIMIT :count
    """
)
_SOME = text(
    f"""
    SELECT t.task, {_TASK} AS shown FROM task_states t
     WHERE t.execution_id = :execution_id AND t.task = ANY(:tasks)
    """
).bindparams(bindparam("tasks", type_=ARRAY(Text)))
_ATTEMPTS = text(
    f"""
    SELECT a.task, json_agg({_ATTEMPT} ORDER BY a.scheduled_at, a.attempt) AS attempts FROM task_attempts a
     WHERE a.execution_id = :execution_id AND a.task = ANY(:tasks) GROUP BY a.task
    """
).bindparams(bindparam("tasks", type_=ARRAY(Text)))


async def task_page(
    connection: AsyncConnection,
    execution_id: str,
    *,
    count: int,
    after: tuple[int, str] = (-1, ""),
    under: str = "",
    status: str = "",
) -> list[Record]:
    """Up to `count` recorded tasks (`task, position`, and `shown` as in the detail) after a (position, task).

    `under` is the address of a composite, or of one item of it, whose inner tasks are asked for.
    """
    values = {
        "execution_id": execution_id,
        "count": count,
        "position": after[0],
        "task": after[1],
        "under": under,
        "status": status,
    }
    return await many(connection, _PAGE, values)


async def task_index(connection: AsyncConnection, execution_id: str) -> list[tuple[str, str]]:
    """Address and status of every recorded task, in order."""
    query = select(T.task, T.status).where(T.execution_id == execution_id).order_by(T.position, T.task)
    return [(row.task, row.status) for row in await connection.execute(query)]


async def some_tasks(
    connection: AsyncConnection, execution_id: str, tasks: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Recorded tasks as in the detail, by address."""
    rows = await many(connection, _SOME, {"execution_id": execution_id, "tasks": list(tasks)})
    return {row["task"]: row["shown"] for row in rows}


async def attempts(
    connection: AsyncConnection, execution_id: str, tasks: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Recorded attempts by task."""
    rows = await many(connection, _ATTEMPTS, {"execution_id": execution_id, "tasks": list(tasks)})
    return {row["task"]: row["attempts"] for row in rows}


async def all_tasks(connection: AsyncConnection, execution_id: str) -> list[Record]:
    """Every recorded task, whole, in order."""
    query = select(T.__table__).where(T.execution_id == execution_id).order_by(T.position, T.task)
    return await many(connection, query)
