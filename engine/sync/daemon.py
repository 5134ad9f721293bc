"""The sync daemon: a loop for each repository, so that a slow or hostile one stops no other (promise P9).

Composition root.  Killed at any point it loses and doubles nothing: what is done stands in the registry.  Any number
of daemons may run: they are kept apart by compare-and-set, not by a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from engine.errors import Misconfigured, PinflowError, SourceError, Unavailable
from engine.forge.reporter import Reporter
from engine.health_port import answering
from engine.logs import configure_logging
from engine.settings import Settings
from engine.storage import sources
from engine.storage.database import Database
from engine.sync.checker import Checker
from engine.sync.declarations import Declarations, Declared, read_declarations
from engine.sync.fleet import Fleet
from engine.sync.git_source import Limits, require_git
from engine.sync.git_urls import parse_remote
from engine.sync.mirror import short_branch
from engine.sync.proposer import Proposer
from engine.sync.watcher import RefWatcher

_log = structlog.get_logger(__name__)

# Seconds between two looks for what was asked and not heard, and at the sources file.
_REQUESTS_EVERY = 1.0
_FILE_EVERY = 2.0
_MB = 1024 * 1024


async def run_sync(settings: Settings) -> None:
    """Sync all sources until SIGTERM or SIGINT. Raises `Misconfigured` for settings that cannot be used."""
    configure_logging(settings.log_format, settings.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # What is loaded by now stays: no collection needs to look at it again while ten thousand answers come in.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    await serve_sync(settings, stop)


async def serve_sync(settings: Settings, stop: asyncio.Event) -> None:
    """Sync all sources until `stop` is set. For a process with several parts, and for tests."""
    require_git()
    _check_folder(settings.data_dir)
    declared = _Declared(settings)
    if not declared.now.sources and not declared.now.includes:
        _log.warning("no source is configured: nothing is synced (PINFLOW_SOURCES, PINFLOW_SOURCES_FILE)")
    async with AsyncExitStack() as stack:
        # A pass holds one connection at a time; what looks for requests, for proposals and for the
        # forges' messages holds one more each.
        database = Database(settings.database_url, pool_size=12)
        stack.push_async_callback(database.aclose)
        checker = Checker(processes=min(2, os.cpu_count() or 1), packages=settings.function_packages)
        stack.push_async_callback(checker.aclose)
        limits = Limits(settings.git_mb * _MB, settings.git_memory_mb * _MB)
        fleet = Fleet(settings.data_dir, database, checker, limits)
        stack.push_async_callback(fleet.aclose)
        await fleet.apply(declared.now)
        reporter = Reporter(database, settings.forges, fleet.sources, public_url=settings.public_url)
        stack.push_async_callback(reporter.aclose)
        await _until(
            stop,
            [
                _warm(checker),
                fleet.run(),
                _watch_refs(fleet, stop),
                _listen_to_requests(database, fleet),
                declared.follow(fleet, database),
                _answer(settings, database, fleet, declared),
                Proposer(database, fleet.sources, settings.data_dir, fleet.credential).run(),
                reporter.run(),
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


class _Declared:
    """What this machine declares, read again when the file changes; a bad change leaves what was."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen = self._stamp()
        self.now: Declarations = read_declarations(settings)
        self.fault = ""

    async def follow(self, fleet: Fleet, database: Database) -> None:
        """Apply each change of the file; a fault in it is shown at every source that it declares."""
        shown, names = "", set[str]()
        while self._settings.sources_file is not None:
            await asyncio.sleep(_FILE_EVERY)
            if shown != self.fault:
                with contextlib.suppress(Unavailable):
                    names |= {each.name for each in (*self.now.sources, *self.now.includes)}
                    async with database.begin() as connection:
                        await sources.note_file_fault(connection, sorted(names), self.fault)
                    shown = self.fault
            stamp = self._stamp()
            if stamp == self._seen:
                continue
            self._seen = stamp
            try:
                self.now = read_declarations(self._settings)
            except Misconfigured as error:
                self.fault = error.message
                _log.error("the sources file is not taken, what was stays", problems=error.message)
                continue
            self.fault = ""
            _log.info("sources file read", sources=len(self.now.sources), lists=len(self.now.includes))
            await fleet.apply(self.now)

    def _stamp(self) -> tuple[int, int, int]:
        """What tells one state of the file from another; a file that is gone is one as well."""
        try:
            found = (self._settings.sources_file or Path()).stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)


async def _watch_refs(fleet: Fleet, stop: asyncio.Event) -> None:
    """Watch the branches of local repositories, and others when others are declared."""
    while not stop.is_set():
        changed, over = asyncio.Event(), asyncio.Event()
        fleet.on_change = changed.set
        watching = asyncio.create_task(RefWatcher(_local_branches(fleet.watched()), fleet.wake).run(over))
        try:
            await changed.wait()
        finally:
            # The watching thread looks at this event; a cancelled task would leave it behind.
            over.set()
            await asyncio.gather(watching, return_exceptions=True)


async def _listen_to_requests(database: Database, fleet: Fleet) -> None:
    """Wake the sources that somebody asked to sync now: a webhook, `pinflow sync now`. Postgres tells; we look as well."""
    told = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(database.listen(sources.REQUESTS, told.set))
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REQUESTS_EVERY):
                    await told.wait()
            told.clear()
            with contextlib.suppress(Unavailable):
                await _wake_requested(database, fleet)


async def _wake_requested(database: Database, fleet: Fleet) -> None:
    async with database.read() as connection:
        asked = await sources.requested(connection)
    for name in asked:
        fleet.wake(name)


async def _answer(settings: Settings, database: Database, fleet: Fleet, declared: _Declared) -> None:
    """Say how the daemon stands to whoever asks at its port; how the sources stand is `GET /sources`."""
    if not settings.sync_health_port:
        return

    async def problems() -> dict[str, str]:
        found = fleet.problems()
        if declared.fault:
            found["sources file"] = declared.fault
        try:
            await database.ping()
        except PinflowError as error:
            found["postgres"] = error.message
        return found

    async with answering(settings.api_host, settings.sync_health_port, problems):
        await asyncio.Event().wait()


def _local_branches(watched: Iterable[Declared]) -> list[tuple[str, Path, str]]:
    found = []
    for each in watched:
        try:
            local = parse_remote(each.source.url).local
        except SourceError:
            continue  # its own pass says so
        if local is not None:
            found.append((each.name, local, short_branch(each.source.branch)))
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
