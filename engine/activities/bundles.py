"""Bundles of functions in the worker's memory, by digest.

Only verified bytes are kept, and only in memory: a cache of unpacked files on disk could be changed by the very code
that runs from it, and the next run would then execute something outside of its pin (promise P3).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping

from engine.activities.failures import ActivityFailure
from engine.dsl import bundle
from engine.errors import Unavailable
from engine.storage import blobs
from engine.storage.database import Database

Files = Mapping[str, bytes]

_KEEP_BYTES = 64 * 1024 * 1024


class BundleStore:
    """Loads bundles from Postgres, each once. One per worker process; closed by nobody."""

    def __init__(self, database: Database, *, keep_bytes: int = _KEEP_BYTES) -> None:
        self._database = database
        self._keep = keep_bytes
        self._size = 0
        self._known: OrderedDict[str, tuple[int, Files]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def files(self, digest: str) -> Files:
        """Path to content of the bundle. Waits while Postgres is away, until the attempt's time is up.

        Raises `ActivityFailure` BUNDLE if it is not there or is not what its digest says.
        """
        if found := self._take(digest):
            return found
        async with self._lock:
            if found := self._take(digest):
                return found
            files = await self._load(digest)
            self._put(digest, files)
            return files

    def _take(self, digest: str) -> Files | None:
        if digest not in self._known:
            return None
        self._known.move_to_end(digest)
        return self._known[digest][1]

    def _put(self, digest: str, files: Files) -> None:
        size = sum(len(content) for content in files.values())
        self._known[digest] = (size, files)
        self._size += size
        while self._size > self._keep and len(self._known) > 1:
            self._size -= self._known.popitem(last=False)[1][0]

    async def _load(self, digest: str) -> Files:
        content = await self._read(digest)
        if content is None:
            raise ActivityFailure("BUNDLE", f"the bundle of functions {digest[:12]} is not in the registry")
        if bundle.digest(content) != digest:
            raise ActivityFailure(
                "BUNDLE", f"the bundle of functions {digest[:12]} is not what its digest says"
            )
        try:
            return bundle.unpack(content)
        except bundle.BundleError as error:
            raise ActivityFailure("BUNDLE", str(error), retryable=False) from error

    async def _read(self, digest: str) -> bytes | None:
        while True:
            try:
                async with self._database.read() as connection:
                    return await blobs.get(connection, digest)
            except Unavailable:
                # Not the author's fault, so it must not use up one of the task's attempts.
                await asyncio.sleep(0.5)
