"""Tells Temporal's schedules what the rows of triggers want, and mends what differs.

The row is written in the transaction of the revision; what is PENDING is told within a second, by any worker.  Two at once
do no harm: the older revision never wins in Temporal, and a row is only marked for the revision that was told.
"""

from __future__ import annotations

import time

import structlog

from engine import faults
from engine.errors import Misconfigured
from engine.executor.schedules import Schedules
from engine.passes import keep_on
from engine.storage import advisory, triggers
from engine.storage.database import Database
from engine.storage.rows import Record

_ACTOR = "scheduler"
_LOCK = 0x70696E_73636865  # "pinsche"
_BATCH = 50
_PAGE = 500
_LOOKED_AT = 100
"""Schedules that one comparison looks at one by one; the next goes on behind them."""
_KEPT_DAYS = 30

_log = structlog.get_logger(__name__)


class ScheduleSync:
    """`run` is the loop of a worker; `tell` and `compare` are its two passes."""

    def __init__(
        self, database: Database, schedules: Schedules, *, interval: float = 15.0, pause: float = 1.0
    ) -> None:
        self._database = database
        self._schedules = schedules
        self._interval = interval
        self._pause = pause
        self._after = _START
        self._due = 0.0
        self._told_of: set[str] = set()

    async def run(self) -> None:
        """Tell and compare until cancelled. An absent Postgres or Temporal is waited for."""
        await keep_on(self._pass, what="schedules", pause=self._pause, full=_BATCH)

    async def _pass(self) -> int:
        told = await self.tell()
        if time.monotonic() >= self._due:
            async with advisory.alone(self._database, _LOCK) as mine:
                if mine:
                    await self.compare()
            self._due = time.monotonic() + self._interval
        return told

    async def tell(self) -> int:
        """Tell Temporal of what is PENDING; how many there were."""
        async with self._database.read() as connection:
            rows = await triggers.pending(connection, _BATCH)
        for row in rows:
            await self._apply(row)
        return len(rows)

    async def compare(self) -> None:
        """Remove schedules that no row wants, make those that are missing or differ."""
        # Listed before the rows are read: whatever stands in Temporal by then had its row.
        listed = [id async for page in self._schedules.ids() for id in page]
        wanted: set[str] = set()
        rows: list[Record] = []
        after = _START
        while True:
            async with self._database.read() as connection:
                page = await triggers.page(connection, after, _PAGE)
            if not page:
                break
            after = _place(page[-1])
            rows += [row for row in page if _in_temporal(row)]
        wanted = {self._schedules.id_of(row) for row in rows}
        for id in sorted(set(listed) - wanted):
            _log.warning("schedule without a trigger removed", schedule=id)
            await self._schedules.remove(id)
        self._tell_of_twins(rows)
        await self._look(rows, set(listed))
        async with self._database.begin() as connection:
            await triggers.purge(connection, days=_KEPT_DAYS)

    def _tell_of_twins(self, rows: list[Record]) -> None:
        """Once for each: their moments wait for a worker that may never come."""
        twins = [id for id in self._schedules.twins(rows) if id not in self._told_of]
        self._told_of.update(twins)
        if twins:
            _log.warning(
                "schedules of another task queue",
                schedules=twins[:20],
                count=len(twins),
                hint="delete them with `temporal schedule delete` if PINFLOW_TASK_QUEUE was given another name",
            )

    async def _look(self, rows: list[Record], listed: set[str]) -> None:
        """Those that are missing or were refused, and some of the others, in turn."""
        rest = [row for row in rows if _place(row) > self._after][:_LOOKED_AT]
        self._after = _place(rest[-1]) if len(rest) == _LOOKED_AT else _START
        turn = {_place(row) for row in rest}
        for row in rows:
            missing = self._schedules.id_of(row) not in listed or row["status"] != "APPLIED"
            if (missing or _place(row) in turn) and await self._schedules.look(row) != row["applied"]:
                await self._apply(row)

    async def _apply(self, row: Record) -> None:
        try:
            await faults.point("schedule.before_tell")
            if _in_temporal(row):
                applied = await self._schedules.put(row)
            else:
                await self._schedules.remove(self._schedules.id_of(row))
                applied = ""
            await faults.point("schedule.after_tell")
        except Misconfigured as error:
            async with self._database.begin() as connection:
                if await triggers.refuse(connection, row, error.message, actor=_ACTOR):
                    _log.error(
                        "schedule refused", workflow=row["workflow"], trigger=row["id"], reason=error.message
                    )
            return
        async with self._database.begin() as connection:
            if row["live"]:
                await triggers.applied(connection, row, applied, actor=_ACTOR)
            else:
                await triggers.forget(connection, row)
        _log.info("trigger applied", workflow=row["workflow"], trigger=row["id"], live=row["live"])


_START = (0, "", "")


def _place(row: Record) -> tuple[int, str, str]:
    return row["source_id"], row["workflow"], row["id"]


def _in_temporal(row: Record) -> bool:
    return bool(row["live"]) and row["spec"]["type"] == "schedule"
