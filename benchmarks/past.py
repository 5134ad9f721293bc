"""One file committed after very many commits: beside the same without a past, and the daemon's memory."""

from __future__ import annotations

from benchmarks.table import Row, at_most, milliseconds
from benchmarks.watching import change, commits, flat, megabytes, watched


async def measure(quick: bool) -> list[Row]:
    """Rows for time and memory."""
    size, past, count = (20, 200, 3) if quick else (1_000, 100_000, 15)
    async with watched(size) as here:
        await here.restart()
        young = await commits(here, count)
        young_memory = here.memory()
    async with watched(size, past) as here:
        await here.restart()
        old = await commits(here, count)
        await change(here, 2 * count)
        old_memory = here.memory()
    after = f"after {past:,} commits"
    return [
        at_most(f"commit to live, one of {size:,} definitions {after}, p50", old, 3, milliseconds),
        flat(f"commit to live, {after} beside none", young.pinflow, old.pinflow, 1.5, milliseconds),
        flat(f"memory of sync started anew, {after} beside none", young_memory, old_memory, 1.1, megabytes),
    ]
