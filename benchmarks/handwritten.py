"""The limit: the same graphs as a Temporal developer would write them by hand, on the same server.

They run without the sandbox too, as Pinflow's driver does, so that the comparison is not flattered.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

TASK_QUEUE = "handwritten"
SLICE = 500
LAYER = 50
_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=1),
    "retry_policy": RetryPolicy(maximum_attempts=1),
}


@activity.defn(name="hand_noop")
async def noop(value: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    return value


def before(number: int) -> tuple[int, ...]:
    """Which two tasks of the layer before a task of a DAG stands behind."""
    if number < LAYER:
        return ()
    place, first = number % LAYER, number - number % LAYER - LAYER
    return first + place, first + (place + 1) % LAYER


async def _task(name: str, local: bool) -> None:
    run = workflow.execute_local_activity if local else workflow.execute_activity
    await run("hand_noop", {"task": name}, activity_id=name, **_OPTIONS)


@workflow.defn(name="hand-chain")
class Chain:
    """`size` tasks, one after another."""

    @workflow.run
    async def run(self, size: int, local: bool) -> None:
        """Run the tasks."""
        for number in range(size):
            await _task(f"t{number}", local)


@workflow.defn(name="hand-fan")
class Fan:
    """`size` tasks at once, then one that joins them."""

    @workflow.run
    async def run(self, size: int, local: bool) -> None:
        """Run the tasks."""
        await asyncio.gather(*(_task(f"t{number}", local) for number in range(size)))
        await _task("join", local)


@workflow.defn(name="hand-diamond")
class Diamond:
    """One task, then two at once, then one."""

    @workflow.run
    async def run(self, _size: int, local: bool) -> None:
        """Run the tasks."""
        await _task("a", local)
        await asyncio.gather(_task("b", local), _task("c", local))
        await _task("d", local)


@workflow.defn(name="hand-map")
class Map:
    """`size` items in children of five hundred, five at a time: one history could not hold ten thousand."""

    @workflow.run
    async def run(self, size: int, local: bool) -> None:
        """Run the items."""
        if size <= SLICE:
            await asyncio.gather(*(_task(f"t{number}", local) for number in range(size)))
            return
        beside = asyncio.Semaphore(5)

        async def part(first: int) -> None:
            async with beside:
                count = min(SLICE, size - first)
                id = f"{workflow.info().workflow_id}/{first}"
                await workflow.execute_child_workflow("hand-map", args=[count, local], id=id)

        await asyncio.gather(*(part(first) for first in range(0, size, SLICE)))


@workflow.defn(name="hand-dag")
class Dag:
    """Layers of fifty, each task behind two of the layer before."""

    @workflow.run
    async def run(self, size: int, local: bool) -> None:
        """Run the tasks."""
        running: list[asyncio.Task[None]] = []

        async def one(number: int) -> None:
            for each in before(number):
                await running[each]
            await _task(f"t{number}", local)

        running += [asyncio.create_task(one(number)) for number in range(size)]
        await asyncio.gather(*running)


@workflow.defn(name="hand-wide")
class Wide:
    """`size` tasks, as many at once as Temporal bears."""

    @workflow.run
    async def run(self, size: int, local: bool) -> None:
        """Run the tasks."""
        beside = asyncio.Semaphore(SLICE)

        async def one(number: int) -> None:
            async with beside:
                await _task(f"t{number}", local)

        await asyncio.gather(*(one(number) for number in range(size)))


@workflow.defn(name="hand-empty")
class Empty:
    """Nothing: the floor of every run."""

    @workflow.run
    async def run(self, _size: int, _local: bool) -> None:
        """Do nothing."""


async def main(address: str) -> None:
    """Serve the hand-written workflows until killed."""

    client = await Client.connect(address)
    worker = Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[Chain, Fan, Diamond, Map, Dag, Wide, Empty],
        activities=[noop],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_activities=100,
    )
    await worker.run()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1]))
