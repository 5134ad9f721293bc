"""Compares every open run in Postgres with Temporal, and mends what differs (promise P7).

Temporal is right about whether a run is open and how it ended; Postgres is right about what was promised.  Nothing is
mended on one look alone where the look could be wrong: a run that Temporal does not know is lost only when it is
unknown at two passes, and one that Temporal alone still runs is ended only when it does so at two.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from engine.core.contracts import TaskError
from engine.core.wire import run_of
from engine.errors import NotFound, PinflowError, Unavailable
from engine.executor.runs import RemoteRun, Snapshot
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.storage import advisory, audit, children, mending, outbox, slots, task_states
from engine.storage.database import Connection, Database

_ACTOR = "reconciler"
_LOCK = 0x70696E_666C6F77  # "pinflow"
_PAGE = 500
_AT_ONCE = 16
_ASKED_PER_PASS = 50
"""Snapshots cost a workflow task each (and a replay, if the worker has forgotten the run): a bound for every pass."""
_OVER = 30.0
"""Seconds for which a run whose row has ended may still be open in Temporal: its last step closes it."""
_OVERDUE = 1800.0
"""Seconds after which a run that was asked to end is ended: its clean-up has had its time."""
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
    stopped: list[str] = field(default_factory=list)
    freed: list[str] = field(default_factory=list)


class Reconciler:
    """`run` is the loop of a worker process; `pass_once` one comparison of everything."""

    def __init__(
        self, database: Database, executor: TemporalWorkflowExecutor, *, interval: float = 15.0
    ) -> None:
        self._database = database
        self._executor = executor
        self._interval = interval
        self._missing: set[str] = set()
        self._leftovers: set[str] = set()
        self._asked_to_end: dict[str, float] = {}

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
        await self._stop_leftovers(running, mended)
        await self._stop_orphans(mended)
        await self._free_slots(mended)
        if any(value for name, value in asdict(mended).items() if name not in ("open", "asked", "reminded")):
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
        if snapshot is not None:
            await self._tell_again(execution_id, snapshot, "", mended)
        async with self._database.read() as connection:
            slices = await mending.answered_slices(connection, execution_id)
        for each in slices:
            try:
                standing = await self._executor.snapshot(each, limit=2.0)
            except PinflowError:
                continue  # it is over, or busy
            await self._tell_again(execution_id, standing, each, mended)

    async def _tell_again(self, execution_id: str, snapshot: Snapshot, told: str, mended: Mended) -> None:
        """Send what a run (or, with `told`, a slice of its map) waits for although it has been said."""
        tasks = [task["id"] for task in snapshot.tasks if task["status"] == "WAITING"]
        awaited = [each for each in snapshot.waiting if each.get("kind") == "signal"]
        queued = [each["task"] for each in snapshot.waiting if each.get("kind") == "slot"]
        if not (tasks or queued):
            return
        async with self._database.begin() as connection:
            words = [
                ("approval", body)
                for body in await mending.unheard_approvals(connection, execution_id, tasks, told=told)
            ]
            words += [("slot", body) for body in await slots.unheard(connection, execution_id, queued)]
            if awaited:
                heard = await mending.unheard_signals(connection, execution_id, awaited)
                words += [("signal", body | {"to": told}) for body in heard]
            for kind, body in words:
                await outbox.enqueue(connection, kind, execution_id, body)
                mended.told_again += 1

    async def _note_tasks(self, execution_id: str, *, limit: float) -> Snapshot | None:
        try:
            snapshot = await self._executor.snapshot(execution_id, limit=limit)
        except PinflowError:
            return None  # no worker, or busy with local work: the next pass asks again
        async with self._database.begin() as connection:
            await task_states.note(connection, execution_id, task_states.as_json(snapshot.tasks))
        return snapshot

    # --- what runs on although it is over -----------------------------------------------------------------------------

    async def _stop_leftovers(self, running: set[str], mended: Mended) -> None:
        """End what Temporal still runs and our rows say is over: a LOST run that came back with a restored Temporal.

        A run is asked to end, so that its clean-up happens; a slice has nobody left who waits for it.
        """
        by_run: dict[str, list[str]] = {}
        for workflow_id in running:
            by_run.setdefault(run_of(workflow_id), []).append(workflow_id)
        async with self._database.read() as connection:
            over = await mending.over(connection, sorted(by_run), age=_OVER)
        found = {row["id"]: row for row in over}
        suspects = [run for run in sorted(found) if run in self._leftovers]
        self._leftovers = set(found)
        self._asked_to_end = {id: at for id, at in self._asked_to_end.items() if id in running}
        await _each(suspects, lambda run: self._stop(found[run], by_run[run], mended))

    async def _stop(self, row: dict[str, Any], workflow_ids: list[str], mended: Mended) -> None:
        reason = f"run {row['id']} is over as far as its row says"
        for workflow_id in sorted(workflow_ids):
            asked = self._asked_to_end.get(workflow_id)
            whole = workflow_id == row["id"]
            if whole and asked is not None and time.monotonic() - asked < _OVERDUE:
                continue
            try:
                if (await self._executor.describe(workflow_id)).status != "OPEN":
                    continue  # the index is behind
                if whole and asked is None:
                    await self._executor.cancel(workflow_id, by=_ACTOR, reason=reason)
                else:
                    await self._executor.terminate(workflow_id, reason=reason)
            except NotFound:
                continue
            self._asked_to_end.setdefault(workflow_id, time.monotonic())
            mended.stopped.append(workflow_id)
            async with self._database.begin() as connection:
                details = {"workflow_id": workflow_id, "reason": reason}
                await _record(connection, row, "execution.stopped", details)

    async def _stop_orphans(self, mended: Mended) -> None:
        """Ask children to end whose parent was over before them: Temporal does it, unless the parent's own end was mended."""
        reason = "the run that started it is over"
        async with self._database.begin() as connection:
            for row in await children.orphans(connection, age=_OVER):
                request = {"by": _ACTOR, "reason": reason, "id": f"{_ACTOR}/{row['id']}", "again": False}
                await outbox.enqueue(connection, "cancel", row["id"], request)
                await _record(connection, row, "execution.cancel_requested", {"reason": reason})
                mended.stopped.append(row["id"])

    async def _free_slots(self, mended: Mended) -> None:
        """Give back what runs hold that are over: their last step does it, unless a database was put back."""
        async with self._database.read() as connection:
            runs = await slots.left_behind(connection)
        for run in sorted(runs):
            async with self._database.begin() as connection:
                await slots.give_back(connection, run)
            mended.freed.append(run)


async def _record(connection: Connection, row: dict[str, Any], action: str, details: dict[str, Any]) -> None:
    await audit.record(
        connection,
        action,
        actor=_ACTOR,
        source=row["source"],
        workflow=row["workflow"],
        execution_id=row["id"],
        commit_sha=row["commit_sha"],
        details=details,
    )


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
