"""Where the processor time of a run goes: by process, both sides, on the same server.

Wall-clock ratios say that something is dear; these rows say what. Each is the user and system time that a process
(Postgres: all of its processes) took for a run, measured over many runs at once, so that idle polling weighs little.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from benchmarks import shapes
from benchmarks.processor import family, parts, spent
from benchmarks.runs import FULL, QUICK, WORDS, Run, Sides, Size, sides
from benchmarks.servers import deploy, system
from benchmarks.table import Row

PARTS = ("temporal", "worker", "postgres", "caller")


async def measure(quick: bool) -> list[Row]:
    """For each shape, ordinary and local: one row for each part of the system, and one for all."""
    rows: list[Row] = []
    async with (
        system("worker") as running,
        sides(running.postgres.url(), running.temporal.address) as (both, database),
    ):
        for name, size in (QUICK if quick else FULL).items():
            for execution in ("worker", "local"):
                tasks = shapes.SHAPES[name](size.width, execution)
                await deploy(database, shapes.definition(f"{name}-{execution}", tasks))
                rows += await _shape(both, name, size, execution, 1 if quick else 4)
    return rows


async def _shape(both: Sides, name: str, size: Size, execution: str, rounds: int) -> list[Row]:
    local = execution == "local"

    def by_hand() -> Awaitable[Run]:
        return both.handwritten(name, size.width, local)

    def ours() -> Awaitable[Run]:
        return both.pinflow(f"{name}-{execution}")

    limit = dict.fromkeys(PARTS, 0.0)
    pinflow = dict.fromkeys(PARTS, 0.0)
    for run in (by_hand, ours):
        await run()
    for _ in range(rounds):
        for run, sums in ((by_hand, limit), (ours, pinflow)):
            for part, seconds in (await _cost(size, run)).items():
                sums[part] += seconds / rounds
    what = (
        f"{WORDS[name].format(size.width)}, {'local' if local else 'ordinary'} activities, processor time of"
    )
    rows = [_row(f"{what} {part}", limit[part], pinflow[part]) for part in PARTS]
    return [*rows, _row(f"{what} all", sum(limit.values()), sum(pinflow.values()))]


def _row(what: str, limit: float, pinflow: float) -> Row:
    ratio = f"{pinflow / limit:.2f} x" if limit > 0.0005 else ""
    return Row(what, f"{limit * 1000:.1f} ms a run", f"{pinflow * 1000:.1f} ms a run", ratio)


async def _cost(size: Size, run: Callable[[], Awaitable[Run]]) -> dict[str, float]:
    """Seconds of processor time that each part takes for one run, several at once."""
    before = _by_part()
    numbers = iter(range(size.runs))

    async def one_after_another() -> None:
        for _ in numbers:
            await run()

    await asyncio.gather(*(one_after_another() for _ in range(size.at_once)))
    after = _by_part()
    return {part: (after[part] - before[part]) / size.runs for part in PARTS}


def _by_part() -> dict[str, float]:
    """Seconds so far. The Python processes are the one that asks for runs, this one, and the worker."""
    sums = {part: spent(pids) for part, pids in parts(family(os.getpid())).items()}
    caller = spent([os.getpid()])
    return {
        "temporal": sums["temporal"],
        "worker": sums["python"] - caller,
        "postgres": sums["postgres"],
        "caller": caller,
    }
