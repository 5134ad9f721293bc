"""`pinflow up` with nothing to do: memory of all its processes, shared pages counted once, and its share of a core."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.processor import family, parts, proportional, spent
from benchmarks.servers import folder
from benchmarks.shapes import typical
from benchmarks.table import Row
from engine.stack.processes import dying_with_parent, until
from tests.support.git import Repository

PINFLOW = Path(sys.executable).parent / "pinflow"
MEMORY = 450.0
"""Megabytes."""
CORE = 3.0
"""Percent of one core."""


async def measure(quick: bool) -> list[Row]:
    """A row for memory, one for processor time."""
    settle, watch = (2.0, 2.0) if quick else (20.0, 60.0)
    with folder() as place:
        repository = Repository(place / "repository")
        repository.commit({"workflows/one.yaml": typical("one")})
        up = _start(place, repository)
        try:
            return await _watch(up.pid, place / "log", settle, watch)
        finally:
            up.send_signal(signal.SIGTERM)
            await until(lambda: up.poll() is not None, 60)


def _start(place: Path, repository: Repository) -> subprocess.Popen[bytes]:
    with (place / "log").open("wb") as log:
        return subprocess.Popen(
            [PINFLOW, "up", "--repo", repository.path, "--data", place / "data"],
            stdout=log,
            stderr=log,
            # Its children end by themselves when it does.
            preexec_fn=dying_with_parent(signal.SIGTERM),
        )


async def _watch(pid: int, log: Path, settle: float, watch: float) -> list[Row]:
    def said() -> str:
        return log.read_text()

    if not await until(lambda: "Pinflow is up" in said(), 120, interval=0.2):
        raise RuntimeError(f"pinflow up does not come up: {said()[-800:]}")
    await asyncio.sleep(settle)
    processes = family(pid)
    begin, before = time.perf_counter(), {part: spent(pids) for part, pids in parts(processes).items()}
    await asyncio.sleep(watch)
    taken = time.perf_counter() - begin
    shares = {part: (spent(pids) - before[part]) / taken * 100 for part, pids in parts(processes).items()}
    percent = sum(shares.values())
    memory = sum(proportional(each) for each in processes) / 1024 / 1024
    return [
        Row(
            f"pinflow up, idle: memory of its {len(processes)} processes",
            f"{MEMORY:.0f} MB",
            f"{memory:.0f} MB",
            f"{memory / MEMORY:.2f} x",
            "< 1 x",
            memory < MEMORY,
        ),
        Row(
            "pinflow up, idle: processor time",
            f"{CORE:.0f} % of a core",
            f"{percent:.1f} % of a core",
            f"{percent / CORE:.2f} x",
            "< 1 x",
            percent < CORE,
        ),
        *(
            Row(f"pinflow up, idle: processor time of {part}", "", f"{share:.1f} % of a core", "")
            for part, share in shares.items()
        ),
    ]
