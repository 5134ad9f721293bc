"""Large runs on one worker: maps of 10 to 10,000 items, a DAG of 5,000 tasks, one 4,000 wide, beside the same by hand."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client

from benchmarks import shapes
from benchmarks.handwritten import before
from benchmarks.processor import family
from benchmarks.runs import Run, Sides, sides
from benchmarks.servers import system
from benchmarks.table import Row
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from tests.support.registered import register
from tests.support.system import System

MAPS = (10, 100, 1_000, 10_000)
DAGS = (100, 5_000)
WIDE = (100, 4_000)
QUICK_MAPS, QUICK_DAGS, QUICK_WIDE = (10, 30), (50,), (50,)
FLAT = 1.2
"""How much more a task of a large run may cost than one of a hundred."""
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: seconds, and what its histories came to. `most` events in a single one."""

    seconds: float
    most: int
    events: int
    size: int


async def measure(quick: bool) -> list[Row]:
    """Time, events, bytes and memory of each shape, and how the cost of a task grows."""
    rows: list[Row] = []
    async with (
        system("worker") as running,
        sides(running.postgres.url(), running.temporal.address) as (both, database),
    ):
        plain = await Client.connect(running.temporal.address)
        for what, words, sizes in (
            ("map", "map of {:,}", QUICK_MAPS if quick else MAPS),
            ("dag", "DAG of {:,} tasks", QUICK_DAGS if quick else DAGS),
            ("wide", "{:,} tasks wide", QUICK_WIDE if quick else WIDE),
        ):
            each: dict[int, float] = {}
            for size in sizes:
                name = f"{what}-{size}"
                await register(database, name, compiled=compiled(what, name, size))
                async with _peak(running) as memory:
                    found, each[size] = await _compared(both, plain, words.format(size), what, name, size)
                rows += found
                rows.append(
                    Row(f"{words.format(size)}, memory of the worker at most", "", f"{memory[0]:.0f} MB", "")
                )
            if len(each) > 1:
                rows.append(_growth(words, each))
    return rows


async def _compared(
    both: Sides, plain: Client, words: str, what: str, name: str, size: int
) -> tuple[list[Row], float]:
    rounds = ROUNDS if size <= 1_000 else 1
    by_hand, ours = [], []
    await both.handwritten(what, min(size, 50), True)
    for _ in range(rounds):
        by_hand.append(await _cost(plain, lambda: both.handwritten(what, size, True)))
        ours.append(await _cost(plain, lambda: both.pinflow(name)))
    hand, our = (sorted(costs, key=lambda cost: cost.seconds)[rounds // 2] for costs in (by_hand, ours))
    ratio = our.seconds / hand.seconds
    rows = [
        Row(
            f"{words}, short tasks, time",
            f"{hand.seconds:.2f} s ({hand.seconds / size * 1000:.2f} ms a task)",
            f"{our.seconds:.2f} s ({our.seconds / size * 1000:.2f} ms a task)",
            f"{ratio:.2f} x",
        ),
        Row(
            f"{words}, histories",
            f"{hand.events:,} events, {hand.most:,} at most in one, {hand.size:,} B",
            f"{our.events:,} events, {our.most:,} at most in one, {our.size:,} B",
            f"{our.events / hand.events:.2f} x",
            "< 5,000 in one",
            our.most < 5_000,
        ),
    ]
    return rows, our.seconds / size


def _growth(words: str, each: dict[int, float]) -> Row:
    small, large = min((size for size in each if size >= 50), default=min(each)), max(each)
    growth = each[large] / each[small]
    return Row(
        f"{words.format(large)}, a task beside one of {small:,}",
        f"{each[small] * 1000:.2f} ms",
        f"{each[large] * 1000:.2f} ms",
        f"{growth:.2f} x",
        f"≤ {FLAT:g} x",
        growth <= FLAT,
    )


async def _cost(plain: Client, run: Callable[[], Awaitable[Run]]) -> Cost:
    begin = time.perf_counter()
    handle = await run()
    took = time.perf_counter() - begin
    lengths = [await _length(plain, handle.id)]
    # Slices, and what hand-written code starts: both begin with the run's own id. The index is a moment behind.
    await asyncio.sleep(1.5)
    async for each in plain.list_workflows(f"WorkflowId STARTS_WITH '{handle.id}/'"):
        info = each.raw_info
        lengths.append((info.history_length, info.history_size_bytes))
    return Cost(
        took, max(n for n, _ in lengths), sum(n for n, _ in lengths), sum(size for _, size in lengths)
    )


async def _length(plain: Client, workflow_id: str) -> tuple[int, int]:
    described = await plain.get_workflow_handle(workflow_id).describe()
    info = described.raw_description.workflow_execution_info
    return info.history_length, info.history_size_bytes


@asynccontextmanager
async def _peak(running: System) -> AsyncIterator[list[float]]:
    """Megabytes that the worker has at most while the block runs."""
    pid = running.pid("worker")
    peak = [0.0]

    async def watch() -> None:
        while True:
            peak[0] = max(peak[0], sum(map(_resident, family(pid))))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _resident(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


# --- what is run --------------------------------------------------------------------------------------------------


def compiled(what: str, name: str, size: int) -> dict[str, Any]:
    """A compiled definition: of a map as it is written; the others are larger than a file may be, and made from one task."""
    one = shapes.chain(1, "local")[0]
    if what == "map":
        body: dict[str, object] = {
            "id": "each",
            "type": "map",
            "items": f"${{{{ range({size}) }}}}",
            "tasks": [one],
        }
        return _checked(shapes.definition(name, [body]))
    made: dict[str, Any] = _checked(shapes.definition(name, [one]))
    template = made["tasks"][0]

    def task(number: int, *after: int) -> dict[str, Any]:
        copied: dict[str, Any] = copy.deepcopy(template) | {
            "id": f"t{number}",
            "config": {"task": f"t{number}"},
        }
        return copied | {"depends_on": [f"t{each}" for each in after]}

    if what == "wide":
        tasks = [task(number) for number in range(size)]
    else:
        tasks = [task(number, *before(number)) for number in range(size)]
    return made | {"tasks": tasks}


def _checked(text: str) -> dict[str, Any]:
    checked = check(text.encode(), "bench.yaml", ActivityTypes.default())
    if checked.compiled is None:
        raise ValueError("\n".join(map(str, checked.problems)))
    made: dict[str, Any] = checked.compiled
    return made
