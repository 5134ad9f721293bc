"""All sources at work: a loop for each repository, started and ended as the list of sources changes.

Sources that share a repository are looked at together, with one fetch, and otherwise apart: whatever one pass raises, and
however long it takes, is its own affair (promise P9).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import structlog

from engine.errors import SourceError, Unavailable
from engine.registry.revisions import Cursor
from engine.settings import Credential, SourceSettings
from engine.storage.database import Database
from engine.sync.checker import Checker
from engine.sync.declarations import Declarations, Declared
from engine.sync.git_source import DEFAULT_LIMITS, Limits
from engine.sync.git_urls import parse_remote
from engine.sync.reconciler import Reconciler
from engine.sync.repository import Fetched, Repository
from engine.sync.source_list import ListReconciler

_log = structlog.get_logger(__name__)

_AWAY_PAUSE = 2.0
"""Seconds: the longest wait for Postgres to come back."""
_LINGER = 5.0
"""Seconds that the sources of a repository wait for the slowest of them before they go on without it."""
_SILENT_AFTER = 120.0
_Key: TypeAlias = tuple[str, str]


class Fleet:
    """The loops of a daemon. `apply` says what is to be watched; lists in git change it from then on."""

    def __init__(
        self, data_dir: Path, database: Database, checker: Checker, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._data_dir = data_dir
        self._limits = limits
        self._database = database
        self._checker = checker
        self._given = Declarations()
        self._lists: dict[str, tuple[Declared, ...]] = {}
        self._running: dict[_Key, RepositoryLoop] = {}
        self._changing = asyncio.Lock()
        self._changed = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        """Called when other repositories are watched than before."""

    async def apply(self, given: Declarations) -> None:
        """Watch what is declared on this machine, and what the lists in git add to it."""
        self._given = given
        names = {each.name for each in given.includes}
        self._lists = {name: listed for name, listed in self._lists.items() if name in names}
        await self._settle(lists_anew=True)

    async def run(self) -> None:
        """Follow the lists in git, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._settle()

    def wake(self, name: str) -> None:
        """Look at a source now, if it is watched here."""
        for loop in self._running.values():
            if any(member.name == name for member in loop.members):
                loop.wake()

    def watched(self) -> list[Declared]:
        """What is watched at the moment."""
        return [member.reconciler.declared for loop in self._running.values() for member in loop.members]

    def sources(self) -> dict[str, SourceSettings]:
        """The sources of definitions that are watched at the moment, by name."""
        found = (each.source for each in self.watched())
        return {source.name: source for source in found if isinstance(source, SourceSettings)}

    def credential(self, name: str) -> Credential | None:
        """The credential of a source that is watched at the moment."""
        return next((each.credential for each in self.watched() if each.name == name), None)

    def problems(self) -> dict[str, str]:
        """Sources that no pass has ended for in a while, and by how much."""
        found = {}
        for loop in self._running.values():
            for member in loop.members:
                silent = time.monotonic() - member.looked_at
                if silent > max(_SILENT_AFTER, 4 * member.poll_interval):
                    found[f"source {member.name}"] = f"no pass has ended for {silent:.0f} s"
        return found

    async def aclose(self) -> None:
        """End all loops, in the middle of whatever they do."""
        async with self._changing:
            running, self._running = self._running, {}
            await asyncio.gather(*(loop.aclose() for loop in running.values()))

    def _take_list(self, name: str, listed: tuple[Declared, ...]) -> None:
        if self._lists.get(name) != listed:
            self._lists[name] = listed
            self._changed.set()

    async def _settle(self, *, lists_anew: bool = False) -> None:
        """End the loops that are not wanted any more, or not like this, and start those that are.

        With `lists_anew`, what lists in git may name has changed as well.
        """
        async with self._changing:
            wanted = self._wanted()
            over = [
                key
                for key, loop in self._running.items()
                if loop.declared != wanted.get(key, ()) or (lists_anew and loop.has_lists)
            ]
            ended = [self._running.pop(key) for key in over]
            await asyncio.gather(*(loop.aclose() for loop in ended))
            await self._let_go([member for loop in ended for member in loop.members], wanted)
            for key, declared in wanted.items():
                if key not in self._running:
                    self._running[key] = self._start(declared)
        self.on_change()

    async def _let_go(self, members: Sequence[Member], wanted: Mapping[_Key, tuple[Declared, ...]]) -> None:
        """Say of sources that are not declared any more that nobody looks at them."""
        names = {each.name for declared in wanted.values() for each in declared}
        for member in members:
            if member.name not in names:
                with member.noted("that it is not watched could not be noted"):
                    await member.reconciler.unwatch()

    def _wanted(self) -> dict[_Key, tuple[Declared, ...]]:
        wanted: dict[_Key, tuple[Declared, ...]] = {}
        names: set[str] = set()
        listed = (each for name in sorted(self._lists) for each in self._lists[name])
        for each in (*self._given.sources, *self._given.includes, *listed):
            if each.name in names:
                _log.error("two lists name the same source", source=each.name, ignored=each.included_from)
                continue
            names.add(each.name)
            key = _key(each)
            wanted[key] = (*wanted.get(key, ()), each)
        return wanted

    def _start(self, declared: tuple[Declared, ...]) -> RepositoryLoop:
        first = declared[0]
        branches = [each.source.branch for each in declared]
        repository = Repository(first.source.url, branches, self._data_dir, first.credential, self._limits)
        members = [Member(self._reconciler(each, repository)) for each in declared]
        return RepositoryLoop(declared, repository, members, self._take_list)

    def _reconciler(self, declared: Declared, repository: Repository) -> Reconciler:
        if isinstance(declared.source, SourceSettings):
            return Reconciler(declared, self._data_dir, self._database, self._checker, repository)
        return ListReconciler(
            declared, self._data_dir, self._database, self._checker, repository, self._given
        )


class RepositoryLoop:
    """Looks at one repository at every poll, and at once when woken, for all sources that share it."""

    def __init__(
        self,
        declared: tuple[Declared, ...],
        repository: Repository,
        members: Sequence[Member],
        take_list: Callable[[str, tuple[Declared, ...]], None],
    ) -> None:
        self.declared = declared
        self.members = members
        self._repository = repository
        self._take_list = take_list
        self._woken = asyncio.Event()
        self._left_out = False
        self._task = asyncio.create_task(self._run())

    @property
    def has_lists(self) -> bool:
        """Whether one of its members is a list of sources."""
        return any(isinstance(member.reconciler, ListReconciler) for member in self.members)

    def wake(self) -> None:
        """Look now (or once more, if a look is under way)."""
        self._woken.set()

    async def aclose(self) -> None:
        """End it in the middle of whatever it does."""
        tasks = [self._task, *(member.task for member in self.members if member.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._repository.aclose()
        await asyncio.gather(*(member.reconciler.aclose() for member in self.members))

    async def _run(self) -> None:
        await self._follow_lists()
        while True:
            self._woken.clear()
            pause = _AWAY_PAUSE
            try:
                pause = await self._look()
                await self._follow_lists()
            except Exception:  # the loop of a source never ends by itself
                _log.exception("look failed", sources=[member.name for member in self.members])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _look(self) -> float:
        """One fetch and a pass of each source; the seconds until the next."""
        idle = [member for member in self.members if not member.busy]
        self._left_out = len(idle) < len(self.members)
        cursors = await asyncio.gather(*(member.begin() for member in idle))
        ready = [(member, cursor) for member, cursor in zip(idle, cursors, strict=True) if cursor is not None]
        if ready:
            preparing = asyncio.gather(*(member.reconciler.prepare(cursor) for member, cursor in ready))
            try:
                fetched, _ = await asyncio.gather(self._repository.fetched(), preparing)
            except Exception as error:
                await asyncio.gather(*(member.fail(error) for member, _ in ready))
                raise
            tasks = [member.start(cursor, fetched, self._ended) for member, cursor in ready]
            await asyncio.wait(tasks, timeout=_LINGER)
        pauses = [member.pause for member in self.members if not member.busy]
        return min(pauses, default=min(member.poll_interval for member in self.members))

    def _ended(self) -> None:
        """A pass that took long has ended: what came meanwhile was not looked at for its source."""
        if self._left_out:
            self._woken.set()

    async def _follow_lists(self) -> None:
        for member in self.members:
            if isinstance(member.reconciler, ListReconciler) and not member.busy:
                with member.noted("list not read"):
                    listed = await member.reconciler.listed()
                    if listed is not None:
                        self._take_list(member.name, listed)


class Member:
    """One source of a repository's loop."""

    def __init__(self, reconciler: Reconciler) -> None:
        self.reconciler = reconciler
        self.name = reconciler.source.name
        self.poll_interval = reconciler.source.poll_interval
        self.pause = self.poll_interval
        self.looked_at = time.monotonic()
        self.task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """A pass is under way."""
        return self.task is not None and not self.task.done()

    async def begin(self) -> Cursor | None:
        """Where the registry stands with it; None if that cannot be told now."""
        cursor: Cursor | None = None
        self.pause = min(self.poll_interval, _AWAY_PAUSE)
        with self.noted("pass not begun"):
            cursor = await self.reconciler.begin()
        return cursor

    def start(self, cursor: Cursor, fetched: Fetched, ended: Callable[[], None]) -> asyncio.Task[None]:
        """Begin a pass."""
        self.task = asyncio.create_task(self._pass(cursor, fetched))
        self.task.add_done_callback(lambda _: ended())
        return self.task

    async def _pass(self, cursor: Cursor, fetched: Fetched) -> None:
        """One pass. Whatever it raises ends that pass only."""
        try:
            standing = await self.reconciler.finish(cursor, fetched)
            _log.debug("pass", source=self.name, condition=standing.condition, reason=standing.reason)
            self.pause = self.poll_interval
        except Unavailable as error:
            _log.warning("pass waits", source=self.name, reason=error.message)
            return
        except Exception as error:
            _log.exception("pass failed", source=self.name)
            self.pause = max(self.poll_interval, 1.0)
            await self.fail(error)
        self.looked_at = time.monotonic()

    async def fail(self, error: Exception) -> None:
        """Say in the source's condition that we failed, by a fault of ours."""
        with self.noted("the failure could not be noted"):
            await self.reconciler.note_failure(error)

    @contextlib.contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """Let nothing out but a cancellation."""
        try:
            yield
        except Unavailable as error:
            _log.warning(what, source=self.name, reason=error.message)
        except Exception:
            _log.exception(what, source=self.name)


def _key(declared: Declared) -> _Key:
    """What two sources must have in common to share a fetch: the repository and the way into it."""
    try:
        fetch = parse_remote(declared.source.url).fetch
    except SourceError:
        fetch = declared.source.url  # its own pass says what is wrong
    return fetch, declared.credential.model_dump_json() if declared.credential else ""
