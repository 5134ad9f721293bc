"""A diamond: the shortest run of the three, in which what every run costs weighs most."""

from __future__ import annotations

from benchmarks import runs
from benchmarks.table import Row


async def measure(quick: bool) -> list[Row]:
    """The rows of this shape."""
    return await runs.rows_of("diamond", quick)
