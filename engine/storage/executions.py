"""Named queries for runs: begin one, read them, move them forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.constraints import violates
from engine.storage.models import (
    ApprovalRequest,
    Blob,
    IdempotencyKey,
    Source,
    TaskAttempt,
    TaskState,
    WorkflowExecution,
)
from engine.storage.rows import Record, many, one

OPEN = ("PENDING", "QUEUED", "RUNNING", "WAITING", "PAUSED")
"""The statuses of a run that has not ended."""

E = WorkflowExecution


@dataclass(frozen=True, slots=True)
class NewRun:
    """The row of a run that begins. `key` is "" if the caller gave no idempotency key."""

    id: str
    source_id: int
    source: str
    workflow: str
    version_id: int
    commit_sha: str
    revision_sha: str
    digest: str
    compiled_digest: str
    bundle_digest: str
    dsl: str
    inputs: Mapping[str, Any]
    title: str
    started_by: str
    created_at: datetime
    key: str = ""
    request_hash: str = ""


# One statement: the row, the key, the intent and the audit in one round trip.
_BEGIN = text("""
    WITH run AS (
        INSERT INTO workflow_executions
               (id, source_id, workflow, version_id, commit_sha, revision_sha, digest, compiled_digest,
                bundle_digest, dsl, inputs, title, started_by, created_at)
        VALUES (:id, :source_id, :workflow, :version_id, :commit_sha, :revision_sha, :digest, :compiled_digest,
                :bundle_digest, :dsl, :inputs, :title, :started_by, :created_at)),
    key AS (
        INSERT INTO idempotency_keys (subject, key, request_hash, execution_id)
        SELECT :started_by, :key, :request_hash, :id WHERE :key <> ''),
    entry AS (
        INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
        VALUES (:started_by, 'execution.requested', :source, :workflow, :id, :commit_sha, :details))
    INSERT INTO outbox (kind, execution_id, body, due_at)
    VALUES ('start', :id, '{}', now() + make_interval(secs => :head_start)) RETURNING id
""").bindparams(
    # Typed by hand: Postgres cannot know what a parameter is that stands in several places.
    *(
        bindparam(name, type_=E.__table__.c.id.type)
        for name in ("id", "workflow", "commit_sha", "started_by")
    ),
    *(bindparam(name, type_=E.__table__.c.id.type) for name in ("key", "request_hash", "source")),
    bindparam("inputs", type_=JSONB),
    bindparam("details", type_=JSONB),
)


class KeyTaken(Exception):
    """The idempotency key is there already; nothing was written."""


async def begin(connection: AsyncConnection, run: NewRun, *, head_start: float) -> int:
    """Write the run, its key, its audit and the intent to start; return the outbox message's id.

    The dispatcher's loop leaves the message alone for `head_start` seconds. Raises `KeyTaken`.
    """
    values = {name: getattr(run, name) for name in NewRun.__slots__}
    values |= {
        "inputs": dict(run.inputs),
        "head_start": head_start,
        "details": {"digest": run.digest, "revision_sha": run.revision_sha},
    }
    with violates("pk_idempotency_keys", KeyTaken):
        return int((await connection.execute(_BEGIN, values)).scalar_one())


async def by_key(connection: AsyncConnection, subject: str, key: str) -> Record | None:
    """The run (`id`, pin columns, `status`) and the `request_hash` that a caller's key led to."""
    query = (
        select(*_SUMMARY, IdempotencyKey.request_hash)
        .join(IdempotencyKey, IdempotencyKey.execution_id == E.id)
        .join(Source, Source.id == E.source_id)
        .where(IdempotencyKey.subject == subject, IdempotencyKey.key == key)
    )
    return await one(connection, query)


async def start_of(connection: AsyncConnection, execution_id: str) -> Record | None:
    """All that a start needs: the pin columns, `inputs`, `title`, `source`, and the compiled form's `size`."""
    size = func.coalesce(
        select(func.length(Blob.content)).where(Blob.digest == E.compiled_digest).scalar_subquery(), 0
    ).label("size")
    query = (
        select(E.__table__, Source.name.label("source"), size)
        .join(Source, Source.id == E.source_id)
        .where(E.id == execution_id)
    )
    return await one(connection, query)


# --- reads ---------------------------------------------------------------------------------------------------

_WAITS = or_(
    exists().where(and_(ApprovalRequest.execution_id == E.id, ApprovalRequest.status == "PENDING")),
    exists().where(and_(TaskState.execution_id == E.id, TaskState.status == "WAITING")),
)
"""An open run of which a task is known to wait: RUNNING in the row, WAITING for the reader."""

_SUMMARY: tuple[ColumnElement[Any], ...] = (
    E.id,
    E.workflow,
    Source.name.label("source"),
    E.version_id,
    E.commit_sha,
    E.revision_sha,
    E.digest,
    E.title,
    E.status,
    and_(E.status == "RUNNING", _WAITS).label("waits"),
    E.started_by,
    E.created_at,
    E.started_at,
    E.finished_at,
    E.error,
)  # type: ignore[assignment]


async def get(connection: AsyncConnection, execution_id: str) -> Record | None:
    """One run with everything in its row, its `source`, and `waits`."""
    query = (
        select(*_SUMMARY, E.compiled_digest, E.bundle_digest, E.dsl, E.inputs, E.outputs)
        .join(Source, Source.id == E.source_id)
        .where(E.id == execution_id)
    )
    return await one(connection, query)


async def lock(connection: AsyncConnection, execution_id: str) -> Record | None:
    """The run's `id, workflow, source, commit_sha, status`, locked until the transaction ends."""
    query = (
        select(E.id, E.workflow, Source.name.label("source"), E.commit_sha, E.status)
        .join(Source, Source.id == E.source_id)
        .where(E.id == execution_id)
        .with_for_update(of=E)
    )
    return await one(connection, query)


def _commit(prefix: str) -> ColumnElement[bool]:
    if len(prefix) == 40:
        return E.commit_sha == prefix
    # A range and not LIKE, so that the index serves it in every collation: "g" comes after all hex digits.
    return and_(E.commit_sha >= prefix, E.commit_sha < literal(prefix + "g"))


def _status(status: str) -> ColumnElement[bool]:
    if status == "WAITING":
        return or_(E.status == "WAITING", and_(E.status == "RUNNING", _WAITS))
    if status == "RUNNING":
        return and_(E.status == "RUNNING", ~_WAITS)
    return E.status == status


async def page(
    connection: AsyncConnection,
    *,
    count: int,
    before: str = "",
    workflow: str = "",
    source: str = "",
    commit_sha: str = "",
    status: str = "",
) -> list[Record]:
    """Up to `count` runs, the newest first, from before the id `before`. `commit_sha` may be a prefix."""
    query: Select[Any] = (
        select(*_SUMMARY).join(Source, Source.id == E.source_id).order_by(E.id.desc()).limit(count)
    )
    if before:
        query = query.where(E.id < before)
    if workflow:
        query = query.where(E.workflow == workflow)
    if source:
        query = query.where(Source.name == source)
    if commit_sha:
        query = query.where(_commit(commit_sha))
    if status:
        query = query.where(_status(status))
    return await many(connection, query)


async def of_commit(connection: AsyncConnection, commit_sha: str, *, count: int) -> list[Record]:
    """Up to `count` runs of versions of this commit, or started while it was the tip; the newest first."""
    query = (
        select(*_SUMMARY)
        .join(Source, Source.id == E.source_id)
        .where(or_(E.commit_sha == commit_sha, E.revision_sha == commit_sha))
        .order_by(E.id.desc())
        .limit(count)
    )
    return await many(connection, query)


async def tasks(connection: AsyncConnection, execution_id: str) -> list[Record]:
    """The task states as last recorded, in the order of the definition."""
    query = (
        select(TaskState.__table__).where(TaskState.execution_id == execution_id).order_by(TaskState.position)
    )
    return await many(connection, query)


async def attempts(connection: AsyncConnection, execution_id: str) -> list[Record]:
    """Every attempt that was recorded, in the order in which they were scheduled."""
    query = (
        select(TaskAttempt.__table__)
        .where(TaskAttempt.execution_id == execution_id)
        .order_by(TaskAttempt.scheduled_at, TaskAttempt.attempt)
    )
    return await many(connection, query)


async def count_open(connection: AsyncConnection) -> dict[str, int]:
    """How many runs are open, by the status in their row."""
    rows = await connection.execute(
        select(E.status, func.count()).where(E.status.in_(OPEN)).group_by(E.status)
    )
    return {row[0]: row[1] for row in rows}


# --- what the reconciler needs ---------------------------------------------------------------------------------


async def open_runs(
    connection: AsyncConnection, *, after: tuple[datetime, str] | None, count: int
) -> list[Record]:
    """Up to `count` open runs (`id, status, created_at, started_at, checked_at`), the oldest first."""
    query = (
        select(E.id, E.status, E.created_at, E.started_at, E.checked_at)
        .where(E.status.in_(OPEN))
        .order_by(E.created_at, E.id)
        .limit(count)
    )
    if after is not None:
        query = query.where(tuple_(E.created_at, E.id) > tuple_(literal(after[0]), literal(after[1])))
    return await many(connection, query)


_END = text("""
    WITH run AS (
        UPDATE workflow_executions e
           SET status = :status, outputs = :outputs, error = :error,
               started_at = COALESCE(e.started_at, e.created_at),
               finished_at = COALESCE(CAST(:finished_at AS timestamptz), now())
         WHERE e.id = :id AND e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
     RETURNING e.id, e.workflow, e.commit_sha, e.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, :action, s.name, run.workflow, run.id, run.commit_sha, :details
      FROM run JOIN sources s ON s.id = run.source_id RETURNING id
""").bindparams(
    *(bindparam(name, type_=JSONB(none_as_null=True)) for name in ("outputs", "error", "details"))
)


async def end(
    connection: AsyncConnection,
    execution_id: str,
    *,
    status: str,
    outputs: Any,
    error: Mapping[str, Any] | None,
    finished_at: datetime | None,
    actor: str,
    action: str,
    details: Mapping[str, Any],
) -> bool:
    """End an open run, with its audit row; False if it has ended already."""
    values = {
        "id": execution_id,
        "status": status,
        "outputs": outputs,
        "error": None if error is None else dict(error),
        "finished_at": finished_at,
        "actor": actor,
        "action": action,
        "details": dict(details),
    }
    return (await connection.execute(_END, values)).one_or_none() is not None


_CLOSE_APPROVALS = text("""
    WITH closed AS (
        UPDATE approval_requests SET status = 'CANCELLED', resolved_at = now()
         WHERE execution_id = :id AND status = 'PENDING' RETURNING id, task, workflow, execution_id, commit_sha)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, 'approval.cancelled', s.name, closed.workflow, closed.execution_id, closed.commit_sha,
           jsonb_build_object('approval_id', closed.id, 'task', closed.task, 'why', 'the run has ended')
      FROM closed JOIN workflow_executions e ON e.id = closed.execution_id JOIN sources s ON s.id = e.source_id
""")


async def close_approvals(connection: AsyncConnection, execution_id: str, *, actor: str) -> None:
    """Nobody can decide for a run that has ended: close what it still asks for, audited."""
    await connection.execute(_CLOSE_APPROVALS, {"id": execution_id, "actor": actor})


async def checked(connection: AsyncConnection, execution_ids: Sequence[str]) -> None:
    """Note that these runs were compared with Temporal just now."""
    await connection.execute(
        text("UPDATE workflow_executions SET checked_at = now() WHERE id = ANY(:ids)"),
        {"ids": list(execution_ids)},
    )


_TASKS = text("""
    INSERT INTO task_states (execution_id, task, position, status, skip_reason, attempts, started_at, finished_at,
                             outputs, error)
    SELECT e.id, :task, :position, :status, :skip_reason, :attempts, to_timestamp(:started_at),
           to_timestamp(:finished_at), :outputs, :error
      FROM workflow_executions e
     WHERE e.id = :execution_id AND e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
    ON CONFLICT (execution_id, task) DO UPDATE
       SET status = EXCLUDED.status, skip_reason = EXCLUDED.skip_reason, attempts = EXCLUDED.attempts,
           started_at = EXCLUDED.started_at, finished_at = EXCLUDED.finished_at,
           outputs = EXCLUDED.outputs, error = EXCLUDED.error
     WHERE task_states.status NOT IN ('COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED')
""").bindparams(*(bindparam(name, type_=JSONB(none_as_null=True)) for name in ("outputs", "error")))


async def refresh_tasks(
    connection: AsyncConnection, execution_id: str, tasks_: Sequence[Mapping[str, Any]]
) -> None:
    """Note how the tasks of an open run stand. Task rows move forward only; a run that has ended keeps its last word."""
    if tasks_:
        await connection.execute(_TASKS, [dict(task, execution_id=execution_id) for task in tasks_])


_LOST_STARTS = text("""
    INSERT INTO outbox (kind, execution_id, body)
    SELECT 'start', e.id, '{}' FROM workflow_executions e
     WHERE e.status = 'PENDING' AND e.created_at < now() - make_interval(secs => :age)
       AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.execution_id = e.id AND o.kind = 'start')
    RETURNING execution_id
""")


async def start_again(connection: AsyncConnection, *, age: float) -> list[str]:
    """A new start message for every PENDING run older than `age` seconds that has none; their ids."""
    return list((await connection.execute(_LOST_STARTS, {"age": age})).scalars())
