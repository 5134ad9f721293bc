"""`pinflow validate`: one file beside the start of bare Python, a folder of many beside parsing and validating them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import repositories
from benchmarks.servers import ROOT, folder
from benchmarks.shapes import typical
from benchmarks.table import Measured, Row, alternate, at_most, milliseconds, seconds

PINFLOW = Path(sys.executable).parent / "pinflow"


async def measure(quick: bool) -> list[Row]:
    """Two rows."""
    count, few, many = (20, 1, 1) if quick else (1_000, 31, 5)
    with folder() as place:
        for number in range(count):
            file = place / repositories.file(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(typical(repositories.name(number)))
        one = await alternate(
            _run(sys.executable, "-c", "pass"), _run(PINFLOW, "validate", place / repositories.file(0)), few
        )
        all_of_them = await alternate(
            _run(
                sys.executable,
                ROOT / "benchmarks/bare_check.py",
                ROOT / "schemas/workflow.schema.json",
                place / "workflows",
            ),
            _run(PINFLOW, "validate", place / "workflows"),
            many,
        )
    return [
        at_most("pinflow validate, one file, beside bare Python's start", one, 6, milliseconds),
        at_most(f"pinflow validate, {count:,} files, beside parse and validate", all_of_them, 1.5, seconds),
    ]


def _run(*command: str | Path) -> Measured:
    async def timed() -> float:
        begin = time.perf_counter()
        await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    return timed
