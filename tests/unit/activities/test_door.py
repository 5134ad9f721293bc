"""The door: what becomes of results and errors of any activity type."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from engine.activities.context import Workbench
from engine.activities.door import task_activities
from engine.activities.failures import ActivityFailure
from engine.activities.registry import ActivityConfig, ActivityRegistry, ActivityType, activity_type
from engine.core.contracts import Judgement
from engine.errors import Misconfigured, Unavailable
from tests.support.activities import attempt, call, workbench


class Anything(ActivityConfig):
    """Whatever."""

    value: Any = None


@pytest.fixture
async def bench() -> AsyncIterator[Workbench]:
    async with workbench() as made:
        yield made


def doing(work: Any) -> ActivityType:
    @activity_type(name="test.do", config=Anything)
    async def run(config: Anything, context: Any) -> Any:
        """Do it."""
        return await work(config, context)

    return run


async def result_of(bench: Workbench, value: Any, **fields: Any) -> Any:
    async def work(config: Anything, context: Any) -> Any:
        return value

    return await attempt(bench, call("test.do", {}, **fields), types=[doing(work)])


async def error_of(
    bench: Workbench, raised: Exception, *, number: int = 1, **fields: Any
) -> ApplicationError:
    async def work(config: Anything, context: Any) -> Any:
        raise raised

    with pytest.raises(ApplicationError) as caught:
        await attempt(bench, call("test.do", {}, **fields), types=[doing(work)], number=number)
    return caught.value


class Model(BaseModel):
    when: datetime
    ids: set[int]


@dataclasses.dataclass
class Data:
    a: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({"a": [1, 2.5, "x", True, None]}, {"a": [1, 2.5, "x", True, None]}),
        (Model(when=datetime(2026, 1, 2), ids={1}), {"when": "2026-01-02T00:00:00", "ids": [1]}),  # noqa: DTZ001
        (Data(1), {"a": 1}),
        ((1, 2), [1, 2]),
        ("half \ud83d", "half \ufffd"),
        ("two halves \ud83d\ude00", "two halves \U0001f600"),
        ("nul \x00", "nul \x00"),
    ],
)
async def test_result_becomes_json(bench: Workbench, value: Any, expected: Any) -> None:
    assert await result_of(bench, value) == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "INVALID_RESULT"),
        (float("nan"), "INVALID_RESULT"),
        ({"x": float("inf")}, "INVALID_RESULT"),
        (b"\xff", "INVALID_RESULT"),
        ([10**5000], "INVALID_RESULT"),
        (["x" * 5_000_000], "TOO_LARGE"),
    ],
)
async def test_result_that_is_no_json_or_too_large_is_final(bench: Workbench, value: Any, kind: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        await result_of(bench, value)
    assert (caught.value.type, caught.value.non_retryable) == (kind, True)


@pytest.mark.parametrize(
    ("raised", "kind", "final"),
    [
        (ActivityFailure("OUT_OF_STOCK", "no more"), "OUT_OF_STOCK", False),
        (ActivityFailure("OUT_OF_STOCK", "no more", retryable=False), "OUT_OF_STOCK", True),
        (ValueError("no more"), "ValueError", False),
        (TimeoutError("no more"), "TimeoutError", False),
        (Unavailable("no more"), "UNAVAILABLE", False),
        (Misconfigured("no more"), "MISCONFIGURED", True),
        (ApplicationError("no more", 1, type="OWN", non_retryable=True), "OWN", True),
    ],
)
async def test_errors_keep_their_type(bench: Workbench, raised: Exception, kind: str, final: bool) -> None:
    error = await error_of(bench, raised, number=3)
    assert (error.type, error.non_retryable) == (kind, final)
    assert "no more" in error.message
    assert error.details[0]["attempt"] == 3


async def test_error_is_bounded_and_can_be_written_anywhere(bench: Workbench) -> None:
    raised = ActivityFailure("X" * 500, "m\x00\ud800" * 50_000, details={"blob": "y" * 100_000})
    error = await error_of(bench, raised)
    assert len(error.message) < 2100
    assert len(error.type or "") <= 100
    error.message.encode()
    assert "\x00" not in error.message
    assert error.details[0]["details"] == {"left_out": "100011 bytes of details"}


async def test_time_is_up(bench: Workbench) -> None:
    async def work(config: Anything, context: Any) -> None:
        await asyncio.sleep(30)

    with pytest.raises(ApplicationError) as caught:
        await attempt(bench, call("test.do", {}), types=[doing(work)], timeout=0.2)
    assert (caught.value.type, caught.value.non_retryable) == ("TIMEOUT", False)
    assert "within 0.2 s" in caught.value.message


async def test_unknown_type_is_a_clear_end(bench: Workbench) -> None:
    unknown = task_activities(ActivityRegistry.load(), bench)[-1]
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, activity_type="acme.deploy")
    with pytest.raises(ApplicationError, match=r"no activity type 'acme\.deploy'") as caught:
        await environment.run(unknown, [])
    assert (caught.value.type, caught.value.non_retryable) == ("UNKNOWN_ACTIVITY", True)


async def test_heartbeats_go_on_while_the_work_does(bench: Workbench) -> None:
    beats: list[Any] = []
    release = asyncio.Event()

    async def work(config: Anything, context: Any) -> str:
        await release.wait()
        return "done"

    environment = ActivityEnvironment()

    def beat(*details: Any) -> None:
        beats.append(details)
        if len(beats) == 3:
            release.set()

    environment.on_heartbeat = beat
    request = call("test.do", {})
    await attempt(
        bench, request, types=[doing(work)], environment=environment, heartbeat=timedelta(seconds=0.1)
    )
    assert len(beats) == 3


# --- judgements ---------------------------------------------------------------------------------------------


def judged(source: str, **declared: str) -> Judgement:
    from engine.dsl.expressions import Environment, compile_expression

    compiled = compile_expression(source, Environment(declared))
    return Judgement({"src": compiled.src, "refs": compiled.refs, "code": compiled.code}, {})


async def test_success_when(bench: Workbench) -> None:
    ok = judged("result.state == 'built'", result="dyn")
    assert await result_of(bench, {"state": "built"}, success_when=ok) == {"state": "built"}
    with pytest.raises(ApplicationError) as caught:
        await result_of(bench, {"state": "broken"}, success_when=ok)
    assert (caught.value.type, caught.value.non_retryable) == ("NOT_SUCCESSFUL", False)
    with pytest.raises(ApplicationError) as caught:
        await result_of(bench, {}, success_when=ok)
    assert (caught.value.type, caught.value.non_retryable) == ("EXPRESSION", True)


async def test_retry_when(bench: Workbench) -> None:
    rule = judged("attempt < 3 && error.type == 'BUSY'", attempt="int", error="dyn")
    busy = ActivityFailure("BUSY", "later")
    assert not (await error_of(bench, busy, number=2, retry_when=rule)).non_retryable
    last = await error_of(bench, busy, number=3, retry_when=rule)
    assert (last.type, last.non_retryable) == ("BUSY", True)
    assert (await error_of(bench, ValueError("x"), retry_when=rule)).non_retryable
