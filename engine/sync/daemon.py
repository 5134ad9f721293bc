"""The sync daemon: every source in a task of its own, so that a slow or hostile one stops no other (promise P9).

Composition root.  Killed at any point it loses and doubles nothing: what is done stands in the registry.  Any number
of daemons may run: they are kept apart by compare-and-set, not by a lock.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from engine.errors import Misconfigured, SourceError, Unavailable
from engine.forge.reporter import Reporter
from engine.logs import configure_logging
from engine.settings import Settings, SourceSettings
from engine.storage import sources
from engine.storage.database import Database
from engine.sync.checker import Checker
from engine.sync.git_urls import parse_remote
from engine.sync.proposer import Proposer
from engine.sync.reconciler import Reconciler
from engine.sync.watcher import RefWatcher

_log = structlog.get_logger(__name__)

# Seconds between two looks for `pinflow sync now`, and the longest wait for Postgres to come back.
_REQUESTS_EVERY = 1.0
_AWAY_PAUSE = 2.0


async def run_sync(settings: Settings) -> None:
    """Sync all sources until SIGTERM or SIGINT. Raises `Misconfigured` for settings that cannot be used."""
    configure_logging(settings.log_format, settings.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve_sync(settings, stop)


async def serve_sync(settings: Settings, stop: asyncio.Event) -> None:
    """Sync all sources until `stop` is set. For a process with several parts, and for tests."""
    _check_names(settings.sources)
    _check_folder(settings.data_dir)
    if not settings.sources:
        _log.warning("no source is configured: nothing is synced (PINFLOW_SOURCES)")
    async with AsyncExitStack() as stack:
        # A pass holds one connection at a time; what looks for requests, for proposals and for the
        # forges' messages holds one more each.
        database = Database(settings.database_url, pool_size=min(12, len(settings.sources) + 4))
        stack.push_async_callback(database.aclose)
        checker = Checker(processes=min(2, os.cpu_count() or 1))
        stack.push_async_callback(checker.aclose)
        loops = []
        for source in settings.sources:
            reconciler = Reconciler(source, settings.data_dir, database, checker)
            stack.push_async_callback(reconciler.aclose)
            loops.append(SourceLoop(source, reconciler))
        by_name = {each.source.name: each for each in loops}
        watcher = RefWatcher(_local_branches(settings.sources), lambda name: by_name[name].wake())
        by_source = {each.name: each for each in settings.sources}
        reporter = Reporter(database, settings.forges, lambda: by_source, public_url=settings.public_url)
        stack.push_async_callback(reporter.aclose)
        await _until(
            stop,
            [
                _warm(checker),
                watcher.run(stop),
                _listen_to_requests(database, by_name),
                Proposer(database, lambda: by_source, settings.data_dir).run(),
                reporter.run(),
                *(each.run() for each in loops),
            ],
        )


async def _until(stop: asyncio.Event, work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of `work` until `stop`; what is under way then is broken off, which is safe at any point."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        await stop.wait()
        for task in tasks:
            task.cancel()


async def _warm(checker: Checker) -> None:
    try:
        await checker.warm()
    except Exception:  # the passes that need it will say so in the sources' conditions
        _log.exception("the process that checks definitions does not start")


class SourceLoop:
    """Passes over one source: at once when woken, else at every poll."""

    def __init__(self, source: SourceSettings, reconciler: Reconciler) -> None:
        self.source = source
        self._reconciler = reconciler
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look now (or once more, if a pass is under way)."""
        self._woken.set()

    async def run(self) -> None:
        """Make passes for ever. Whatever a pass raises ends that pass only."""
        while True:
            self._woken.clear()
            pause = await self._pass()
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def _pass(self) -> float:
        """One pass, and the seconds until the next."""
        poll = self.source.poll_interval
        try:
            standing = await self._reconciler.run_pass()
            _log.debug("pass", source=self.source.name, condition=standing.condition, reason=standing.reason)
            return poll
        except Unavailable as error:
            _log.warning("pass waits", source=self.source.name, reason=error.message)
            return min(poll, _AWAY_PAUSE)
        except Exception as error:  # promise P9
            _log.exception("pass failed", source=self.source.name)
            await self._note(error)
            return max(poll, 1.0)

    async def _note(self, error: Exception) -> None:
        try:
            await self._reconciler.note_failure(error)
        except Exception:  # the log has the first error; this one is most likely its twin
            _log.debug("the failure could not be noted", source=self.source.name, exc_info=True)


async def _listen_to_requests(database: Database, loops: dict[str, SourceLoop]) -> None:
    """Wake the sources that somebody asked to sync now."""
    while True:
        await asyncio.sleep(_REQUESTS_EVERY)
        try:
            async with database.read() as connection:
                asked = await sources.requested(connection)
        except Unavailable:
            continue
        for name in asked:
            if name in loops:
                loops[name].wake()


def _local_branches(configured: tuple[SourceSettings, ...]) -> list[tuple[str, Path, str]]:
    found = []
    for source in configured:
        try:
            local = parse_remote(source.url).local
        except SourceError:
            continue  # its own pass says so
        if local is not None:
            found.append((source.name, local, source.branch.removeprefix("refs/heads/")))
    return found


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refused = "" if os.access(folder, os.W_OK | os.X_OK) else "we may not write in it"
    except OSError as error:
        refused = str(error.strerror)
    if refused:
        raise Misconfigured(
            f"PINFLOW_DATA_DIR {folder} cannot hold the mirrors: {refused}",
            hint="name a folder that this process may write",
        )


def _check_names(configured: tuple[SourceSettings, ...]) -> None:
    twice = [name for name, count in Counter(source.name for source in configured).items() if count > 1]
    if twice:
        raise Misconfigured(
            f"several sources are named {twice[0]}", hint="give each source a name of its own"
        )
