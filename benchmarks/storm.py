"""Many wide runs at once: nothing may stall. A server at its stock settings stalls for good on the same load."""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks import shapes
from benchmarks.runs import sides
from benchmarks.servers import deploy, system
from benchmarks.table import Row


async def measure(quick: bool) -> list[Row]:
    """One row."""
    runs, width, patience = (4, 10, 30.0) if quick else (200, 100, 400.0)
    async with (
        system("worker") as running,
        sides(running.postgres.url(), running.temporal.address) as (both, database),
    ):
        await deploy(database, shapes.definition("wide", shapes.fan(width, "worker")))
        await both.pinflow("wide")  # the worker is there
        begin = time.perf_counter()
        tasks = [asyncio.create_task(both.pinflow("wide")) for _ in range(runs)]
        done, open_ = await asyncio.wait(tasks, timeout=patience)
        taken = time.perf_counter() - begin
        for each in open_:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    good = sum(each.exception() is None for each in done)
    if errors := {repr(each.exception()) for each in done if each.exception() is not None}:
        print(f"{len(done) - good} runs did not go well: {sorted(errors)[:3]}", file=sys.stderr)
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
