"""How the installation stands: for readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime

from engine.errors import PinflowError
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.storage import decisions, executions, forge_messages, outbox, proposals, sources
from engine.storage.database import Database
from engine.storage.rows import Record


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """How a source stands; `checked` is None before the first look."""

    name: str
    condition: str
    reason: str
    watched: bool
    seconds: float
    checked: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of the moment. `forge_messages` are by kind and `waiting`, `parked` or `sent`."""

    open_runs: dict[str, int]
    pending_approvals: int
    outbox: dict[str, float]
    sources: list[SourceFigures]
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
                sources=[_figures(row) for row in await sources.list_all(connection)],
                forge_messages=told,
                forge_oldest=told_oldest,
                proposals=proposed,
                proposals_oldest=proposed_oldest,
            )


def _figures(row: Record) -> SourceFigures:
    now = datetime.now(UTC)
    return SourceFigures(
        name=row["name"],
        condition=row["condition"],
        reason=row["reason"],
        watched=row["watched"],
        seconds=(now - row["condition_since"]).total_seconds(),
        checked=(now - row["checked_at"]).total_seconds() if row["checked_at"] else None,
    )


async def _word(look: Awaitable[None]) -> str:
    try:
        await look
    except PinflowError as error:
        return error.message
    return "ok"
