"""Results of tasks that are kept for other runs: a cache may be empty, slow or away, and nothing else changes."""

from __future__ import annotations

from typing import Any

import structlog

from engine.core.contracts import ActivityCall
from engine.errors import Unavailable
from engine.storage import cache
from engine.storage.cache import Cached
from engine.storage.database import Database

_log = structlog.get_logger(__name__)

MAX_BYTES = 1024 * 1024
"""Larger results are not kept."""


class ResultCache:
    """Looks results up and keeps them; without a database it keeps nothing."""

    def __init__(self, database: Database | None = None) -> None:
        self._database = database

    async def find(self, call: ActivityCall) -> Cached | None:
        """The kept result of the call, if it asks for one and there is one."""
        if call.cache is None or self._database is None:
            return None
        try:
            return await cache.find(self._database, call.cache["key"], max_age=call.cache.get("max_age"))
        except Unavailable as error:
            _log.warning("cache not read", task=call.task, reason=error.message)
            return None

    async def keep(self, call: ActivityCall, result: Any, size: int) -> None:
        """Keep a success. The task has succeeded whatever becomes of this."""
        if call.cache is None or self._database is None or size > MAX_BYTES:
            return
        try:
            await cache.keep(
                self._database, call.cache["key"], result, execution_id=call.execution_id, task=call.task
            )
        except Unavailable as error:
            _log.warning("result not kept", task=call.task, reason=error.message)
