"""Named queries for attempts of tasks, as the workers saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.storage.database import Database
from engine.storage.json_text import dumps


@dataclass(slots=True)
class AttemptRow:
    """One row of `task_attempts`; see there for what may change. `phase` is 0 (under way) or 1 (ended)."""

    execution_id: str
    task: str
    scheduled_at: datetime
    attempt: int
    phase: int
    status: str
    started_at: datetime
    finished_at: datetime | None
    worker: str
    error: Any

    @property
    def key(self) -> tuple[str, str, datetime, int]:
        """What makes it one row."""
        return self.execution_id, self.task, self.scheduled_at, self.attempt


# One parameter whatever the number of rows: one prepared statement, one round trip.
_UPSERT = """
    INSERT INTO task_attempts (execution_id, task, scheduled_at, attempt, phase, status, started_at, finished_at,
                               worker, error)
    SELECT execution_id, task, scheduled_at, attempt, phase, status, started_at, finished_at, worker, error
      FROM jsonb_to_recordset($1::jsonb)
        AS r (execution_id text, task text, scheduled_at timestamptz, attempt int, phase int, status text,
              started_at timestamptz, finished_at timestamptz, worker text, error jsonb)
    ON CONFLICT (execution_id, task, scheduled_at, attempt) DO UPDATE
       SET phase = excluded.phase, status = excluded.status, finished_at = excluded.finished_at,
           worker = excluded.worker, error = excluded.error
     WHERE task_attempts.phase < excluded.phase
"""


async def upsert(database: Database, rows: Sequence[AttemptRow]) -> None:
    """Write the rows, at most one for each key. A row that has ended stays as it is."""
    # In one order everywhere: two workers' batches must not wait for each other in a ring.
    ordered = sorted(rows, key=lambda row: row.key)
    content = dumps([_as_json(row) for row in ordered])
    async with database.direct() as driver:
        await driver.execute(_UPSERT, content)


def _as_json(row: AttemptRow) -> dict[str, Any]:
    return {
        "execution_id": row.execution_id,
        "task": row.task,
        "scheduled_at": row.scheduled_at.isoformat(),
        "attempt": row.attempt,
        "phase": row.phase,
        "status": row.status,
        "started_at": row.started_at.isoformat(),
        "finished_at": None if row.finished_at is None else row.finished_at.isoformat(),
        "worker": row.worker,
        "error": row.error,
    }
