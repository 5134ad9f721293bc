"""Named queries for concurrency groups: a slot is asked for, waited for, held, given back.

A group is one name over all workflows. Whoever changes it holds its lock to the end of the transaction, so that the
queue is served in one order; who gives slots back serves the next ones in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.core.deadlocks import Place, stuck, within
from engine.storage.rows import Record, many, one

Standing = Literal["HELD", "WAITING", "SKIPPED", "DEADLOCK", "OVER"]

_GRAPH_LOCK = 0x70696E_736C6F74
"""Taken after a group's own: two requests that close one ring from both sides must see each other."""
_SERVED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """Who asks for what. `task` is "" for the run itself; `holder` the Temporal workflow that is to be told."""

    execution_id: str
    task: str
    group: str
    limit: int
    on_conflict: Literal["queue", "skip", "cancel_running"]
    holder: str


_RUN = """
    SELECT e.id, COALESCE(NULLIF(e.root_id, ''), e.id) AS root_id,
           e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED') AS open
      FROM workflow_executions e WHERE e.id = :execution_id
"""
_OF_THE_RUN = text(_RUN + " FOR NO KEY UPDATE")  # it may become QUEUED
_OF_A_TASK = text(_RUN + " FOR SHARE")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:group, 20))")
_LOCK_GRAPH = text("SELECT pg_advisory_xact_lock(:key)")
_MINE = text("""
    SELECT position, held_since IS NOT NULL AS held FROM slots
     WHERE execution_id = :execution_id AND task = :task AND "group" = :group
""")
_STANDING = text("""
    SELECT count(*) FILTER (WHERE held_since IS NOT NULL) AS held,
           count(*) FILTER (WHERE held_since IS NULL) AS waiting
      FROM slots WHERE "group" = :group
""")
_INSERT = text("""
    INSERT INTO slots ("group", execution_id, task, root_id, holder, "limit", held_since)
    VALUES (:group, :execution_id, :task, :root_id, :holder, :limit, CASE WHEN :held THEN clock_timestamp() END)
    RETURNING position
""")
_DELETE = text("DELETE FROM slots WHERE position = :position")
_QUEUED = text("""
    WITH run AS (
        UPDATE workflow_executions e SET status = 'QUEUED'
         WHERE e.id = :execution_id AND e.status IN ('PENDING', 'RUNNING')
     RETURNING e.id, e.workflow, e.commit_sha, e.source_id)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, 'execution.queued', s.name, run.workflow, run.id, run.commit_sha,
           jsonb_build_object('group', CAST(:group AS text))
      FROM run JOIN sources s ON s.id = run.source_id
""")

# A run and all that it is a child of.
_LINES = text("""
    WITH RECURSIVE line AS (
        SELECT id, parent_id, parent_task FROM workflow_executions WHERE id = ANY(:ids)
         UNION
        SELECT e.id, e.parent_id, e.parent_task
          FROM line JOIN workflow_executions e ON e.id = line.parent_id)
    SELECT id, parent_id, parent_task FROM line
""").bindparams(bindparam("ids", type_=ARRAY(Text)))

_OF_FAMILY = text("""
    SELECT position, "group", execution_id, task, "limit", held_since IS NOT NULL AS held
      FROM slots WHERE root_id = :root_id
""")

# Who holds nothing gives back what it gets, and who waits for nothing gives back what it has: neither is part of a ring.
_TANGLED = text("""
    SELECT position, "group", execution_id, task, "limit", held_since IS NOT NULL AS held
      FROM slots
     WHERE root_id IN (SELECT root_id FROM slots GROUP BY root_id
                        HAVING bool_or(held_since IS NOT NULL) AND bool_or(held_since IS NULL))
""")


async def acquire(connection: AsyncConnection, request: SlotRequest, *, actor: str) -> Standing:
    """Take a slot, or a place in the queue; the same request again finds what it has.

    SKIPPED and DEADLOCK leave no place behind; nor does OVER, the answer to a run that has ended. A run that waits for
    its own slot is QUEUED from now on.
    """
    run = await one(
        connection, _OF_A_TASK if request.task else _OF_THE_RUN, {"execution_id": request.execution_id}
    )
    if run is None or not run["open"]:
        return "OVER"
    await connection.execute(_LOCK, {"group": request.group})
    key = {"execution_id": request.execution_id, "task": request.task, "group": request.group}
    mine = await one(connection, _MINE, key)
    if mine is not None:
        return "HELD" if mine["held"] else "WAITING"
    above = await _slots_above(connection, request, run["root_id"])
    if any(place.group == request.group for place in above):
        return "HELD"  # re-entered: an ancestor holds the group for all that happens in it
    group = await one(connection, _STANDING, {"group": request.group})
    assert group is not None
    if not group["waiting"] and group["held"] < request.limit:
        await _insert(connection, request, run["root_id"], held=True)
        return "HELD"
    if request.on_conflict == "skip":
        return "SKIPPED"
    if request.on_conflict == "cancel_running":
        await _cancel_others(connection, request, run["root_id"], actor)
    position = await _insert(connection, request, run["root_id"], held=False)
    if above and await _is_stuck(connection, position):
        await connection.execute(_DELETE, {"position": position})
        return "DEADLOCK"
    if not request.task:
        values = {"execution_id": request.execution_id, "group": request.group, "actor": actor}
        await connection.execute(_QUEUED, values)
    return "WAITING"


async def _insert(connection: AsyncConnection, request: SlotRequest, root_id: str, *, held: bool) -> int:
    values = {
        "group": request.group,
        "execution_id": request.execution_id,
        "task": request.task,
        "root_id": root_id,
        "holder": request.holder,
        "limit": request.limit,
        "held": held,
    }
    return int((await connection.execute(_INSERT, values)).scalar_one())


async def _slots_above(connection: AsyncConnection, request: SlotRequest, root_id: str) -> list[Place]:
    """The slots that cannot be given back before this request is served."""
    rows = await many(connection, _OF_FAMILY, {"root_id": root_id})
    held = [row for row in rows if row["held"]]
    if not held:
        return []
    (line,) = await _lines(connection, [(request.execution_id, request.task)])
    return [
        _place(row, ())
        for row in held
        if any(run == row["execution_id"] and within(address, row["task"]) for run, address in line)
    ]


async def _is_stuck(connection: AsyncConnection, position: int) -> bool:
    await connection.execute(_LOCK_GRAPH, {"key": _GRAPH_LOCK})
    rows = await many(connection, _TANGLED)
    lines = await _lines(connection, [(row["execution_id"], row["task"]) for row in rows])
    return position in stuck(_place(row, line) for row, line in zip(rows, lines, strict=True))


async def _lines(
    connection: AsyncConnection, own: Sequence[tuple[str, str]]
) -> list[tuple[tuple[str, str], ...]]:
    ids = sorted({execution_id for execution_id, _ in own})
    rows = await many(connection, _LINES, {"ids": ids})
    parents = {row["id"]: (row["parent_id"], row["parent_task"]) for row in rows if row["parent_id"]}

    def line(execution_id: str, task: str) -> tuple[tuple[str, str], ...]:
        found = [(execution_id, task)]
        while (above := parents.get(found[-1][0])) is not None and above not in found:
            found.append(above)
        return tuple(found)

    return [line(execution_id, task) for execution_id, task in own]


def _place(row: Record, line: tuple[tuple[str, str], ...]) -> Place:
    return Place(row["position"], row["group"], row["limit"], row["held"], line)


# Only runs are cancelled for another, never a single task; nobody cancels a run of its own family.
_CANCEL_OTHERS = text("""
    WITH others AS (
        SELECT DISTINCT e.id, e.workflow, e.commit_sha, e.source_id
          FROM slots o JOIN workflow_executions e ON e.id = o.execution_id
         WHERE o."group" = :group AND o.task = '' AND o.root_id <> :root_id
           AND e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
           AND NOT EXISTS (SELECT FROM audit a
                            WHERE a.execution_id = e.id AND a.action = 'execution.cancel_requested')),
    told AS (
        INSERT INTO outbox (kind, execution_id, body)
        SELECT 'cancel', id, jsonb_build_object('by', :actor, 'reason', :reason, 'id', :reason, 'again', false)
          FROM others)
    INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
    SELECT :actor, 'execution.cancel_requested', s.name, others.workflow, others.id, others.commit_sha,
           jsonb_build_object('reason', :reason)
      FROM others JOIN sources s ON s.id = others.source_id
""").bindparams(bindparam("actor", type_=Text), bindparam("reason", type_=Text))


async def _cancel_others(connection: AsyncConnection, request: SlotRequest, root_id: str, actor: str) -> None:
    reason = f"run {request.execution_id} takes its place in the concurrency group {request.group}"
    values = {"group": request.group, "root_id": root_id, "actor": actor, "reason": reason}
    await connection.execute(_CANCEL_OTHERS, values)


# --- giving back -------------------------------------------------------------------------------------------------

_GROUPS = text("""
    SELECT DISTINCT "group" FROM slots
     WHERE execution_id = :execution_id AND (CAST(:task AS text) IS NULL OR task = :task)
""")
_GONE = text("""
    DELETE FROM slots WHERE execution_id = :execution_id AND (CAST(:task AS text) IS NULL OR task = :task)
""")
_QUEUE = text("""
    SELECT position, execution_id, task, holder, "limit" FROM slots
     WHERE "group" = :group AND held_since IS NULL ORDER BY position LIMIT :count
""")
_SERVE = text("""
    WITH served AS (
        UPDATE slots SET held_since = clock_timestamp() WHERE position = :position
     RETURNING execution_id, task, holder)
    INSERT INTO outbox (kind, execution_id, body)
    SELECT 'slot', execution_id, jsonb_build_object('to', holder, 'task', task, 'granted', true) FROM served
""")


async def give_back(connection: AsyncConnection, execution_id: str, task: str | None = None) -> list[str]:
    """Give back what a run (None) or one of its tasks holds or waits for, and serve who waits next.

    The runs that are to be told. `task` is "" for the slot of the run itself.
    """
    values = {"execution_id": execution_id, "task": task}
    groups = sorted((await connection.execute(_GROUPS, values)).scalars())
    for group in groups:  # in one order everywhere: two runs that end at once must not wait for each other
        await connection.execute(_LOCK, {"group": group})
    await connection.execute(_GONE, values)
    return [run for group in groups for run in await _serve(connection, group)]


async def _serve(connection: AsyncConnection, group: str) -> list[str]:
    standing = await one(connection, _STANDING, {"group": group})
    assert standing is not None
    if not standing["waiting"]:
        return []
    held = standing["held"]
    told: list[str] = []
    for row in await many(connection, _QUEUE, {"group": group, "count": _SERVED_AT_ONCE}):
        if held >= row["limit"]:
            break
        await connection.execute(_SERVE, {"position": row["position"]})
        held += 1
        told.append(row["execution_id"])
    return told


# --- mending -----------------------------------------------------------------------------------------------------

_LEFT_BEHIND = text("""
    SELECT DISTINCT s.execution_id FROM slots s JOIN workflow_executions e ON e.id = s.execution_id
     WHERE e.status NOT IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
""")


async def left_behind(connection: AsyncConnection) -> list[str]:
    """Runs that are over and still have slots."""
    return list((await connection.execute(_LEFT_BEHIND)).scalars())


# The run waits for a slot that it has: the word was lost with a database or a Temporal that was put back.
_UNHEARD = text("""
    SELECT s.task, s.holder AS to FROM slots s
     WHERE s.execution_id = :execution_id AND s.task = ANY(:tasks) AND s.held_since IS NOT NULL
       AND NOT EXISTS (SELECT FROM outbox o WHERE o.execution_id = s.execution_id AND o.kind = 'slot'
                          AND o.body ->> 'task' = s.task AND o.parked_at IS NULL)
""").bindparams(bindparam("tasks", type_=ARRAY(Text)))


async def unheard(connection: AsyncConnection, execution_id: str, tasks: Sequence[str]) -> list[Record]:
    """The bodies of `slot` messages for those of `tasks` that hold a slot, and that nobody is about to tell."""
    rows = await many(connection, _UNHEARD, {"execution_id": execution_id, "tasks": list(tasks)})
    return [row | {"granted": True} for row in rows]


async def of_group(connection: AsyncConnection, group: str) -> list[Record]:
    """Who holds and who waits (`execution_id, task, held_since, created_at`), in the order of the queue."""
    query = text("""
        SELECT execution_id, task, held_since, created_at FROM slots WHERE "group" = :group ORDER BY position
    """)
    return await many(connection, query, {"group": group})
