"""The door looks into the cache before an attempt, and keeps what succeeded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from engine.activities.context import ActivityContext, Workbench
from engine.activities.door import task_activities
from engine.activities.failures import ActivityFailure
from engine.activities.registry import ActivityRegistry, ActivityType
from engine.activities.result_cache import ResultCache
from engine.core.contracts import ActivityCall, Judgement
from engine.dsl.environment import Environment
from engine.dsl.expressions import compile_expression
from engine.storage.database import Database
from tests.support.activities import call, workbench
from tests.support.runs import rows


class Config(BaseModel):
    n: int = 0
    fail: bool = False


class Bench:
    """A door whose only activity counts how often it is run."""

    def __init__(self, made: Workbench) -> None:
        self.runs = 0
        (self.activity, _) = task_activities(ActivityRegistry([self._type()]), made)

    def _type(self) -> ActivityType:
        async def run(config: Config, context: ActivityContext) -> dict[str, Any]:
            self.runs += 1
            if config.fail:
                raise ActivityFailure("BOOM", "no")
            return {"n": config.n, "run": self.runs}

        return ActivityType(name="count", config=Config, result=Any, errors=("BOOM",), run=run)

    async def attempt(self, request: ActivityCall) -> dict[str, Any]:
        value = await ActivityEnvironment().run(self.activity, asdict(request))
        outcome: dict[str, Any] = json.loads(value.payload.data)
        return outcome


@pytest_asyncio.fixture(loop_scope="session")
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with workbench() as made:
        yield Bench(replace(made, cache=ResultCache(database)))


def cached(
    key: str, execution_id: str = "run-1", max_age: float | None = None, **config: Any
) -> ActivityCall:
    return call("count", config, execution_id=execution_id, cache={"key": key, "max_age": max_age})


async def test_a_hit_runs_nothing_and_says_whose_result_it_is(bench: Bench) -> None:
    first = await bench.attempt(cached("k", "run-1", n=1))
    second = await bench.attempt(cached("k", "run-2", n=1))
    assert first == {"result": {"n": 1, "run": 1}, "attempt": 1}
    assert second == {"result": {"n": 1, "run": 1}, "attempt": 1, "cached_from": "run-1"}
    assert bench.runs == 1


async def test_another_key_or_none_runs(bench: Bench) -> None:
    await bench.attempt(cached("k", n=1))
    await bench.attempt(cached("other", n=1))
    await bench.attempt(call("count", {"n": 1}))
    assert bench.runs == 3


async def test_a_failure_is_not_kept(bench: Bench) -> None:
    for _ in range(2):
        with pytest.raises(ApplicationError, match="no"):
            await bench.attempt(cached("k", fail=True))
    assert bench.runs == 2


async def test_a_result_that_success_when_refuses_is_not_kept(bench: Bench, database: Database) -> None:
    environment = Environment({"result": "dyn"}, {})
    compiled = compile_expression("result.n == 2", environment)
    never = Judgement({"src": compiled.src, "refs": compiled.refs, "code": compiled.code}, {})
    with pytest.raises(ApplicationError):
        await bench.attempt(replace(cached("k", n=1), success_when=never))
    assert await rows(database, "SELECT * FROM cache_entries") == []


async def test_a_result_that_is_too_old_is_made_again(bench: Bench, database: Database) -> None:
    await bench.attempt(cached("k"))
    await rows(database, "UPDATE cache_entries SET created_at = now() - interval '1 day'")
    await bench.attempt(cached("k", max_age=60))
    assert bench.runs == 2


async def test_a_cache_that_is_away_fails_no_task(bench: Bench, unused_tcp_port: int) -> None:
    nowhere = Database(f"postgresql+asyncpg://nobody@127.0.0.1:{unused_tcp_port}/none")
    async with workbench() as made:
        without = Bench(replace(made, cache=ResultCache(nowhere)))
        assert (await without.attempt(cached("k", n=1)))["result"] == {"n": 1, "run": 1}
    await nowhere.aclose()
