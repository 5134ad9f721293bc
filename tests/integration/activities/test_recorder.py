"""Attempts reach Postgres in batches, beside the work."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from engine.activities.recorder import AttemptRecorder, RecordingInterceptor
from engine.errors import Unavailable
from engine.storage.database import Database
from tests.integration.activities.conftest import Run

SCHEDULED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest_asyncio.fixture(loop_scope="session")
async def recorder(database: Database) -> AsyncIterator[AttemptRecorder]:
    made = AttemptRecorder(database, worker="w1")
    made.start()
    yield made
    await made.aclose(limit=1.0)


class Work(ActivityInboundInterceptor):
    """The innermost of the chain: the activity itself."""

    def __init__(self, do: Callable[[], Awaitable[Any]]) -> None:
        self._do = do

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        return await self._do()


def environment(
    number: int = 1, scheduled: datetime = SCHEDULED, type: str = "http_request"
) -> ActivityEnvironment:
    made = ActivityEnvironment()
    made.info = dataclasses.replace(made.info, attempt=number, scheduled_time=scheduled, activity_type=type)
    return made


async def perform(
    recorder: AttemptRecorder,
    run: Run,
    do: Callable[[], Awaitable[Any]],
    around: ActivityEnvironment,
    task: str = "a",
) -> Any:
    chain = RecordingInterceptor(recorder).intercept_activity(Work(do))
    body = {"execution_id": run.id, "task": task}
    entry = ExecuteActivityInput(fn=do, args=[body], executor=None, headers={})
    return await around.run(chain.execute_activity, entry)


async def rows(run: Run, count: int, ended: bool = True) -> list[dict[str, Any]]:
    end = time.monotonic() + 5
    while True:
        found = await run.rows(
            "SELECT * FROM task_attempts WHERE execution_id = :run ORDER BY task, scheduled_at, attempt"
        )
        if len(found) == count and all(row["phase"] == 1 for row in found) is ended:
            return found
        assert time.monotonic() < end, found
        await asyncio.sleep(0.02)


async def nothing() -> str:
    return "result"


async def test_completed_attempt(recorder: AttemptRecorder, run: Run) -> None:
    assert await perform(recorder, run, nothing, environment(2)) == "result"
    (row,) = await rows(run, 1)
    assert (row["task"], row["attempt"], row["status"], row["worker"]) == ("a", 2, "COMPLETED", "w1")
    assert row["scheduled_at"] == SCHEDULED
    assert row["started_at"] <= row["finished_at"]
    assert row["error"] is None


async def test_failed_attempt_says_why(recorder: AttemptRecorder, run: Run) -> None:
    async def fail() -> None:
        details = {"attempt": 1, "details": {"status": 500, "body": "nul \x00"}}
        raise ApplicationError("answered 500", details, type="HTTP_5XX")

    with pytest.raises(ApplicationError):
        await perform(recorder, run, fail, environment())
    (row,) = await rows(run, 1)
    assert row["status"] == "FAILED"
    assert row["error"]["type"] == "HTTP_5XX"
    assert row["error"]["details"]["body"] == "nul \ufffd"


async def test_long_attempt_is_seen_while_it_runs(recorder: AttemptRecorder, run: Run) -> None:
    release = asyncio.Event()
    task = asyncio.create_task(perform(recorder, run, release.wait, environment()))
    (row,) = await rows(run, 1, ended=False)
    assert (row["status"], row["finished_at"]) == ("RUNNING", None)
    release.set()
    await task
    (row,) = await rows(run, 1)
    assert row["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("why", "status", "kind"),
    [
        ({"cancel_requested": True}, "CANCELLED", None),
        ({"timed_out": True}, "FAILED", "TIMEOUT"),
        ({"worker_shutdown": True}, "FAILED", "WORKER_STOPPED"),
    ],
)
async def test_reasons_of_a_cancellation(
    recorder: AttemptRecorder, run: Run, why: dict[str, bool], status: str, kind: str | None
) -> None:
    around = environment()
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(perform(recorder, run, wait, around))
    await begun.wait()
    around.cancel(activity.ActivityCancellationDetails(**why))
    with pytest.raises(asyncio.CancelledError):
        await task
    (row,) = await rows(run, 1)
    assert (row["status"], (row["error"] or {}).get("type")) == (status, kind)


async def test_attempt_after_a_kill_has_a_row_of_its_own(recorder: AttemptRecorder, run: Run) -> None:
    """A local activity that is repeated after a kill is attempt 1 again, scheduled later."""
    await perform(recorder, run, nothing, environment(1, SCHEDULED))
    await perform(recorder, run, nothing, environment(1, SCHEDULED + timedelta(seconds=10)))
    assert len(await rows(run, 2)) == 2


async def test_row_that_has_ended_does_not_begin_again(
    recorder: AttemptRecorder, run: Run, database: Database
) -> None:
    await perform(recorder, run, nothing, environment())
    await rows(run, 1)
    late = AttemptRecorder(database, worker="w2")
    late.start()
    late.begun(environment().info, run.id, "a")
    await late.aclose()
    (row,) = await rows(run, 1)
    assert (row["status"], row["worker"]) == ("COMPLETED", "w1")


async def test_our_own_activities_leave_no_rows(recorder: AttemptRecorder, run: Run) -> None:
    await perform(recorder, run, nothing, environment(type="pinflow.record_run"))
    await perform(recorder, run, nothing, environment(), task="b")
    assert [row["task"] for row in await rows(run, 1)] == ["b"]


async def test_thousands_in_batches(recorder: AttemptRecorder, run: Run) -> None:
    await asyncio.gather(*(perform(recorder, run, nothing, environment(), f"t{n}") for n in range(2500)))
    assert len(await rows(run, 2500)) == 2500


async def test_close_writes_what_is_left(run: Run, database: Database) -> None:
    recorder = AttemptRecorder(database, worker="w1")
    recorder.start()
    await perform(recorder, run, nothing, environment())
    await recorder.aclose()
    assert len(await rows(run, 1)) == 1


async def test_one_row_that_is_refused_does_not_take_others_along(
    recorder: AttemptRecorder, run: Run
) -> None:
    await perform(recorder, run, nothing, environment(2**40), "impossible")
    await perform(recorder, run, nothing, environment(), "fine")
    assert [row["task"] for row in await rows(run, 1)] == ["fine"]


class Absent(Database):
    """Postgres, away until told otherwise."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.away = True
        self.tried = 0

    def direct(self) -> Any:
        self.tried += 1
        if self.away:
            raise Unavailable("Postgres is away")
        return super().direct()


async def test_absent_postgres_delays_nothing_and_loses_nothing(run: Run, database_url: str) -> None:
    absent = Absent(database_url)
    recorder = AttemptRecorder(absent, worker="w1")
    recorder.start()
    for n in range(20):
        assert await perform(recorder, run, nothing, environment(), f"t{n}") == "result"
    await _until(lambda: absent.tried > 0)
    absent.away = False
    assert len(await rows(run, 20)) == 20
    await recorder.aclose()
    await absent.aclose()


async def test_buffer_is_bounded(run: Run, database_url: str) -> None:
    absent = Absent(database_url)
    recorder = AttemptRecorder(absent, worker="w1", limit=10)
    recorder.start()
    for n in range(50):
        await perform(recorder, run, nothing, environment(), f"t{n:02}")
    await _until(lambda: absent.tried > 0)
    absent.away = False
    assert [row["task"] for row in await rows(run, 10)] == [f"t{n}" for n in range(40, 50)]
    await recorder.aclose()
    await absent.aclose()


async def test_close_gives_up_in_time(run: Run, database_url: str) -> None:
    absent = Absent(database_url)
    recorder = AttemptRecorder(absent, worker="w1")
    recorder.start()
    await perform(recorder, run, nothing, environment())
    began = time.monotonic()
    await recorder.aclose(limit=0.3)
    assert time.monotonic() - began < 2.0
    await absent.aclose()


async def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
