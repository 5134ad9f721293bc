"""Schedules follow the rows of triggers: real Temporal, real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
import structlog
from sqlalchemy import text
from temporalio.client import Client, ScheduleDescription

from engine import faults
from engine.errors import Misconfigured, Unavailable
from engine.executor.payloads import data_converter
from engine.executor.schedule_sync import ScheduleSync
from engine.executor.schedules import Schedules
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.storage.database import Database
from tests.support.registered import register
from tests.support.triggers import schedule, triggered, webhook


class Clockwork:
    """A database, Temporal, and what joins them, driven by hand."""

    def __init__(self, database: Database, client: Client, queue: str) -> None:
        self.database = database
        self.client = client
        self.queue = queue
        self.schedules = Schedules(client, task_queue=queue)
        self.sync = ScheduleSync(database, self.schedules)
        self._published = 0

    async def publish(self, *triggers: dict[str, Any], name: str = "report", **changes: Any) -> None:
        """A revision whose `name` has these triggers."""
        self._published += 1
        compiled = triggered(name, *triggers, version=str(self._published), **changes)
        await register(self.database, name, compiled=compiled)

    async def retire(self, name: str = "report") -> None:
        """A revision without `name`."""
        await self.rows("UPDATE workflow_definitions SET live_version_id = NULL WHERE name = :n", n=name)
        await self.rows("UPDATE sources SET live_seq = live_seq + 1")
        from engine.storage import triggers

        async with self.database.begin() as connection:
            await triggers.follow(connection, source_id=1, seq=1000, names=[name])

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query."""
        async with self.database.begin() as connection:
            result = await connection.execute(text(query), values)
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    async def row(self, id: str = "nightly") -> dict[str, Any]:
        """The row of a trigger."""
        (found,) = await self.rows("SELECT * FROM triggers WHERE id = :id", id=id)
        return found

    async def there(self, id: str = "nightly", workflow: str = "report") -> ScheduleDescription | None:
        """The schedule as Temporal has it."""
        name = f"pinflow/{self.queue}/main/{workflow}/{id}"
        try:
            return await self.client.get_schedule_handle(name).describe()
        except Exception as error:
            if "not found" in str(error).lower() or "already completed" in str(error).lower():
                return None
            raise

    async def hours(self, id: str = "nightly") -> list[int]:
        """The hours at which the schedule fires."""
        found = await self.there(id)
        assert found is not None
        return sorted(hour.start for each in found.schedule.spec.calendars for hour in each.hour)

    async def patient(self, step: Callable[[], Awaitable[Any]]) -> None:
        """Do a step as the loop does: what Temporal is too busy for is done again."""
        for _ in range(50):
            try:
                await step()
                return
            except Unavailable:
                await asyncio.sleep(0.1)
        raise AssertionError("Temporal is too busy")

    async def actions(self) -> list[str]:
        """What the audit says of triggers."""
        rows = await self.rows("SELECT action FROM audit WHERE action LIKE 'trigger.%' ORDER BY id")
        return [row["action"] for row in rows]


@pytest_asyncio.fixture(loop_scope="session")
async def clockwork(database: Database, temporal: str) -> AsyncIterator[Clockwork]:
    queue = f"test-{uuid.uuid4().hex[:8]}"
    executor = await TemporalWorkflowExecutor.connect(
        temporal, namespace="default", task_queue=queue, converter=data_converter(database), lazy=False
    )
    made = Clockwork(database, executor.client, queue)
    yield made
    async for page in made.schedules.ids():
        for id in page:
            await made.schedules.remove(id)


async def test_a_live_trigger_stands_in_temporal_as_it_is_written(clockwork: Clockwork) -> None:
    await clockwork.publish(
        schedule(timezone="Europe/Rome", overlap="buffer_one", catchup_window=3600.0, jitter=30.0)
    )
    assert await clockwork.sync.tell() == 1
    found = await clockwork.there()
    assert found is not None
    assert await clockwork.hours() == [6]
    spec = found.schedule.spec
    assert (spec.time_zone_name, spec.jitter) == ("Europe/Rome", timedelta(seconds=30))
    assert found.schedule.policy.catchup_window == timedelta(hours=1)
    row = await clockwork.row()
    assert (row["status"], row["message"]) == ("APPLIED", "")
    assert await clockwork.sync.tell() == 0
    assert await clockwork.actions() == ["trigger.applied"]


async def test_a_changed_trigger_changes_its_schedule_and_others_stay(clockwork: Clockwork) -> None:
    await clockwork.publish(schedule(), schedule("weekly", "0 5 * * 1"))
    await clockwork.sync.tell()
    before = await clockwork.row("weekly")
    await clockwork.publish(schedule(cron="0 7 * * *"), schedule("weekly", "0 5 * * 1"))
    assert await clockwork.sync.tell() == 1
    assert await clockwork.hours() == [7]
    assert await clockwork.row("weekly") == before


async def test_new_expressions_alone_leave_the_schedule_alone(clockwork: Clockwork) -> None:
    await clockwork.publish(schedule(inputs={"a": 1}))
    await clockwork.sync.tell()
    await clockwork.publish(schedule(inputs={"a": "${{ trigger.id }}"}, when="${{ env.limit > 1 }}"))
    assert await clockwork.sync.tell() == 0


async def test_a_removed_trigger_and_a_retired_workflow_leave_no_schedule(clockwork: Clockwork) -> None:
    await clockwork.publish(schedule(), schedule("weekly", "0 5 * * 1"))
    await clockwork.sync.tell()
    await clockwork.publish(schedule())
    await clockwork.sync.tell()
    assert await clockwork.there("weekly") is None
    assert await clockwork.there() is not None
    await clockwork.retire()
    await clockwork.sync.tell()
    assert await clockwork.there() is None
    assert await clockwork.rows("SELECT 1 FROM triggers") == []


async def test_a_schedule_that_becomes_a_webhook_and_back(clockwork: Clockwork) -> None:
    await clockwork.publish(schedule("t"))
    await clockwork.sync.tell()
    await clockwork.publish(webhook("t"))
    await clockwork.sync.tell()
    assert await clockwork.there("t") is None
    await clockwork.publish(schedule("t"))
    await clockwork.sync.tell()
    assert await clockwork.hours("t") == [6]


async def test_what_temporal_refuses_changes_nothing_that_is_live_and_the_row_says_why(
    clockwork: Clockwork,
) -> None:
    await clockwork.publish(schedule())
    await clockwork.sync.tell()
    await clockwork.publish(schedule(cron="61 6 * * *"))
    await clockwork.sync.tell()
    row = await clockwork.row()
    assert row["status"] == "REFUSED"
    assert "Minute is not in range" in row["message"]
    assert await clockwork.hours() == [6]
    await clockwork.sync.compare()
    assert await clockwork.actions() == ["trigger.applied", "trigger.refused"]
    await clockwork.publish(schedule(cron="0 8 * * *"))
    await clockwork.sync.tell()
    assert await clockwork.hours() == [8]
    assert (await clockwork.row())["status"] == "APPLIED"


@pytest.mark.parametrize("point", ["schedule.before_tell", "schedule.after_tell"])
async def test_whoever_dies_between_row_and_temporal_leaves_nothing_undone(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    for triggers in ([schedule()], [schedule(cron="0 9 * * *")], []):
        await clockwork.publish(*triggers)
        monkeypatch.setenv("PINFLOW_FAULTS", f"{point}=error")
        with pytest.raises(faults.InjectedFault):
            await clockwork.sync.tell()
        monkeypatch.delenv("PINFLOW_FAULTS")
        assert await clockwork.sync.tell() == 1
        assert await clockwork.sync.tell() == 0
        if triggers:
            assert await clockwork.hours() == [int(triggers[0]["cron"][0].split()[1])]
    assert await clockwork.there() is None


async def test_two_workers_at_once_do_no_harm(clockwork: Clockwork) -> None:
    other = ScheduleSync(clockwork.database, clockwork.schedules)
    for hour in range(5, 10):
        await clockwork.publish(schedule(cron=f"0 {hour} * * *"), schedule("weekly", f"0 {hour} * * 1"))
        await asyncio.gather(
            *(clockwork.patient(each) for each in (clockwork.sync.tell, other.tell, other.compare))
        )
        await clockwork.patient(clockwork.sync.tell)
        assert await clockwork.hours() == [hour]
        assert (await clockwork.row())["status"] == "APPLIED"
    assert (await clockwork.actions()).count("trigger.applied") == 10


async def test_a_slow_worker_does_not_put_an_older_revision_back(clockwork: Clockwork) -> None:
    await clockwork.publish(schedule())
    async with clockwork.database.read() as connection:
        from engine.storage import triggers

        (old,) = await triggers.pending(connection, 10)
    await clockwork.publish(schedule(cron="0 7 * * *"))
    await clockwork.sync.tell()
    await clockwork.schedules.put(old)
    async with clockwork.database.begin() as connection:
        await triggers.applied(connection, old, "late", actor="test")
    assert await clockwork.hours() == [7]
    assert (await clockwork.row())["applied"] != "late"


async def test_a_comparison_mends_what_somebody_deleted_changed_or_added(clockwork: Clockwork) -> None:
    await clockwork.publish(schedule(), schedule("weekly", "0 5 * * 1"))
    await clockwork.sync.tell()
    prefix = f"pinflow/{clockwork.queue}/main/report"
    await clockwork.client.get_schedule_handle(f"{prefix}/nightly").delete()
    (changed,) = [
        dict(row) | {"id": "weekly", "spec": {"cron": ["0 3 * * *"]}}
        for row in await clockwork.rows("SELECT t.*, 'main' AS source FROM triggers t WHERE id = 'weekly'")
    ]
    await clockwork.schedules.put(changed)
    await clockwork.schedules.put(changed | {"id": "stray"})
    await _until_listed(clockwork, f"{prefix}/stray")
    await clockwork.sync.compare()
    assert await clockwork.hours() == [6]
    assert await clockwork.hours("weekly") == [5]
    assert await clockwork.there("stray") is None


async def _until_listed(clockwork: Clockwork, id: str) -> None:
    for _ in range(200):
        if any(id in page for page in [ids async for ids in clockwork.schedules.ids()]):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{id} is never listed")


async def test_a_schedule_that_somebody_paused_stays_paused_while_its_times_change(
    clockwork: Clockwork,
) -> None:
    await clockwork.publish(schedule())
    await clockwork.sync.tell()
    await clockwork.client.get_schedule_handle(f"pinflow/{clockwork.queue}/main/report/nightly").pause(
        note="holidays"
    )
    await clockwork.sync.compare()
    await clockwork.publish(schedule(cron="0 7 * * *"))
    await clockwork.sync.tell()
    found = await clockwork.there()
    assert found is not None
    assert found.schedule.state.paused
    assert found.schedule.state.note == "holidays"
    assert await clockwork.hours() == [7]


async def test_schedules_of_another_task_queue_are_left_alone_and_told_of_once(clockwork: Clockwork) -> None:
    other = Schedules(clockwork.client, task_queue=f"{clockwork.queue}-b")
    row = {"source": "main", "workflow": "report", "id": "nightly", "seq": 1}
    await other.put(row | {"spec": {"cron": ["0 6 * * *"]}})
    await _until_seen(other)
    with structlog.testing.capture_logs() as logs:
        await clockwork.sync.compare()  # whose they are, nobody can tell: here is no such trigger
        assert logs == []
        await clockwork.publish(schedule("nightly"))
        await clockwork.sync.tell()
        await clockwork.sync.compare()
        await clockwork.sync.compare()
    told = [entry["schedules"] for entry in logs if entry["event"] == "schedules of another task queue"]
    assert sum(other.id_of(row) in each for each in told) == 1
    assert await other.look(row) != ""
    await other.remove(other.id_of(row))


async def _until_seen(schedules: Schedules) -> None:
    for _ in range(200):
        if any([page async for page in schedules.ids()]):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the schedule is never listed")


async def test_times_are_those_of_temporal_without_jitter_the_first_included_and_the_last_not(
    clockwork: Clockwork,
) -> None:
    spec = schedule(cron="0 2 * * *", timezone="Europe/Rome", jitter=600.0)
    since = datetime(2026, 10, 24, 0, 0, tzinfo=UTC)
    times = await clockwork.schedules.times(spec, since, datetime(2026, 10, 27, 1, 0, tzinfo=UTC), 50)
    # The night of the 25th has 02:00 twice by the clock of Rome, and the schedule has the second.
    assert [at.isoformat() for at in times] == [
        "2026-10-24T00:00:00+00:00",
        "2026-10-25T01:00:00+00:00",
        "2026-10-26T01:00:00+00:00",
    ]


async def test_many_times_come_page_by_page(clockwork: Clockwork) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    spec = schedule(cron="* * * * *")
    times = await clockwork.schedules.times(spec, since, since + timedelta(days=2), 2500)
    assert len(times) == len(set(times)) == 2500
    assert times[-1] == since + timedelta(minutes=2499)
    assert all([not page async for page in clockwork.schedules.ids()])


async def test_times_of_a_refused_schedule_are_refused(clockwork: Clockwork) -> None:
    now = datetime.now(UTC)
    with pytest.raises(Misconfigured):
        await clockwork.schedules.times(schedule(cron="99 * * * *"), now - timedelta(days=1), now, 5)
