"""From the moment a branch moves to the moment its definition is live, watched, and what the daemon's memory does."""

from __future__ import annotations

from benchmarks.table import Row, at_most, milliseconds
from benchmarks.watching import change, commits, flat, megabytes, watched

COMMITS = 50


async def measure(quick: bool) -> list[Row]:
    """A row for each size of repository, and for how flat they are in time and in memory."""
    sizes, count, total = ((20, 40), 3, 8) if quick else ((100, 1_000, 10_000), 15, COMMITS)
    rows: list[Row] = []
    kept: list[Row] = []
    medians: list[float] = []
    memories: list[float] = []
    for size in sizes:
        async with watched(size) as here:
            first = here.memory()
            pair = await commits(here, count)
            medians.append(pair.pinflow)
            rows.append(at_most(f"commit to live, one of {size:,} definitions, p50", pair, 3, milliseconds))
            if size in (sizes[0], sizes[-1]):
                await change(here, total - count - 1)
                what = f"memory of sync, {size:,} definitions: {total} commits after its first sync beside before"
                kept.append(flat(what, first, here.memory(), 1.1, megabytes))
                await here.restart()
                memories.append(here.memory())
    beside = f"{sizes[-1]:,} definitions beside {sizes[0]:,}"
    rows.append(flat(f"commit to live, {beside}", medians[0], medians[-1], 1.5, milliseconds))
    rows.append(flat(f"memory of sync started anew, {beside}", memories[0], memories[-1], 1.1, megabytes))
    return rows + kept
