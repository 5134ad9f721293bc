"""What a schedule's moment becomes: judged in Postgres, over real runs, and started on Temporal."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from engine import faults
from engine.errors import Forbidden, InvalidInput, NotFound, Unavailable
from engine.executor.payloads import data_converter
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.services.callers import Caller
from engine.services.workflow_service import WorkflowService
from engine.storage.database import Database
from tests.support.registered import Registered, register
from tests.support.triggers import schedule, triggered, webhook

ADA = Caller("ada", frozenset({"operator"}))
NIGHT = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
INPUTS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"of": {"type": "string"}, "count": {"type": "integer", "default": 3}},
}


class Clock:
    """A service whose schedules fire when a test says so. No worker runs: a run stays open until a test ends it."""

    def __init__(self, database: Database, service: WorkflowService) -> None:
        self.database = database
        self.service = service
        self._published = 0

    async def publish(self, *triggers: dict[str, Any], **changes: Any) -> Registered:
        """A revision whose `report` has these triggers."""
        self._published += 1
        form = triggered("report", *triggers, version=str(self._published), **changes)
        return await register(self.database, "report", compiled=form)

    async def fire(self, day: int = 0, trigger: str = "nightly", *, late: float = 0.0) -> dict[str, Any]:
        """The moment of a day comes."""
        fired = {
            "source": "main",
            "workflow": "report",
            "trigger": trigger,
            "scheduled_at": (NIGHT + timedelta(days=day)).isoformat(),
            "fired_at": (datetime.now(UTC) - timedelta(seconds=late)).isoformat(),
        }
        return await self.service.triggers.fire(fired)

    async def waits(self, day: int, trigger: str = "nightly") -> str:
        """The moment has to wait; for what."""
        with pytest.raises(Unavailable) as told:
            await self.fire(day, trigger)
        return told.value.message

    async def end(self, run: str, status: str = "COMPLETED") -> None:
        """A run ends."""
        await self.rows(
            "UPDATE workflow_executions SET status = :status, finished_at = now() WHERE id = :run",
            run=run,
            status=status,
        )

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query."""
        async with self.database.begin() as connection:
            result = await connection.execute(text(query), values)
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    async def runs(self) -> list[dict[str, Any]]:
        """All runs, the oldest first."""
        return await self.rows("SELECT * FROM workflow_executions ORDER BY id")

    async def audited(self) -> list[str]:
        """What the audit says of moments."""
        rows = await self.rows("SELECT action FROM audit WHERE action LIKE 'trigger.%' ORDER BY id")
        return [row["action"] for row in rows]


@pytest_asyncio.fixture(loop_scope="session")
async def clock(database: Database, temporal: str) -> AsyncIterator[Clock]:
    executor = await TemporalWorkflowExecutor.connect(
        temporal,
        namespace="default",
        task_queue=f"test-{uuid.uuid4().hex[:8]}",
        converter=data_converter(database),
        lazy=False,
    )
    yield Clock(database, WorkflowService(database, executor))


async def test_a_moment_starts_one_run_of_what_is_live_and_the_run_knows_of_it(clock: Clock) -> None:
    version = await clock.publish(schedule(inputs={"of": "${{ trigger.scheduled_at }}"}), inputs=INPUTS)
    answer = await clock.fire()
    (run,) = await clock.runs()
    assert answer == {"status": "STARTED", "reason": "", "execution_id": run["id"], "repeated": False}
    assert (run["commit_sha"], run["started_by"]) == (version.commit_sha, "trigger:nightly")
    assert run["inputs"] == {"of": "2026-03-01T06:00:00Z", "count": 3}
    assert run["trigger"] == {
        "type": "schedule",
        "id": "nightly",
        "scheduled_at": "2026-03-01T06:00:00Z",
        "previous_scheduled_at": None,
    }


async def test_a_moment_that_is_told_again_starts_nothing_more(clock: Clock) -> None:
    await clock.publish(schedule())
    first = await clock.fire()
    await clock.publish(schedule(inputs={"of": "other"}), inputs=INPUTS)
    again = await clock.fire()
    assert again["execution_id"] == first["execution_id"]
    assert len(await clock.runs()) == 1


async def test_the_pin_is_what_is_live_when_it_fires(clock: Clock) -> None:
    await clock.publish(schedule(overlap="allow_all"))
    await clock.fire(0)
    newer = await clock.publish(schedule(overlap="allow_all"))
    await clock.fire(1)
    runs = await clock.runs()
    assert runs[1]["commit_sha"] == newer.commit_sha != runs[0]["commit_sha"]
    assert runs[1]["trigger"]["previous_scheduled_at"] == "2026-03-01T06:00:00Z"


@pytest.mark.parametrize(
    "point", ["fire.after_claim", "start.before_commit", "start.after_commit", "fire.after_start"]
)
async def test_whoever_dies_while_it_fires_leaves_one_run(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    await clock.publish(schedule())
    monkeypatch.setenv("PINFLOW_FAULTS", f"{point}=error")
    with pytest.raises(faults.InjectedFault):
        await clock.fire()
    monkeypatch.delenv("PINFLOW_FAULTS")
    # A merge comes in between, with other inputs.
    await clock.publish(schedule(inputs={"of": "x"}), inputs=INPUTS)
    answer = await clock.fire()
    (run,) = await clock.runs()
    assert answer["execution_id"] == run["id"]
    assert (await clock.fire(1))["status"] == "SKIPPED"


async def test_a_claim_whose_maker_died_after_the_start_still_stands_in_the_way(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await clock.publish(schedule())
    monkeypatch.setenv("PINFLOW_FAULTS", "fire.after_start=error")
    with pytest.raises(faults.InjectedFault):
        await clock.fire(0)
    monkeypatch.delenv("PINFLOW_FAULTS")
    await clock.rows("UPDATE trigger_fires SET seen_at = now() - interval '1 hour'")
    assert (await clock.fire(1))["status"] == "SKIPPED"


async def test_a_claim_that_led_to_nothing_stands_in_the_way_for_a_while_only(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await clock.publish(schedule())
    monkeypatch.setenv("PINFLOW_FAULTS", "fire.after_claim=error")
    with pytest.raises(faults.InjectedFault):
        await clock.fire(0)
    monkeypatch.delenv("PINFLOW_FAULTS")
    assert (await clock.fire(1))["status"] == "SKIPPED"
    await clock.rows("UPDATE trigger_fires SET seen_at = now() - interval '1 hour'")
    assert (await clock.fire(2))["status"] == "STARTED"


async def test_a_moment_whose_when_is_false_starts_nothing(clock: Clock) -> None:
    await clock.publish(schedule(when="${{ trigger.previous_scheduled_at != null && env.limit > 3 }}"))
    assert await clock.fire() == {"status": "IGNORED", "reason": "`when` is false", "execution_id": ""}
    assert await clock.runs() == []


async def test_inputs_that_do_not_fit_fail_the_moment_and_say_why(clock: Clock) -> None:
    await clock.publish(schedule(inputs={"of": 5}), inputs=INPUTS)
    answer = await clock.fire()
    assert answer["status"] == "FAILED"
    assert "schema" in answer["reason"]
    assert await clock.fire() == answer
    assert await clock.audited() == ["trigger.failed"]


async def test_an_expression_that_cannot_be_worked_out_fails_the_moment(clock: Clock) -> None:
    await clock.publish(schedule(inputs={"of": "${{ trigger.body.nothing }}"}), inputs=INPUTS)
    assert (await clock.fire())["status"] == "FAILED"


async def test_a_moment_of_a_trigger_that_is_gone_starts_nothing(clock: Clock) -> None:
    await clock.publish(schedule())
    await clock.publish()
    assert (await clock.fire())["status"] == "GONE"
    assert await clock.runs() == []


async def test_a_moment_that_nobody_could_look_at_in_time_is_missed(clock: Clock) -> None:
    await clock.publish(schedule(catchup_window=120.0, overlap="allow_all"))
    assert (await clock.fire(0, late=100))["status"] == "STARTED"
    assert (await clock.fire(1, late=130))["status"] == "MISSED"
    assert (await clock.fire(1))["status"] == "MISSED"
    assert await clock.audited() == ["trigger.missed"]


# --- overlap ---------------------------------------------------------------------------------------------------


async def test_skip_leaves_out_what_would_overlap_a_real_run(clock: Clock) -> None:
    await clock.publish(schedule())
    first = await clock.fire(0)
    skipped = await clock.fire(1)
    assert skipped["status"] == "SKIPPED"
    assert first["execution_id"] in skipped["reason"]
    await clock.end(first["execution_id"], "FAILED")
    assert (await clock.fire(2))["status"] == "STARTED"
    assert (await clock.fire(1))["status"] == "SKIPPED"
    assert await clock.audited() == ["trigger.skipped"]


async def test_runs_that_somebody_else_started_do_not_count(clock: Clock) -> None:
    await clock.publish(schedule(), schedule("other"))
    await clock.service.executions.execute(ADA, "report", {})
    await clock.fire(0, "other")
    assert (await clock.fire(0))["status"] == "STARTED"


async def test_buffer_one_lets_one_wait_and_leaves_out_the_rest(clock: Clock) -> None:
    await clock.publish(schedule(overlap="buffer_one"))
    first = await clock.fire(0)
    assert first["execution_id"] in await clock.waits(1)
    assert (await clock.fire(2))["status"] == "SKIPPED"
    await clock.waits(1)
    await clock.end(first["execution_id"])
    assert (await clock.fire(1))["status"] == "STARTED"


async def test_buffer_all_starts_them_one_after_the_other_in_their_order(clock: Clock) -> None:
    await clock.publish(schedule(overlap="buffer_all"))
    run = (await clock.fire(0))["execution_id"]
    for day in (3, 1, 2):
        await clock.waits(day)
    for day in (1, 2, 3):
        await clock.end(run)
        for later in range(day + 1, 4):
            await clock.waits(later)
        run = (await clock.fire(day))["execution_id"]
    assert len(await clock.runs()) == 4


async def test_of_moments_judged_at_once_one_starts(clock: Clock) -> None:
    await clock.publish(schedule())
    answers = await asyncio.gather(*(clock.fire(day) for day in range(6)))
    assert sorted(answer["status"] for answer in answers) == ["SKIPPED"] * 5 + ["STARTED"]


async def test_cancel_other_asks_once_and_starts_when_it_has_ended(clock: Clock) -> None:
    await clock.publish(schedule(overlap="cancel_other"))
    first = (await clock.fire(0))["execution_id"]
    await clock.waits(1)
    await clock.waits(1)
    asked = await clock.rows("SELECT actor FROM audit WHERE action = 'execution.cancel_requested'")
    assert [row["actor"] for row in asked] == ["trigger:nightly"]
    await clock.end(first, "CANCELLED")
    assert (await clock.fire(1))["status"] == "STARTED"


async def test_cancel_other_lets_the_newest_of_those_that_wait_win(clock: Clock) -> None:
    await clock.publish(schedule(overlap="cancel_other"))
    first = (await clock.fire(0))["execution_id"]
    await clock.waits(1)
    await clock.waits(2)
    assert (await clock.fire(1))["status"] == "SKIPPED"
    await clock.end(first, "CANCELLED")
    assert (await clock.fire(2))["status"] == "STARTED"


async def test_terminate_other_ends_it_at_once(clock: Clock) -> None:
    await clock.publish(schedule(overlap="terminate_other"))
    first = (await clock.fire(0))["execution_id"]
    await clock.waits(1)
    assert (await clock.fire(1))["status"] == "STARTED"
    (run, _) = await clock.runs()
    assert (run["id"], run["status"], run["error"]["type"]) == (first, "FAILED", "Terminated")


async def test_allow_all_lets_them_run_side_by_side(clock: Clock) -> None:
    await clock.publish(schedule(overlap="allow_all"))
    assert [(await clock.fire(day))["status"] for day in range(3)] == ["STARTED"] * 3


# --- backfill --------------------------------------------------------------------------------------------------


async def backfill(clock: Clock, days: int, **changes: Any) -> list[dict[str, Any]]:
    """Backfill the nights from the first one on."""
    answer = await clock.service.triggers.backfill(
        changes.get("by", ADA), "report", "nightly", NIGHT, NIGHT + timedelta(days=days)
    )
    items: list[dict[str, Any]] = answer["items"]
    return items


async def test_a_backfill_starts_one_run_for_each_scheduled_time(clock: Clock) -> None:
    await clock.publish(schedule(inputs={"of": "${{ trigger.scheduled_at }}"}), inputs=INPUTS)
    items = await backfill(clock, 3)
    assert [item["scheduled_at"] for item in items] == [f"2026-03-0{day}T06:00:00Z" for day in (1, 2, 3)]
    runs = await clock.runs()
    assert [run["inputs"]["of"] for run in runs] == [item["scheduled_at"] for item in items]
    assert [run["trigger"]["previous_scheduled_at"] for run in runs] == [
        None,
        "2026-03-01T06:00:00Z",
        "2026-03-02T06:00:00Z",
    ]
    (entry,) = await clock.rows("SELECT actor, details FROM audit WHERE action = 'trigger.backfilled'")
    assert (entry["actor"], entry["details"]["started"]) == ("ada", 3)


async def test_a_backfill_can_be_repeated_and_leaves_out_what_has_run(clock: Clock) -> None:
    await clock.publish(schedule(overlap="allow_all"))
    fired = (await clock.fire(1))["execution_id"]
    first = await backfill(clock, 3)
    again = await backfill(clock, 4)
    assert [item["repeated"] for item in first] == [False, True, False]
    assert [item["repeated"] for item in again] == [True, True, True, False]
    assert first[1]["execution_id"] == fired
    assert len(await clock.runs()) == 4


async def test_a_backfill_starts_what_was_skipped_and_does_not_stand_in_the_way(clock: Clock) -> None:
    await clock.publish(schedule())
    first = (await clock.fire(0))["execution_id"]
    assert (await clock.fire(1))["status"] == "SKIPPED"
    items = await backfill(clock, 2)
    assert [item["status"] for item in items] == ["STARTED", "STARTED"]
    await clock.end(first)
    assert (await clock.fire(2))["status"] == "STARTED"


async def test_a_long_span_is_backfilled_in_parts(clock: Clock) -> None:
    await clock.publish(schedule(cron="0 * * * *"))
    until = NIGHT + timedelta(hours=130)
    first = await clock.service.triggers.backfill(ADA, "report", "nightly", NIGHT, until)
    assert len(first["items"]) == 100
    since = datetime.fromisoformat(str(first["next"]))
    assert since == NIGHT + timedelta(hours=100)
    rest = await clock.service.triggers.backfill(ADA, "report", "nightly", since, until)
    assert (len(rest["items"]), rest["next"]) == (30, None)


async def test_what_cannot_be_backfilled_is_refused(clock: Clock) -> None:
    await clock.publish(schedule(), webhook())
    service = clock.service.triggers
    with pytest.raises(InvalidInput, match="future"):
        await service.backfill(ADA, "report", "nightly", NIGHT, datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(InvalidInput, match="empty"):
        await service.backfill(ADA, "report", "nightly", NIGHT, NIGHT)
    with pytest.raises(InvalidInput, match="webhook"):
        await service.backfill(ADA, "report", "pushed", NIGHT, NIGHT + timedelta(days=1))
    with pytest.raises(NotFound, match="nightly, pushed"):
        await service.backfill(ADA, "report", "other", NIGHT, NIGHT + timedelta(days=1))
    viewer = Caller("eve", frozenset({"viewer"}))
    with pytest.raises(Forbidden):
        await service.backfill(viewer, "report", "nightly", NIGHT, NIGHT + timedelta(days=1))
