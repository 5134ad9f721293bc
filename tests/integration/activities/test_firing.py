"""A schedule that fires by itself: real Temporal, real Postgres, a real worker."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest_asyncio
from sqlalchemy import text

from engine.settings import Settings
from engine.storage.database import Database
from engine.worker import serve_worker
from tests.support.registered import register
from tests.support.triggers import schedule, triggered

EACH_SECOND = "* * * * * * *"
"""Temporal's own form with seconds first and years last, which definitions may not use."""


class Yard:
    """A database and workers on it."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self._published = 0

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """A worker in this process, drained at the end of the block."""
        stop = asyncio.Event()
        task = asyncio.create_task(serve_worker(self.settings, stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def publish(self, *triggers: dict[str, Any], **changes: Any) -> str:
        """A revision whose `report` has these triggers; its commit."""
        self._published += 1
        form = triggered("report", *triggers, version=str(self._published), **changes)
        return (await register(self.database, "report", compiled=form)).commit_sha

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query."""
        async with self.database.begin() as connection:
            result = await connection.execute(text(query), values)
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    async def until(self, query: str, limit: float = 40.0, **values: Any) -> list[dict[str, Any]]:
        """Wait for a query to have a row."""
        end = time.monotonic() + limit
        while not (found := await self.rows(query, **values)):
            assert time.monotonic() < end, f"waited in vain for {query}"
            await asyncio.sleep(0.05)
        return found


@pytest_asyncio.fixture(loop_scope="session")
async def yard(database: Database, database_url: str, temporal: str, tmp_path: Path) -> AsyncIterator[Yard]:
    settings = Settings(
        database_url=database_url,
        temporal_address=temporal,
        task_queue=f"test-{uuid.uuid4().hex[:8]}",
        data_dir=tmp_path,
        drain_timeout=5.0,
        reconcile_interval=1.0,
    )
    made = Yard(database, settings)
    yield made
    # A schedule without its database would fire for as long as the server lives.
    await made.publish()
    async with made.worker():
        await made.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM triggers)")


async def test_a_merged_schedule_fires_runs_that_end_and_a_commit_without_it_ends_them(yard: Yard) -> None:
    commit = await yard.publish(schedule(cron=EACH_SECOND, overlap="allow_all"))
    async with yard.worker():
        await yard.until("SELECT 1 FROM workflow_executions WHERE status = 'COMPLETED' OFFSET 2")
        runs = await yard.rows("SELECT * FROM workflow_executions ORDER BY trigger ->> 'scheduled_at'")
        times = [datetime.fromisoformat(run["trigger"]["scheduled_at"]) for run in runs]
        assert len(set(times)) == len(times)
        assert all(at.microsecond == 0 for at in times)
        assert {(run["commit_sha"], run["started_by"]) for run in runs} == {(commit, "trigger:nightly")}
        await yard.publish(schedule("other", cron=EACH_SECOND, overlap="allow_all"))
        (gone,) = await yard.until(
            "SELECT now() AS at WHERE NOT EXISTS (SELECT FROM triggers WHERE id = 'nightly')"
        )
        await yard.until("SELECT 1 FROM trigger_fires WHERE trigger = 'other' AND at > :at OFFSET 2", **gone)
        late = "SELECT 1 FROM trigger_fires WHERE trigger = 'nightly' AND scheduled_at > :at"
        assert await yard.rows(late, **gone) == []


async def test_jitter_moves_the_start_and_not_the_scheduled_time(yard: Yard) -> None:
    await yard.publish(schedule(cron="*/2 * * * * * *", overlap="allow_all", jitter=1.0))
    async with yard.worker():
        await yard.until("SELECT 1 FROM workflow_executions OFFSET 2")
    runs = await yard.rows("SELECT trigger ->> 'scheduled_at' AS at FROM workflow_executions")
    times = [datetime.fromisoformat(run["at"]) for run in runs]
    assert all(at.microsecond == 0 and at.second % 2 == 0 for at in times), times


async def test_a_run_that_stays_open_is_not_overlapped_by_the_next_moments(yard: Yard) -> None:
    waiting = {"tasks": [_wait("pause")]}
    await yard.publish(schedule(cron=EACH_SECOND), **waiting)
    async with yard.worker():
        await yard.until("SELECT 1 FROM trigger_fires WHERE status = 'SKIPPED' OFFSET 1")
        (run,) = await yard.rows("SELECT id FROM workflow_executions")
        (audit,) = await yard.rows(
            "SELECT details FROM audit WHERE action = 'trigger.skipped' ORDER BY id LIMIT 1"
        )
        assert run["id"] in audit["details"]["reason"]


def _wait(name: str) -> dict[str, Any]:
    from tests.support.definitions import definition, task

    made: dict[str, Any] = definition(task(name, type="wait", duration=600))["tasks"][0]
    return made
