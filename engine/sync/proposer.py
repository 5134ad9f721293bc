"""Brings proposals to their remotes: takes the rows that wait, pushes, and confirms.

A row is PROPOSING before anything is pushed; killed anywhere, the next one who watches the source finds the commit by
its trailer, or makes the same one again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from engine.dsl import bundle as bundles
from engine.errors import PinflowError, SourceError, Unavailable
from engine.passes import keep_on
from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import Credential, SourceSettings
from engine.storage import proposals, registry
from engine.storage.database import Database
from engine.storage.rows import Record
from engine.sync import conditions
from engine.sync.plan import FUNCTIONS
from engine.sync.pushing import Order, Pusher, Refused, TooLate

_log = structlog.get_logger(__name__)
_ACTOR = "sync"
_EVERY = 0.5
"""Seconds between two looks at the rows."""
_LEASE = 300.0
_BATCH = 4
_TRIES = 100
"""Of a remote that is away or always busy: some hours."""


Sources = Callable[[], Mapping[str, SourceSettings]]
"""What is watched at the moment, by name."""


class Proposer:
    """Pushes the proposals of the sources that this process watches."""

    def __init__(
        self,
        database: Database,
        sources: Sources,
        data_dir: Path,
        credential: Callable[[str], Credential | None] = lambda source: None,
    ) -> None:
        self._database = database
        self._registry = WorkflowRegistry(database)
        self._sources = sources
        self._data_dir = data_dir
        self._credential = credential

    async def run(self) -> None:
        """Push until cancelled. An absent Postgres is waited for."""
        await keep_on(self.pass_once, what="proposals", pause=_EVERY)

    async def pass_once(self) -> int:
        """Push what is due; how many there were."""
        async with self._database.begin() as connection:
            due = await proposals.claim(connection, list(self._sources()), count=_BATCH, lease=_LEASE)
        await asyncio.gather(*(self._push(row) for row in due))
        return len(due)

    async def _push(self, row: Record) -> None:
        try:
            order = await self._order(row)
            pushed = await asyncio.to_thread(self._pusher(row["source"]).push, order)
        except Refused as error:
            await self._fail(row, str(error))
        except TooLate as error:
            await self._postpone(row, 0.5, str(error))
        except SourceError as error:
            await self._postpone(row, min(300.0, 2.0 ** row["attempts"]), _waits_for(row, error))
        except Unavailable:
            raise
        except PinflowError as error:
            await self._fail(row, str(error))
        except Exception as error:  # one poisoned proposal must not stop the others (P9)
            _log.exception("proposal failed", proposal=row["id"], source=row["source"])
            await self._postpone(row, 60.0, f"{type(error).__name__}: {str(error)[:200]}")
        else:
            async with self._database.begin() as connection:
                await proposals.pushed(
                    connection,
                    row["id"],
                    commit_sha=pushed.commit_sha,
                    base_sha=pushed.base_sha,
                    actor=_ACTOR,
                )
            _log.info("proposal pushed", proposal=row["id"], source=row["source"], sha=pushed.commit_sha)

    def _pusher(self, source: str) -> Pusher:
        return Pusher(self._sources()[source], self._data_dir, self._credential(source))

    async def _order(self, row: Record) -> Order:
        files: dict[str, bytes | None] = {row["path"]: await self._registry.content(row["digest"])}
        clears = ""
        if row["bundle_digest"]:
            folder = self._sources()[row["source"]].folder.strip("/")
            clears = f"{folder}/{FUNCTIONS}" if folder not in ("", ".") else FUNCTIONS
            for path, content in bundles.unpack(await self._registry.content(row["bundle_digest"])).items():
                files[f"{clears}/{path}"] = content
        return Order(
            id=row["id"],
            name=row["name"],
            path=row["path"],
            branch=row["branch"],
            direct=row["direct"],
            message=row["message"],
            author=row["requested_by"],
            at=row["created_at"],
            files=files,
            clears=clears,
            live=await self._is_live(row),
            again=row["attempts"] > 1,
        )

    async def _is_live(self, row: Record) -> bool:
        async with self._database.read() as connection:
            live = await registry.live_by_name(connection, row["name"], row["source"])
        return any(each["path"] == row["path"] for each in live)

    async def _fail(self, row: Record, why: str) -> None:
        async with self._database.begin() as connection:
            await proposals.failed(connection, row["id"], error=why, actor=_ACTOR)
        _log.warning("proposal refused", proposal=row["id"], source=row["source"], reason=why)

    async def _postpone(self, row: Record, delay: float, why: str) -> None:
        if row["attempts"] >= _TRIES:
            await self._fail(row, f"{why} ({_TRIES} tries)")
            return
        async with self._database.begin() as connection:
            await proposals.postpone(connection, row["id"], delay=delay, error=why)
        _log.info("proposal waits", proposal=row["id"], source=row["source"], reason=why)


def _waits_for(row: Record, error: SourceError) -> str:
    said = f"{error.reason}: {error.message}"
    if error.reason != conditions.ACCESS_DENIED:
        return said
    return f"{said}; the daemon's credential of {row['source']} must be allowed to push {row['branch']}"
