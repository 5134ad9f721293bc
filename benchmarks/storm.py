"""Many wide runs at once: nothing may stall. A server at its stock settings stalls for good on the same load.

A start that the busy server does not take in time is left to the dispatcher, or refused and tried again by the caller,
as any caller would: what counts is that every run ends, and that Postgres says so.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg

from benchmarks import shapes
from benchmarks.runs import Sides, sides
from benchmarks.servers import deploy, system
from benchmarks.table import Row
from engine.errors import Unavailable

_DONE = """
    SELECT count(*) FILTER (WHERE finished_at IS NOT NULL) AS ended, count(*) FILTER (WHERE status = 'COMPLETED') AS good
    FROM workflow_executions
"""


async def measure(quick: bool) -> list[Row]:
    """One row."""
    runs, width, patience = (4, 10, 60.0) if quick else (200, 100, 600.0)
    async with (
        system("worker") as running,
        sides(running.postgres.url(), running.temporal.address) as (both, database),
    ):
        # Not the one second of the other sections: a task may have to wait for its turn on a full machine.
        tasks = [task | {"timeout": "5m"} for task in shapes.fan(width, "worker")]
        await deploy(database, shapes.definition("wide", tasks))
        await both.pinflow("wide")  # the worker is there
        begin = time.perf_counter()
        starting = asyncio.gather(*(_start(both) for _ in range(runs)))
        good = await _ended(running.postgres.url(), runs, begin + patience)
        taken = time.perf_counter() - begin
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    return [
        Row(
            f"{runs} fan-outs of {width} at once, ordinary activities",
            f"{runs} done",
            f"{good} done, {good * (width + 1) / taken:.0f} tasks/s",
            f"{good / runs:.2f} x",
            "all done",
            good == runs,
        )
    ]


async def _start(both: Sides) -> None:
    while True:
        try:
            return await both.start("wide")
        except Unavailable as error:
            await asyncio.sleep(max(error.retry_after, 1))


async def _ended(url: str, runs: int, deadline: float) -> int:
    """How many runs ended well, once all have ended or the deadline has passed; the first of all does not count."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        while True:
            ((ended, good),) = await connection.fetch(_DONE)
            if ended > runs or time.perf_counter() > deadline:
                return int(good) - 1
            await asyncio.sleep(0.5)
    finally:
        await connection.close()
