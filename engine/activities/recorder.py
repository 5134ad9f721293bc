"""Attempts of tasks, written to Postgres in batches beside the work (never in its way).

An activity only puts two notes into memory. What is in memory when the worker is killed is lost; the run's own last
step, or the reconciler, says how the tasks ended all the same.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from engine.core.wire import ENVIRONMENT_PREPARING
from engine.errors import Unavailable
from engine.storage import attempts
from engine.storage.attempts import AttemptRow
from engine.storage.database import Database

_log = structlog.get_logger(__name__)

_INTERVAL = 0.05
"""Seconds between two batches: at 0.02 they took a tenth of a busy worker's time, and nobody looks that often."""
_BATCH = 1000
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)


class AttemptRecorder:
    """A buffer of attempts and the task that empties it. `start` it, and `aclose` it after the worker has stopped."""

    def __init__(self, database: Database, *, worker: str, limit: int = 50_000) -> None:
        self._database = database
        self._worker = worker
        self._limit = limit
        self._rows: dict[tuple[str, str, datetime, int], AttemptRow] = {}
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._lost = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="attempt recorder")

    async def aclose(self, *, limit: float = 5.0) -> None:
        """Write what is left, for at most `limit` seconds."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(limit):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("attempts not recorded", rows=len(self._rows))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def begun(self, info: activity.Info, execution_id: str, task: str) -> AttemptRow:
        """An attempt has begun."""
        row = AttemptRow(
            execution_id=execution_id,
            task=task,
            scheduled_at=info.scheduled_time,
            attempt=info.attempt,
            phase=0,
            status="RUNNING",
            started_at=datetime.now(UTC),
            finished_at=None,
            worker=self._worker,
            error=None,
        )
        self._note(row)
        return row

    def ended(self, row: AttemptRow, status: str, error: Mapping[str, Any] | None = None) -> None:
        """It has ended. A start that was not yet written is not written any more."""
        self._note(
            AttemptRow(
                execution_id=row.execution_id,
                task=row.task,
                scheduled_at=row.scheduled_at,
                attempt=row.attempt,
                phase=1,
                status=status,
                started_at=row.started_at,
                finished_at=datetime.now(UTC),
                worker=row.worker,
                error=error,
            )
        )

    def _note(self, row: AttemptRow) -> None:
        self._rows[row.key] = row
        self._filled.set()
        self._empty.clear()
        if len(self._rows) > self._limit:
            del self._rows[next(iter(self._rows))]
            self._lost += 1

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._filled.wait()
            await asyncio.sleep(_INTERVAL)
            try:
                await self._write_batch()
                failures = 0
            except Unavailable as error:
                if failures == 0:
                    _log.warning("attempts wait for Postgres", reason=error.message, rows=len(self._rows))
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
            if self._lost and failures == 0:
                _log.warning("attempts not recorded", rows=self._lost)
                self._lost = 0

    async def _write_batch(self) -> None:
        # They stay in the buffer until they are written: a note that comes meanwhile replaces its row.
        batch = list(itertools.islice(self._rows.values(), _BATCH))
        try:
            await self._write(batch)
        except Unavailable:
            raise
        except Exception:
            await self._write_one_by_one(batch)
        for row in batch:
            if self._rows.get(row.key) is row:
                del self._rows[row.key]
        if not self._rows:
            self._filled.clear()
            self._empty.set()

    async def _write_one_by_one(self, batch: Sequence[AttemptRow]) -> None:
        """One row that Postgres refuses must not take the others with it (promise P9)."""
        for row in batch:
            try:
                await self._write([row])
            except Unavailable:
                raise
            except Exception as error:
                # Without the stack: a driver's error carries the whole row, with what the author's target said.
                reason = str(error).partition("\n")[0][:300]
                _log.error(
                    "attempt cannot be recorded", execution_id=row.execution_id, task=row.task, reason=reason
                )

    async def _write(self, rows: Sequence[AttemptRow]) -> None:
        await attempts.upsert(self._database, rows)


class RecordingInterceptor(Interceptor):
    """Puts the recorder around every activity that is a task's."""

    def __init__(self, recorder: AttemptRecorder) -> None:
        self._recorder = recorder

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """As Temporal asks."""
        return _Inbound(next, self._recorder)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, recorder: AttemptRecorder) -> None:
        super().__init__(next)
        self._recorder = recorder

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        call = input.args[0] if input.args else None
        info = activity.info()
        if info.activity_type.startswith("pinflow.") or not isinstance(call, dict):
            return await self.next.execute_activity(input)
        row = self._recorder.begun(info, call["execution_id"], call["task"])
        try:
            result = await self.next.execute_activity(input)
        except asyncio.CancelledError:
            self._recorder.ended(row, *_why_cancelled())
            raise
        except Exception as error:
            self._recorder.ended(row, _failed(error), _as_json(error))
            raise
        self._recorder.ended(row, "COMPLETED")
        return result


def _why_cancelled() -> tuple[str, dict[str, Any] | None]:
    """A coroutine is cancelled for three reasons, and only one of them means that somebody wanted it."""
    details = activity.cancellation_details()
    if details is not None and details.timed_out:
        return "FAILED", {"type": "TIMEOUT", "message": "Temporal's limit for the attempt has passed"}
    if details is not None and details.worker_shutdown:
        return "FAILED", {"type": "WORKER_STOPPED", "message": "the worker stopped; Temporal tries again"}
    return "CANCELLED", None


def _failed(error: Exception) -> str:
    """An attempt that did not begin, for want of its function's environment, has not failed."""
    waits = isinstance(error, ApplicationError) and error.type == ENVIRONMENT_PREPARING
    return "CANCELLED" if waits else "FAILED"


def _as_json(error: Exception) -> dict[str, Any]:
    if not isinstance(error, ApplicationError):
        return {"type": type(error).__name__, "message": str(error)[:2000]}
    told = error.details[0] if error.details else None
    details = told.get("details") if isinstance(told, dict) else None
    return {"type": error.type, "message": error.message, "details": details}
