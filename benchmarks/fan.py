"""A fan-out, and a task that joins it."""

from __future__ import annotations

from benchmarks import runs
from benchmarks.table import Row


async def measure(quick: bool) -> list[Row]:
    """The rows of this shape."""
    return await runs.rows_of("fan", quick)
