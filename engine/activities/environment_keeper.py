"""Has the environments of what is live made before anybody asks: the first run of a commit should not wait for them."""

from __future__ import annotations

import asyncio

import structlog

from engine.activities.bundles import BundleStore
from engine.activities.environments import EnvironmentStore
from engine.activities.failures import ActivityFailure
from engine.errors import Unavailable
from engine.storage import registry
from engine.storage.database import Database

_log = structlog.get_logger(__name__)


class EnvironmentKeeper:
    """`run` is the loop of a worker. What it misses, or what was removed since, is made when a task first needs it."""

    def __init__(
        self,
        database: Database,
        bundles: BundleStore,
        environments: EnvironmentStore,
        *,
        interval: float = 15.0,
    ) -> None:
        self._database = database
        self._bundles = bundles
        self._environments = environments
        self._interval = interval
        self._known: set[str] = set()

    async def run(self) -> None:
        """Look at what is live until cancelled. An absent Postgres is waited for."""
        while True:
            try:
                await self.look()
            except Unavailable as error:
                _log.debug("environments wait", reason=error.message)
            except Exception:  # a bug here must not take the worker along (P9)
                _log.exception("look at live functions failed")
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Have made what the bundles need that became live since the last look."""
        async with self._database.read() as connection:
            live = await registry.live_bundles(connection)
        for digest in live:
            if digest not in self._known:
                await self._prepare(digest)
        self._known = set(live)

    async def _prepare(self, digest: str) -> None:
        try:
            lock = self._environments.lock_of(await self._bundles.files(digest))
        except ActivityFailure as failure:
            _log.warning("functions cannot run here", bundle=digest[:12], reason=failure.message)
            return
        if lock is not None:
            self._environments.prepare(lock)
