"""`GET /executions/{id}` of a finished run, beside one row by asyncpg over the same HTTP server."""

from __future__ import annotations

import asyncio

from benchmarks import shapes, wire
from benchmarks.servers import child, deploy, system
from benchmarks.table import Row, alternate, at_least, per_second
from engine.stack.processes import free_port
from engine.storage.database import Database

AT_ONCE = 16


async def measure(quick: bool) -> list[Row]:
    """One row."""
    count, rounds = (50, 1) if quick else (1500, 7)
    async with system("api", "worker") as running:
        database = Database(running.postgres.url())
        await deploy(database, shapes.definition("four", shapes.diamond(4, "local")))
        await database.aclose()
        path = f"/executions/{(await running.execute('four'))['id']}"
        await running.finished(path.rpartition("/")[2])
        running.kill("worker")
        port = free_port()
        url = running.postgres.url().replace("+asyncpg", "")
        with child("benchmarks.bare_api", url, str(port)):
            await _listening(port)
            bare = wire.request("GET", path)
            whole = wire.request("GET", path, token=running.token)
            pair = await alternate(
                lambda: wire.rate(port, lambda _: bare, count=count, connections=AT_ONCE, status=200),
                lambda: wire.rate(
                    running.port, lambda _: whole, count=count, connections=AT_ONCE, status=200
                ),
                rounds,
            )
    return [at_least("GET /executions/{id}, a finished run of four tasks", pair, 0.5, per_second("requests"))]


async def _listening(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await (await wire.Connection.open(port)).close()
                return
            except OSError:
                await asyncio.sleep(0.05)
