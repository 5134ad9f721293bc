"""Starts a second: the API over HTTP, with row, audit and intent, beside a bare client on the same server.

No worker runs on either side, so that nothing but the start is measured.
"""

from __future__ import annotations

import asyncio
import time
import uuid

from temporalio.client import Client

from benchmarks import shapes, wire
from benchmarks.servers import deploy, system
from benchmarks.table import Row, alternate, at_least, per_second
from engine.storage.database import Database

AT_ONCE = 16


async def measure(quick: bool) -> list[Row]:
    """One row."""
    count, rounds = (32, 1) if quick else (300, 5)
    async with system("api") as running:
        database = Database(running.postgres.url())
        await deploy(database, shapes.definition("one", shapes.chain(1, "local")))
        await database.aclose()
        client = await Client.connect(running.temporal.address)
        path = "/executions/workflows/one/execute"
        request = wire.request("POST", path, token=running.token, body={"inputs": {}})

        async def bare() -> float:
            return await _bare(client, count)

        async def ours() -> float:
            return await wire.rate(
                running.port, lambda _: request, count=count, connections=AT_ONCE, status=202
            )

        pair = await alternate(bare, ours, rounds)
    return [at_least("start through the API beside a bare client's", pair, 0.75, per_second("starts"))]


async def _bare(client: Client, count: int) -> float:
    numbers = iter(range(count))

    async def start_some() -> None:
        for _ in numbers:
            await client.start_workflow("one", {}, id=str(uuid.uuid4()), task_queue="nobody")

    begin = time.perf_counter()
    await asyncio.gather(*(start_some() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - begin)
