"""Named queries of the reconciler: what the rows say of open runs, and how they are put right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Float, Text, bindparam, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage import slots
from engine.storage.executions import OPEN
from engine.storage.models import WorkflowExecution as E
from engine.storage.rows import Record, many

_JSON = JSONB(none_as_null=True)


async def open_runs(
    connection: AsyncConnection, *, after: tuple[datetime, str] | None, count: int
) -> list[Record]:
    """Up to `count` open runs (`id, status, created_at, started_at, checked_at`) in order of creation."""
    query = (
        select(E.id, E.status, E.created_at, E.started_at, E.checked_at)
        .where(E.status.in_(OPEN))
        .order_by(E.created_at, E.id)
        .limit(count)
    )
    if after is not None:
        query = query.where(tuple_(E.created_at, E.id) > tuple_(literal(after[0]), literal(after[1])))
    return await many(connection, query)


_LOST_STARTS = text("""
    INSERT INTO outbox (kind, execution_id, body)
    SELECT 'start', e.id, '{}' FROM workflow_executions e
     WHERE (e.status = 'PENDING' OR e.status = 'PAUSED' AND e.started_at IS NULL)
       AND e.created_at < now() - make_interval(secs => :age)
       AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.execution_id = e.id AND o.kind = 'start')
    RETURNING execution_id
""")


async def start_again(connection: AsyncConnection, *, age: float) -> list[str]:
    """A new start message for every run that never started, older than `age` seconds that has none; their ids."""
    return list((await connection.execute(_LOST_STARTS, {"age": age})).scalars())


# No row here has a task of another run: an ended run must not show a task at work for ever.
_END = text("""
    WITH run AS (
        UPDATE workflow_executions e
           SET status = :status, outputs = :outputs, error = :error, checked_at = now(),
               started_at = COALESCE(e.started_at, e.created_at),
               finished_at = COALESCE(CAST(:finished_at AS timestamptz), now())
         WHERE e.id = :id AND e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
     RETURNING e.id, e.workflow, e.commit_sha, e.source_id, e.finished_at),
    tasks AS (
        UPDATE task_states t SET status = 'CANCELLED', finished_at = run.finished_at
          FROM run WHERE t.execution_id = run.id AND t.status NOT IN ('COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED')),
    approvals AS (
        UPDATE approval_requests a SET status = 'CANCELLED', resolved_at = now()
          FROM run WHERE a.execution_id = run.id AND a.status = 'PENDING' RETURNING a.id, a.task),
    said AS (
        INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
        SELECT :actor, 'approval.cancelled', s.name, run.workflow, run.id, run.commit_sha,
               jsonb_build_object('approval_id', approvals.id, 'task', approvals.task)
          FROM approvals, run JOIN sources s ON s.id = run.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, 'execution.reconciled', s.name, run.workflow, run.id, run.commit_sha, :details
      FROM run JOIN sources s ON s.id = run.source_id RETURNING id
""").bindparams(*(bindparam(name, type_=_JSON) for name in ("outputs", "error", "details")))


async def end(
    connection: AsyncConnection,
    execution_id: str,
    *,
    status: str,
    outputs: Any,
    error: Mapping[str, Any] | None,
    finished_at: datetime | None,
    why: str,
    actor: str,
) -> bool:
    """End an open run as Temporal says, with all that it asked for and held, audited; False if it has ended already."""
    values = {
        "id": execution_id,
        "status": status,
        "outputs": outputs,
        "error": None if error is None else dict(error),
        "finished_at": finished_at,
        "details": {"status": status, "why": why},
        "actor": actor,
    }
    ended = (await connection.execute(_END, values)).one_or_none() is not None
    if ended:
        await slots.give_back(connection, execution_id)
    return ended


async def checked(connection: AsyncConnection, execution_ids: Sequence[str]) -> None:
    """Note that these runs were asked just now how they stand."""
    await connection.execute(
        text("UPDATE workflow_executions SET checked_at = now() WHERE id = ANY(:ids)"),
        {"ids": list(execution_ids)},
    )


# The run waits for a word that was said: the message was lost with a database that was put back, or with Temporal's.
_UNHEARD = text("""
    SELECT a.id AS approval_id, a.task, a.status AS outcome, a.told AS to,
           (SELECT COALESCE(jsonb_agg(jsonb_build_object(
                       'by', d.by, 'decision', d.decision, 'comment', d.comment, 'form', d.form,
                       'at', to_char(d.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) ORDER BY d.position), '[]')
              FROM approval_decisions d WHERE d.approval_id = a.id) AS decisions,
           CAST(EXTRACT(EPOCH FROM a.deadline_at) AS double precision) AS deadline
      FROM approval_requests a
     WHERE a.execution_id = :execution_id AND a.task = ANY(:tasks) AND a.told = :told
       AND a.status IN ('APPROVED', 'REJECTED', 'TIMED_OUT')
       AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.execution_id = a.execution_id AND o.kind = 'approval'
                          AND o.body ->> 'approval_id' = a.id AND o.parked_at IS NULL)
""").columns(approval_id=Text, task=Text, outcome=Text, to=Text, decisions=JSONB, deadline=Float)


async def unheard_approvals(
    connection: AsyncConnection, execution_id: str, tasks: Sequence[str], *, told: str = ""
) -> list[Record]:
    """The words (bodies of `approval` messages) that a run still waits for in `tasks`, and that nobody is about to say.

    `told` is the slice of a map that waits for them, "" for the run itself.
    """
    values = {"execution_id": execution_id, "tasks": list(tasks), "told": told}
    return await many(connection, _UNHEARD, values)


# A task waits since before the signal came: had the run heard it, the task would wait no longer.
_UNHEARD_SIGNALS = (
    text("""
    SELECT DISTINCT s.id, s.name, s.payload, s.correlation, s.task, s.by
      FROM signals s, jsonb_to_recordset(:waiting)
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


async def unheard_signals(
    connection: AsyncConnection, execution_id: str, waiting: Sequence[Mapping[str, Any]]
) -> list[Record]:
    """The bodies of `signal` messages that a run still waits for (`waiting` of its snapshot), and nobody is about to send."""
    named = ("task", "signal", "correlation", "since")
    wanted = [{name: each.get(name) for name in named} for each in waiting]
    return await many(connection, _UNHEARD_SIGNALS, {"execution_id": execution_id, "waiting": wanted})


_SLICES = text("""
    SELECT DISTINCT told FROM approval_requests
     WHERE execution_id = :execution_id AND told <> '' AND status IN ('APPROVED', 'REJECTED', 'TIMED_OUT')
       AND resolved_at > now() - interval '1 day' ORDER BY told LIMIT 20
""")


async def answered_slices(connection: AsyncConnection, execution_id: str) -> list[str]:
    """The slices of a run that got an answer within a day: they may not have heard it."""
    return list((await connection.execute(_SLICES, {"execution_id": execution_id})).scalars())


_OVER = text("""
    SELECT e.id, e.workflow, e.commit_sha, s.name AS source
      FROM workflow_executions e JOIN sources s ON s.id = e.source_id
     WHERE e.id = ANY(:ids) AND e.finished_at < now() - make_interval(secs => :age)
""")


async def over(connection: AsyncConnection, execution_ids: Sequence[str], *, age: float) -> list[Record]:
    """Those of these runs that have been over for `age` seconds: `id, workflow, commit_sha, source`."""
    return await many(connection, _OVER, {"ids": list(execution_ids), "age": age})


_REMIND = text("""
    WITH due AS (
        UPDATE approval_requests
           SET remind_at = now() + make_interval(secs => CAST(policy ->> 'remind_every' AS double precision))
         WHERE status = 'PENDING' AND remind_at <= now() AND policy ->> 'remind_every' IS NOT NULL
     RETURNING id, task, workflow, execution_id, commit_sha)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, 'approval.reminded', s.name, due.workflow, due.execution_id, due.commit_sha,
           jsonb_build_object('approval_id', due.id, 'task', due.task)
      FROM due JOIN workflow_executions e ON e.id = due.execution_id JOIN sources s ON s.id = e.source_id
    RETURNING details ->> 'approval_id'
""")


async def remind(connection: AsyncConnection, *, actor: str) -> list[str]:
    """Audit a reminder for every open request whose time has come, and set the next; the requests' ids."""
    return list((await connection.execute(_REMIND, {"actor": actor})).scalars())
