"""Kill -9 of a worker between a trigger's row and Temporal, and in the middle of a moment."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from engine.storage.database import Database
from tests.support.registered import register
from tests.support.system import System
from tests.support.triggers import schedule, triggered

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

EACH_SECOND = "* * * * * * *"


class Bench:
    """The system, and a way to publish a workflow into it without git. The tests share it; each has a workflow of its own."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.database = Database(system.postgres.url())
        self.name = ""
        self.serial = itertools.count()
        self._published = 0

    async def publish(self, *triggers: dict[str, Any]) -> None:
        """A revision whose workflow of this test has these triggers."""
        self._published += 1
        form = triggered(self.name, *triggers, version=str(self._published))
        await register(self.database, self.name, compiled=form)

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query."""
        async with self.database.begin() as connection:
            result = await connection.execute(text(query), values)
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    async def until(self, query: str, what: str, **values: Any) -> None:
        """Wait for a query to have a row."""

        async def condition() -> bool:
            return bool(await self.rows(query, **values))

        await self.system.until(condition, what)

    async def dies_at(self, point: str) -> None:
        """The worker is launched again, and dies there; another one takes its place once it has."""
        if self.system.runs("worker"):
            self.system.kill("worker")
        self.system.launch("worker", faults=f"{point}=kill")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    system = System(tmp_path_factory.mktemp("system"))
    try:
        await system.start("worker")
        made = Bench(system)
        yield made
        await made.database.aclose()
    finally:
        await system.stop()


@pytest.fixture
def bench(shared: Bench) -> Bench:
    shared.name = f"report-{next(shared.serial)}"
    return shared


@pytest.mark.parametrize("point", ["schedule.before_tell", "schedule.after_tell"])
async def test_a_worker_that_dies_while_it_tells_temporal_leaves_what_was_merged(
    bench: Bench, point: str
) -> None:
    for triggers in ([schedule(cron="0 6 * * *")], [schedule(cron=EACH_SECOND)], []):
        await bench.dies_at(point)
        await bench.publish(*triggers)
        await bench.system.died("worker")
        bench.system.launch("worker")
        await bench.until(
            "SELECT 1 WHERE NOT EXISTS (SELECT FROM triggers WHERE status <> 'APPLIED' OR NOT live)",
            "Temporal to be told",
        )
        if triggers == [schedule(cron=EACH_SECOND)]:
            await bench.until(
                "SELECT 1 FROM workflow_executions WHERE workflow = :name",
                "the schedule to fire",
                name=bench.name,
            )
    assert await bench.rows("SELECT 1 FROM triggers") == []


@pytest.mark.parametrize("point", ["fire.after_claim", "fire.after_start"])
async def test_a_worker_that_dies_while_a_schedule_fires_starts_each_moment_once(
    bench: Bench, point: str
) -> None:
    await bench.dies_at(point)
    await bench.publish(schedule(cron=EACH_SECOND, overlap="allow_all"))
    await bench.system.died("worker")
    (torn,) = await bench.rows(
        "SELECT workflow, key FROM trigger_fires WHERE workflow = :name AND status = 'CLAIMED' ORDER BY key LIMIT 1",
        name=bench.name,
    )
    bench.system.launch("worker")
    await bench.until(
        "SELECT 1 FROM trigger_fires WHERE workflow = :workflow AND key = :key AND status = 'STARTED'",
        "the torn moment",
        **torn,
    )
    await bench.publish()
    await bench.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM triggers)", "the schedule to go")
    runs = await bench.rows(
        "SELECT trigger ->> 'scheduled_at' AS at, count(*) FROM workflow_executions WHERE workflow = :name GROUP BY 1",
        name=bench.name,
    )
    assert torn["key"] in {run["at"] for run in runs}
    assert {run["count"] for run in runs} == {1}
