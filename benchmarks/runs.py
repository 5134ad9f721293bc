"""Whole runs: Pinflow's definitions beside the same graphs written by hand, on the same server.

Pinflow's side begins at the service layer (row, audit and intent in one transaction, then the start) and ends when
Temporal has the result, after the run's own last step has recorded its end in Postgres.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from temporalio.client import Client, WorkflowHandle

from benchmarks import shapes
from benchmarks.handwritten import TASK_QUEUE
from benchmarks.servers import child, deploy, system
from benchmarks.table import Measured, Pair, Row, alternate, at_least, at_most, milliseconds, per_second
from engine.executor.payloads import data_converter
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.services.callers import Caller
from engine.services.workflow_service import WorkflowService
from engine.storage.database import Database

Run: TypeAlias = WorkflowHandle[Any, Any]

RUNS = 7
"""Runs whose histories are looked at."""

BY = Caller("bench", frozenset({"operator"}))


@dataclass(frozen=True, slots=True)
class Size:
    """How much of one shape is run. `tasks` of one run, and runs of a round.

    A round of throughput has many times as many runs as are under way at once: the beginning and the end of a round,
    when fewer are, would otherwise weigh as much as what is measured.
    """

    width: int
    tasks: int
    latency_rounds: int
    runs: int
    at_once: int
    throughput_rounds: int


FULL = {
    "chain": Size(10, 10, 31, 60, 12, 3),
    "fan": Size(100, 101, 15, 12, 4, 3),
    "diamond": Size(4, 4, 45, 144, 12, 3),
}
QUICK = {
    "chain": Size(10, 10, 2, 4, 4, 1),
    "fan": Size(20, 21, 2, 2, 2, 1),
    "diamond": Size(4, 4, 2, 4, 4, 1),
}
WORDS = {"chain": "chain of {}", "fan": "fan-out of {} and join", "diamond": "diamond of {}"}


class Sides:
    """Both ways to start a run and wait for its end."""

    def __init__(self, service: WorkflowService, executor: TemporalWorkflowExecutor, plain: Client) -> None:
        self._service = service
        self._executor = executor
        self._plain = plain

    async def start(self, workflow: str) -> None:
        """Ask for a run of a definition, as the API does. Raises `Unavailable`."""
        await self._service.executions.execute(BY, workflow, {})

    async def pinflow(self, workflow: str) -> Run:
        """One run of a definition, started as the API starts it."""
        started = await self._service.executions.execute(BY, workflow, {})
        handle = self._executor.client.get_workflow_handle(started.id)
        await handle.result()
        return handle

    async def handwritten(self, workflow: str, size: int, local: bool) -> Run:
        """One run of the same graph by hand."""
        handle: Run = await self._plain.start_workflow(
            f"hand-{workflow}", args=[size, local], id=str(uuid.uuid4()), task_queue=TASK_QUEUE
        )
        await handle.result()
        return handle


@asynccontextmanager
async def sides(database_url: str, address: str) -> AsyncIterator[tuple[Sides, Database]]:
    """Both sides on one server; the hand-written worker runs until the block ends."""
    database = Database(database_url, pool_size=20)
    try:
        executor = await TemporalWorkflowExecutor.connect(
            address,
            namespace="default",
            task_queue="pinflow",
            converter=data_converter(database),
            lazy=False,
        )
        with child("benchmarks.handwritten", address):
            service = WorkflowService(database, executor)
            yield Sides(service, executor, await Client.connect(address)), database
    finally:
        await database.aclose()


async def rows_of(name: str, quick: bool) -> list[Row]:
    """Latency, throughput and history of one shape, ordinary and local."""
    size = (QUICK if quick else FULL)[name]
    async with (
        system("worker") as running,
        sides(running.postgres.url(), running.temporal.address) as (both, database),
    ):
        for execution in ("worker", "local"):
            tasks = shapes.SHAPES[name](size.width, execution)
            await deploy(database, shapes.definition(f"{name}-{execution}", tasks))
        rows = await _shape(both, name, size)
        if name == "chain":
            rows.append(await _definition_in_history(both, database))
    return rows


async def _shape(both: Sides, name: str, size: Size) -> list[Row]:
    what = WORDS[name].format(size.width)

    def hand(local: bool = False) -> Measured:
        return lambda: _latency(lambda: both.handwritten(name, size.width, local))

    def ours(execution: str) -> Measured:
        return lambda: _latency(lambda: both.pinflow(f"{name}-{execution}"))

    def hand_rate(local: bool = False) -> Measured:
        return lambda: _throughput(size, lambda: both.handwritten(name, size.width, local))

    def our_rate(execution: str) -> Measured:
        return lambda: _throughput(size, lambda: both.pinflow(f"{name}-{execution}"))

    tasks_per_second = per_second("tasks")
    few, many = size.latency_rounds, size.throughput_rounds
    ordinary = await alternate(hand(), ours("worker"), few)
    short = await alternate(hand(), ours("local"), few)
    local = await alternate(hand(local=True), ours("local"), few)
    rows = [
        at_most(f"{what}, ordinary activities, p50", ordinary, 1.10, milliseconds),
        at_most(f"{what}, short tasks beside ordinary ones, p50", short, 0.4, milliseconds),
        _for_comparison(f"{what}, local activities on both sides, p50", local, milliseconds),
    ]
    ordinary = await alternate(hand_rate(), our_rate("worker"), many)
    short = await alternate(hand_rate(), our_rate("local"), many)
    local = await alternate(hand_rate(local=True), our_rate("local"), many)
    rows += [
        at_least(f"{what}, ordinary activities, throughput", ordinary, 0.90, tasks_per_second),
        at_least(f"{what}, short tasks beside ordinary ones, throughput", short, 2.5, tasks_per_second),
        _for_comparison(f"{what}, local activities on both sides, throughput", local, tasks_per_second),
    ]
    return [*rows, await _history(both, name, size, "worker"), await _history(both, name, size, "local")]


async def _latency(run: Callable[[], Awaitable[Run]]) -> float:
    begin = time.perf_counter()
    await run()
    return time.perf_counter() - begin


async def _throughput(size: Size, run: Callable[[], Awaitable[Run]]) -> float:
    numbers = iter(range(size.runs))

    async def one_after_another() -> None:
        for _ in numbers:
            await run()

    begin = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(size.at_once)))
    return size.runs * size.tasks / (time.perf_counter() - begin)


def _for_comparison(what: str, pair: Pair, show: Callable[[float], str]) -> Row:
    return Row(what, show(pair.limit), show(pair.pinflow), f"{pair.ratio:.2f} x")


async def _history(both: Sides, name: str, size: Size, execution: str) -> Row:
    local = execution == "local"
    # How many workflow tasks a run takes depends on what ended together: medians of some runs.
    by_hand = _median([await _length(await both.handwritten(name, size.width, local)) for _ in range(RUNS)])
    ours = _median([await _length(await both.pinflow(f"{name}-{execution}")) for _ in range(RUNS)])
    kind = "local" if local else "ordinary"
    return Row(
        f"{WORDS[name].format(size.width)}, {kind} activities, history",
        f"{by_hand[0]} events, {by_hand[1]:,} B",
        f"{ours[0]} events, {ours[1]:,} B",
        f"{ours[0] - by_hand[0]:+d} events",
        "≤ +3 events",
        ours[0] <= by_hand[0] + 3,
    )


def _median(lengths: list[tuple[int, int]]) -> tuple[int, int]:
    return sorted(lengths)[len(lengths) // 2]


async def _length(handle: Run) -> tuple[int, int]:
    """Events and bytes."""
    info = (await handle.describe()).raw_description.workflow_execution_info
    return info.history_length, info.history_size_bytes


async def _definition_in_history(both: Sides, database: Database) -> Row:
    """The same single task, in a small definition and in one of 12 KB."""
    task = shapes.chain(1, "local")
    small = shapes.definition("small", task)
    large = shapes.definition("large", [task[0] | {"description": "x" * 2_500}], description="x" * 9_500)
    await deploy(database, small)
    await deploy(database, large)
    sizes = [(await _length(await both.pinflow(name)))[1] for name in ("small", "large")]
    more = sizes[1] - sizes[0]
    return Row(
        f"history of a definition of {len(large):,} B beside one of {len(small):,} B",
        f"{sizes[0]:,} B",
        f"{sizes[1]:,} B",
        f"{more:+d} B",
        "< +1,024 B",
        more < 1024,
    )
