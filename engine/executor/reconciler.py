"""Compares every open run in Postgres with Temporal, and mends what differs (promise P7).

Temporal is right about whether a run is open and how it ended; Postgres is right about what was promised.  Nothing is
mended on one look alone where the look could be wrong: a run that Temporal does not know is lost only when it is
unknown at two passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from engine.core.contracts import TaskError
from engine.errors import NotFound, PinflowError, Unavailable
from engine.executor.runs import RemoteRun, Snapshot
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.storage import advisory, mending, outbox
from engine.storage.database import Database

_ACTOR = "reconciler"
_LOCK = 0x70696E_666C6F77  # "pinflow"
_PAGE = 500
_AT_ONCE = 16
_ASKED_PER_PASS = 50
"""Snapshots cost a workflow task each (and a replay, if the worker has forgotten the run): a bound for every pass."""
_YOUNG = timedelta(seconds=5)
"""A run that started a moment ago is not yet in Temporal's index, and needs no mending."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Mended:
    """What one pass found and did: numbers of runs, messages and reminders."""

    open: int = 0
    ended: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    asked: int = 0
    told_again: int = 0
    reminded: int = 0


class Reconciler:
    """`run` is the loop of a worker process; `pass_once` one comparison of everything."""

    def __init__(
        self, database: Database, executor: TemporalWorkflowExecutor, *, interval: float = 15.0
    ) -> None:
        self._database = database
        self._executor = executor
        self._interval = interval
        self._missing: set[str] = set()

    async def run(self) -> None:
        """Compare until cancelled. An absent Postgres or Temporal is waited for."""
        while True:
            try:
                async with advisory.alone(self._database, _LOCK) as mine:
                    if mine:
                        await self.pass_once()
            except Unavailable as error:
                _log.warning("reconciler waits", reason=error.message)
            except Exception:  # a bug here must not end the mending of everything else for good (P9, P10)
                _log.exception("reconciler pass failed")
            await asyncio.sleep(self._interval)

    async def pass_once(self) -> Mended:
        """One pass over all open runs. Raises `Unavailable`; what was mended by then stays mended."""
        mended = Mended()
        async with self._database.begin() as connection:
            mended.reminded = len(await mending.remind(connection, actor=_ACTOR))
            mended.restarted = await mending.start_again(connection, age=max(10.0, 2 * self._interval))
        running = await self._running_in_temporal()
        to_ask = await self._compare_all(running, mended)
        await self._ask(to_ask, mended)
        if mended.ended or mended.lost or mended.restarted or mended.told_again:
            _log.info("mended", **asdict(mended))
        return mended

    async def _running_in_temporal(self) -> set[str]:
        running: set[str] = set()
        async for page in self._executor.open_runs():
            running |= page
        return running

    # --- ends -------------------------------------------------------------------------------------------------------

    async def _compare_all(self, running: set[str], mended: Mended) -> list[str]:
        """Compare page by page; the ids of the runs that are due to be asked how they stand."""
        candidates: list[tuple[datetime, str]] = []
        unknown: set[str] = set()
        after: tuple[datetime, str] | None = None
        while True:
            async with self._database.read() as connection:
                rows = await mending.open_runs(connection, after=after, count=_PAGE)
            if not rows:
                break
            after = (rows[-1]["created_at"], rows[-1]["id"])
            mended.open += len(rows)
            now = datetime.now(UTC)
            suspects = [row["id"] for row in rows if row["id"] not in running and _ripe(row, now)]
            await _each(suspects, lambda run: self._compare(run, unknown, mended))
            gone = {*mended.ended, *mended.lost, *unknown}
            candidates += [
                (row["checked_at"] or row["created_at"], row["id"])
                for row in rows
                if row["id"] not in gone and _quiet(row, now)
            ]
        self._missing = unknown
        return [run for _, run in sorted(candidates)[:_ASKED_PER_PASS]]

    async def _compare(self, execution_id: str, unknown: set[str], mended: Mended) -> None:
        try:
            remote = await self._executor.describe(execution_id)
        except NotFound:
            if execution_id not in self._missing:
                unknown.add(execution_id)
                return
            why = (
                "Temporal does not know this run any more: lost, or closed longer ago than it keeps histories"
            )
            if await self._end(execution_id, RemoteRun("FAILED", error=TaskError("LOST", why)), why):
                mended.lost.append(execution_id)
            return
        if remote.status == "OPEN":
            return
        # A closed run still answers queries while its history is kept: how its tasks stood is then not lost.
        await self._note_tasks(execution_id, limit=3.0)
        if await self._end(execution_id, remote, "it had ended in Temporal"):
            mended.ended.append(execution_id)

    async def _end(self, execution_id: str, remote: RemoteRun, why: str) -> bool:
        async with self._database.begin() as connection:
            return await mending.end(
                connection,
                execution_id,
                status=remote.status,
                outputs=remote.outputs,
                error=None if remote.error is None else asdict(remote.error),
                finished_at=remote.closed_at,
                why=why,
                actor=_ACTOR,
            )

    # --- how open runs stand ----------------------------------------------------------------------------------------

    async def _ask(self, execution_ids: Iterable[str], mended: Mended) -> None:
        asked = list(execution_ids)
        await _each(asked, lambda run: self._ask_one(run, mended))
        if asked:
            async with self._database.begin() as connection:
                await mending.checked(connection, asked)
        mended.asked = len(asked)

    async def _ask_one(self, execution_id: str, mended: Mended) -> None:
        snapshot = await self._note_tasks(execution_id, limit=2.0)
        waiting = [task["id"] for task in snapshot.tasks if task["status"] == "WAITING"] if snapshot else []
        if not waiting:
            return
        async with self._database.begin() as connection:
            for approval in await mending.unheard_approvals(connection, execution_id, waiting):
                await outbox.enqueue(connection, "approval", execution_id, approval)
                mended.told_again += 1

    async def _note_tasks(self, execution_id: str, *, limit: float) -> Snapshot | None:
        try:
            snapshot = await self._executor.snapshot(execution_id, limit=limit)
        except PinflowError:
            return None  # no worker, or busy with local work: the next pass asks again
        rows = [_task_row(position, task) for position, task in enumerate(snapshot.tasks)]
        async with self._database.begin() as connection:
            await mending.refresh_tasks(connection, execution_id, rows)
        return snapshot


def _ripe(row: dict[str, Any], now: datetime) -> bool:
    """Whether the run must be known to Temporal by now. One whose start was not sent yet is the dispatcher's."""
    started: datetime | None = row["started_at"]
    return started is not None and now - started > _YOUNG


def _quiet(row: dict[str, Any], now: datetime) -> bool:
    """Whether the run is due to be asked: the older it is, the more seldom (a run may wait for months)."""
    if row["status"] == "PENDING":
        return False
    created: datetime = row["created_at"]
    last: datetime = row["checked_at"] or created
    return now - last > min(max(timedelta(seconds=20), (now - created) / 10), timedelta(hours=1))


def _task_row(position: int, task: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": task["id"],
        "position": position,
        "status": task["status"],
        "skip_reason": task.get("skip_reason") or "",
        "attempts": task.get("attempts") or 0,
        "started_at": task.get("started_at"),
        "finished_at": task.get("finished_at"),
        "outputs": task.get("outputs"),
        "error": task.get("error"),
    }


async def _each(items: list[str], do: Callable[[str], Awaitable[None]]) -> None:
    """Do it for each, `_AT_ONCE` at a time. One that fails stops nothing but itself, unless a server is away."""
    gate = asyncio.Semaphore(_AT_ONCE)
    away: list[Unavailable] = []

    async def guarded(item: str) -> None:
        async with gate:
            if away:
                return
            try:
                await do(item)
            except Unavailable as error:
                away.append(error)
            except Exception:
                _log.exception("cannot mend", execution_id=item)

    await asyncio.gather(*(guarded(item) for item in items))
    if away:
        raise away[0]
