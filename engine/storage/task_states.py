"""Named query for how tasks stand: many rows in one statement, whoever says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import text

from engine.storage.database import Connection
from engine.storage.json_text import dumps

MORE = ("cached_from", "reused_from", "compensation", "child_id", "items")
"""What a snapshot may say of a task besides the columns; kept together in `more`."""
BATCH = 1000
SLICED = 1_000_000
"""Positions of tasks that slices of a map record begin here: after those of the run itself."""

COLUMNS = """AS t (id text, position int, status text, skip_reason text, attempts int, started_at double precision,
                   finished_at double precision, outputs jsonb, error jsonb, more jsonb)"""

# A task moves forward only, and a run that has ended keeps its last word.
_NOTE = text(f"""
    INSERT INTO task_states (execution_id, task, position, status, skip_reason, attempts, started_at, finished_at,
                             outputs, error, more)
    SELECT e.id, t.id, t.position, t.status, COALESCE(t.skip_reason, ''), COALESCE(t.attempts, 0),
           to_timestamp(t.started_at), to_timestamp(t.finished_at), t.outputs, t.error, t.more
      FROM workflow_executions e, jsonb_to_recordset(CAST(:tasks AS jsonb)) {COLUMNS}
     WHERE e.id = :execution_id
       AND (:ended OR e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED'))
     ORDER BY t.id
    ON CONFLICT (execution_id, task) DO UPDATE
       SET position = excluded.position, status = excluded.status, skip_reason = excluded.skip_reason,
           attempts = excluded.attempts, started_at = excluded.started_at, finished_at = excluded.finished_at,
           outputs = excluded.outputs, error = excluded.error, more = excluded.more
     WHERE :ended OR task_states.status NOT IN ('COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED')
        OR (task_states.more IS DISTINCT FROM excluded.more AND task_states.status = excluded.status)
""")


def as_json(tasks: Iterable[Mapping[str, Any]], *, first: int = 0) -> list[dict[str, Any]]:
    """Tasks of a snapshot, in order, as the statements take them; positions count from `first`."""
    return [_row(position, task) for position, task in enumerate(tasks, first)]


def _row(position: int, task: Mapping[str, Any]) -> dict[str, Any]:
    more = {name: task[name] for name in MORE if task.get(name)}
    return {**task, "position": position, "more": more or None}


async def note(
    connection: Connection, execution_id: str, rows: Sequence[Mapping[str, Any]], *, ended: bool = False
) -> None:
    """Write how tasks stand (rows of `as_json`), in batches. With `ended`, it is the last word on a run that is over."""
    for start in range(0, len(rows), BATCH):
        values = {
            "execution_id": execution_id,
            "tasks": dumps(list(rows[start : start + BATCH])),
            "ended": ended,
        }
        await connection.execute(_NOTE, values)
