"""Named queries for runs: begin one, read them, move them forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.database import Database
from engine.storage.json_text import clean_text, dumps
from engine.storage.models import (
    ApprovalRequest,
    Blob,
    IdempotencyKey,
    Revision,
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
    """The row of a run that begins. `key` is "" if the caller gave no idempotency key.

    `live_seq` is the number of the revision that the pin was taken at. `details` are those of the audit row.
    """

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
    live_seq: int = 0
    calls: Mapping[str, str] = field(default_factory=dict)
    closure: Mapping[str, Any] = field(default_factory=dict)
    targets: Sequence[str] = ()
    trigger: Any = None
    rerun_of: str = ""
    carried: Mapping[str, Any] | None = None
    callback_key: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


# One statement, and so one round trip and all or nothing: the row, the key, the audit and the intent.
_ROW = """
    INSERT INTO workflow_executions
           (id, source_id, workflow, version_id, commit_sha, revision_sha, digest, compiled_digest, bundle_digest,
            dsl, inputs, title, started_by, created_at, calls, closure, targets, trigger, rerun_of, carried, callback_key)
    SELECT $1::text, $2::int, $3::text, $4::bigint, $5::text, $6::text, $7::text, $8::text, $9::text,
           $10::text, $11::jsonb, $12::text, $13::text, $14::timestamptz, $20::jsonb, $21::jsonb, $22::text[],
           $23::jsonb, $24::text, $25::jsonb, $26::text
"""
_REST = """
    key AS (
        INSERT INTO idempotency_keys (subject, key, request_hash, execution_id)
        SELECT $13, $15::text, $16::text, run.id FROM run WHERE $15 <> ''),
    entry AS (
        INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
        SELECT $13, 'execution.requested', $17::text, $3, run.id, $5, $18::jsonb FROM run)
    INSERT INTO outbox (kind, execution_id, body, due_at)
    SELECT 'start', run.id, '{}', now() + make_interval(secs => $19) FROM run RETURNING id
"""
_BEGIN = f"WITH run AS ({_ROW} RETURNING id), {_REST}"
_BEGIN_IF_LIVE = f"""
    WITH run AS ({_ROW}
          FROM workflow_definitions d JOIN sources s ON s.id = d.source_id
         WHERE d.source_id = $2 AND d.name = $3 AND d.live_version_id = $4
           AND s.live_sha = $6 AND s.live_seq = $27::bigint
           AND (NOT $28::boolean OR NOT EXISTS (
                    SELECT FROM workflow_definitions o
                     WHERE o.name = $3 AND o.source_id <> $2 AND o.live_version_id IS NOT NULL))
        RETURNING id), {_REST}
"""


class KeyTaken(Exception):
    """The idempotency key is there already; nothing was written."""


async def begin(
    database: Database, run: NewRun, *, head_start: float, if_live: bool = False, if_only: bool = False
) -> int | None:
    """Write the run, its key, its audit and the intent to start; the outbox message's id.

    With `if_live`, only if the revision of the pin is still the live one (and all that the run may start with it), and with `if_only` if no other source has a live definition
    of the name: else None, and nothing is written.  The dispatcher's loop leaves the message alone for `head_start`
    seconds.  Raises `KeyTaken`.
    """
    values = (
        *(run.id, run.source_id, run.workflow, run.version_id, run.commit_sha, run.revision_sha),
        *(
            run.digest,
            run.compiled_digest,
            run.bundle_digest,
            run.dsl,
            dumps(run.inputs),
            clean_text(run.title),
        ),
        *(run.started_by, run.created_at, run.key, run.request_hash, run.source),
        dumps({"digest": run.digest, "revision_sha": run.revision_sha, **run.details}),
        head_start,
        *(dumps(run.calls), dumps(run.closure), list(run.targets), _or_null(run.trigger), run.rerun_of),
        *(_or_null(run.carried), run.callback_key),
    )
    try:
        async with database.direct() as driver:
            if if_live:
                made = await driver.fetchval(_BEGIN_IF_LIVE, *values, run.live_seq, if_only)
            else:
                made = await driver.fetchval(_BEGIN, *values)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "pk_idempotency_keys":
            raise KeyTaken(run.key) from error
        raise
    return None if made is None else int(made)


def _or_null(value: Any) -> str | None:
    return None if value is None else dumps(value)


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
_SHOWN_STATUS = case((and_(E.status == "RUNNING", _WAITS), "WAITING"), else_=E.status)

# Who signed the commit that brought the run's version, if its source asked for signatures.
_SIGNER = func.coalesce(
    select(Revision.signer)
    .where(Revision.source_id == E.source_id, Revision.sha == E.commit_sha, Revision.status == "REGISTERED")
    .order_by(Revision.seq)
    .limit(1)
    .scalar_subquery(),
    literal(""),
).label("signer")

_SUMMARY: tuple[ColumnElement[Any], ...] = (
    E.id,
    E.workflow,
    Source.name.label("source"),
    E.version_id,
    E.commit_sha,
    E.revision_sha,
    E.digest,
    _SIGNER,
    E.title,
    _SHOWN_STATUS.label("status"),
    E.started_by,
    E.created_at,
    E.started_at,
    E.finished_at,
    E.error,
    E.parent_id,
    E.parent_task,
    E.root_id,
    E.rerun_of,
)  # type: ignore[assignment]


async def lock(connection: AsyncConnection, execution_id: str) -> Record | None:
    """The run's row with its `source`, locked until the transaction ends."""
    query = (
        select(E.__table__, Source.name.label("source"))
        .join(Source, Source.id == E.source_id)
        .where(E.id == execution_id)
        .with_for_update(of=E)
    )
    return await one(connection, query)


async def status_of(connection: AsyncConnection, execution_id: str) -> str | None:
    """The status of a run as readers see it, None if there is no such run."""
    return (await connection.execute(select(_SHOWN_STATUS).where(E.id == execution_id))).scalar_one_or_none()


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
    parent: str = "",
    root: str = "",
    rerun_of: str = "",
) -> list[Record]:
    """Up to `count` runs, the newest first, from before the id `before`. `commit_sha` may be a prefix.

    `root` means all runs below one, however deep; not itself.
    """
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
    # The indexes hold no empty values, which the planner must be told.
    for column, value in ((E.parent_id, parent), (E.root_id, root), (E.rerun_of, rerun_of)):
        if value:
            query = query.where(column == value, column != "")
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
