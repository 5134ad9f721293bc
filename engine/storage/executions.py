"""Named queries for runs: begin one, read them, move them forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Select,
    Text,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.constraints import violates
from engine.storage.models import (
    ApprovalRequest,
    Blob,
    IdempotencyKey,
    Source,
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
    started_by: str = "",
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
    if started_by:
        query = query.where(E.started_by == started_by)
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


async def count_open(connection: AsyncConnection) -> dict[str, int]:
    """How many runs are open, by the status in their row."""
    rows = await connection.execute(
        select(E.status, func.count()).where(E.status.in_(OPEN)).group_by(E.status)
    )
    return {row[0]: row[1] for row in rows}


# The whole of a run in one round trip.
_DETAIL = text("""
    SELECT e.id, e.workflow, s.name AS source, e.version_id, e.commit_sha, e.revision_sha, e.digest,
           e.bundle_digest, e.title, e.status, e.started_by, e.created_at, e.started_at, e.finished_at,
           e.inputs, e.outputs, e.error,
           (SELECT jsonb_agg(jsonb_build_object(
                       'id', t.task, 'status', t.status, 'skip_reason', t.skip_reason, 'attempts', t.attempts,
                       'started_at', t.started_at, 'finished_at', t.finished_at,
                       'outputs', t.outputs, 'error', t.error) ORDER BY t.position)
              FROM task_states t WHERE t.execution_id = e.id) AS tasks,
           (SELECT jsonb_agg(jsonb_build_object(
                       'task', a.task, 'attempt', a.attempt, 'status', a.status, 'scheduled_at', a.scheduled_at,
                       'started_at', a.started_at, 'finished_at', a.finished_at, 'worker', a.worker,
                       'error', a.error) ORDER BY a.scheduled_at, a.attempt)
              FROM task_attempts a WHERE a.execution_id = e.id) AS attempts,
           (SELECT jsonb_agg(jsonb_build_object(
                       'id', r.id, 'task', r.task, 'status', r.status, 'message', r.message,
                       'requested_at', r.requested_at, 'deadline_at', r.deadline_at, 'resolved_at', r.resolved_at,
                       'decisions', (SELECT COALESCE(jsonb_agg(jsonb_build_object(
                                                'by', d.by, 'decision', d.decision, 'comment', d.comment,
                                                'form', d.form, 'at', d.at) ORDER BY d.position), '[]')
                                       FROM approval_decisions d WHERE d.approval_id = r.id))
                       ORDER BY r.requested_at, r.id)
              FROM approval_requests r WHERE r.execution_id = e.id) AS approvals
      FROM workflow_executions e JOIN sources s ON s.id = e.source_id
     WHERE e.id = :id
""").columns(
    **dict.fromkeys(
        (
            *("id", "workflow", "source", "commit_sha", "revision_sha", "digest", "bundle_digest"),
            *("title", "status", "started_by"),
        ),
        Text(),
    ),
    **dict.fromkeys(("created_at", "started_at", "finished_at"), DateTime(timezone=True)),
    **dict.fromkeys(("inputs", "outputs", "error", "tasks", "attempts", "approvals"), JSONB()),
    version_id=BigInteger(),
)


async def detail(connection: AsyncConnection, execution_id: str) -> Record | None:
    """A run with its `tasks`, `attempts` and `approvals` (None where there are none); their times are RFC 3339 text."""
    return await one(connection, _DETAIL, {"id": execution_id})
