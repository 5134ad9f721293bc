"""What the engine does for concurrency groups: a slot is asked for, and given back."""

from __future__ import annotations

from typing import Any

import structlog

from engine import faults
from engine.storage import slots
from engine.storage.database import Database
from engine.storage.slots import SlotRequest

_ACTOR = "worker"
_log = structlog.get_logger(__name__)


async def acquire(database: Database, raw: dict[str, Any], *, holder: str) -> dict[str, str]:
    """Ask for a slot, once whatever the number of attempts. Gives `{standing}`; see `storage/slots.py`.

    `holder` is the Temporal workflow that is told when a place in the queue becomes a slot.
    """
    request = SlotRequest(holder=holder, **raw)
    async with database.begin() as connection:
        standing = await slots.acquire(connection, request, actor=_ACTOR)
    await faults.point("slot.after_commit")
    _log.info(
        "slot", execution_id=request.execution_id, task=request.task, group=request.group, standing=standing
    )
    return {"standing": standing}


async def release(database: Database, raw: dict[str, Any]) -> list[str]:
    """Give a task's slot back, or its place in the queue. The runs that have one now, and are to be told."""
    async with database.begin() as connection:
        return await slots.give_back(connection, raw["execution_id"], raw["task"])
