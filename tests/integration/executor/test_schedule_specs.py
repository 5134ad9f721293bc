"""Whatever the validator takes, Temporal's server takes: cron, time zones, windows and jitter."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.check_triggers import zones
from engine.dsl.checking import check
from engine.dsl.cron import CronError, check_cron
from engine.errors import Misconfigured
from engine.executor.payloads import data_converter
from engine.executor.schedules import Schedules
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.storage.database import Database

CORPUS = (
    "* * * * *",
    "*/7 * * * *",
    "0 6 * * 1-5",
    "0 6 * * MON-FRI",
    "0 6 * * mon,wed,Sun",
    "0 0 1 JAN *",
    "0 0 29 2 *",
    "0 0 31 1-12 *",
    "59 23 31 12 *",
    "5/15 * * * *",
    "0-59 0-23 1-31 1-12 *",
    "1-59/58 0-23/23 * * 0-6/6",
    "0,1,2,3-5,*/30 4,5 * 1,FEB-APR/2 *",
    "00 06 01 01 *",
)


class Server:
    """Temporal, asked whether it takes a schedule."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules
        self._gate = asyncio.Semaphore(8)

    async def refuses(self, **spec: Any) -> str:
        """Why the server does not take the spec, "" if it does."""
        row = {"source": "main", "workflow": "w", "id": uuid.uuid4().hex, "seq": 1, "spec": spec}
        async with self._gate:
            try:
                await self._schedules.put(row)
            except Misconfigured as error:
                return f"{spec}: {error.message}"
            finally:
                await self._schedules.remove(self._schedules.id_of(row))
        return ""


@pytest_asyncio.fixture(loop_scope="session")
async def server(database: Database, temporal: str) -> AsyncIterator[Server]:
    queue = f"test-{uuid.uuid4().hex[:8]}"
    executor = await TemporalWorkflowExecutor.connect(
        temporal, namespace="default", task_queue=queue, converter=data_converter(database), lazy=False
    )
    yield Server(Schedules(executor.client, task_queue=queue))


def accepted(crons: Sequence[str]) -> list[str]:
    """Those that the validator takes."""
    found = []
    for cron in crons:
        try:
            check_cron(cron)
        except CronError:
            continue
        found.append(cron)
    return found


def random_crons(seed: int, count: int) -> list[str]:
    """Texts near to cron: most of them are none."""
    chance = random.Random(seed)
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    names = ("JAN", "feb", "Mar", "SUN", "mon", "Sat", "DEC")

    def number(low: int, high: int) -> str:
        spread = chance.choice((0, 0, 0, 2))
        value = chance.randint(low - min(low, spread), high + spread)
        return chance.choice((str(value), str(value), f"{value:02}", chance.choice(names)))

    def part(low: int, high: int) -> str:
        base = chance.choice(("*", number(low, high), f"{number(low, high)}-{number(low, high)}"))
        return base + chance.choice(("", "", "", f"/{chance.randint(0, high + 3)}"))

    def field(low: int, high: int) -> str:
        return ",".join(part(low, high) for _ in range(chance.choice((1, 1, 1, 2, 3))))

    return [" ".join(field(*limit) for limit in limits) for _ in range(count)]


async def test_every_cron_of_the_corpus(server: Server) -> None:
    assert accepted(CORPUS) == list(CORPUS)
    assert [why for why in await asyncio.gather(*(server.refuses(cron=[c]) for c in CORPUS)) if why] == []


@pytest.mark.parametrize("seed", range(4))
async def test_random_crons_that_the_validator_takes(server: Server, seed: int) -> None:
    taken = accepted(random_crons(seed, 20_000))
    assert len(taken) > 300
    batches = [taken[start : start + 40] for start in range(0, len(taken), 40)]
    assert [why for why in await asyncio.gather(*(server.refuses(cron=b) for b in batches)) if why] == []


async def test_every_time_zone_that_the_validator_knows(server: Server) -> None:
    known = sorted(zones() | {"UTC"})
    assert len(known) > 400
    told = await asyncio.gather(*(server.refuses(cron=["0 6 * * *"], timezone=zone) for zone in known))
    assert [why for why in told if why] == []


@pytest.mark.parametrize(
    "fields",
    [
        "catchup_window: 10s",
        "catchup_window: 365d",
        "jitter: 1ms",
        "jitter: 365d",
        "overlap: terminate_other",
    ],
)
async def test_the_ends_of_windows_and_jitter(server: Server, fields: str) -> None:
    name, _, value = fields.partition(": ")
    definition = f"""\
name: report
triggers: [{{id: t, type: schedule, cron: "0 6 * * *", {name}: {value}}}]
tasks: [{{id: a, type: set, values: {{b: 1}}}}]
"""
    checked = check(definition.encode(), "report.yaml", ActivityTypes.default())
    if checked.compiled is None:
        return  # the validator is stricter, as it may be
    (trigger,) = checked.compiled["triggers"]
    assert await server.refuses(**trigger) == ""


async def test_a_list_as_long_as_the_validator_takes(server: Server) -> None:
    crons = ", ".join(f'"{minute} 6 * * *"' for minute in range(60))
    for count in (60, 20, 10, 5):
        some = ", ".join(crons.split(", ")[:count])
        definition = f"""\
name: report
triggers: [{{id: t, type: schedule, cron: [{some}]}}]
tasks: [{{id: a, type: set, values: {{b: 1}}}}]
"""
        checked = check(definition.encode(), "report.yaml", ActivityTypes.default())
        if checked.compiled is not None:
            assert await server.refuses(**checked.compiled["triggers"][0]) == ""
            return
    raise AssertionError("no list is taken")
