"""How the installation stands: for readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from engine.errors import PinflowError
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.storage import decisions, executions, forge_messages, outbox, proposals, sources
from engine.storage.database import Database


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of the moment. `sources` are `(name, condition, reason)`; `forge_messages` are by kind and `waiting`,
    `parked` or `sent`."""

    open_runs: dict[str, int]
    pending_approvals: int
    outbox: dict[str, float]
    sources: list[tuple[str, str, str]]
    forge_messages: dict[tuple[str, str], float]
    forge_oldest: float
    proposals: dict[str, float]
    proposals_oldest: float


class HealthService:
    """Looks, and changes nothing."""

    def __init__(self, database: Database, executor: TemporalWorkflowExecutor) -> None:
        self._database = database
        self._executor = executor

    async def readiness(self) -> dict[str, str]:
        """A word for each server that we need: `ok`, or why not."""
        words = await asyncio.gather(_word(self._database.ping()), _word(self._executor.ping()))
        return dict(zip(("postgres", "temporal"), words, strict=True))

    async def watch(self) -> None:
        """Keep in mind whether Temporal is there, until cancelled."""
        await self._executor.watch()

    async def figures(self) -> Figures:
        """What the metrics show besides requests. Raises `Unavailable`."""
        async with self._database.read() as connection:
            told, told_oldest = await forge_messages.backlog(connection)
            proposed, proposed_oldest = await proposals.backlog(connection)
            return Figures(
                open_runs=await executions.count_open(connection),
                pending_approvals=await decisions.count_pending(connection),
                outbox=await outbox.backlog(connection),
                sources=[
                    (row["name"], row["condition"], row["reason"])
                    for row in await sources.list_all(connection)
                ],
                forge_messages=told,
                forge_oldest=told_oldest,
                proposals=proposed,
                proposals_oldest=proposed_oldest,
            )


async def _word(look: Awaitable[None]) -> str:
    try:
        await look
    except PinflowError as error:
        return error.message
    return "ok"
