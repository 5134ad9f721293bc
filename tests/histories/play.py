"""Plays one history: two daemons look at it at random moments, die in the middle, and must agree with the model."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from random import Random

from engine.errors import Conflict, NotFound
from engine.faults import InjectedFault
from engine.registry.workflow_registry import WorkflowRegistry
from engine.services.callers import Caller
from engine.services.sources import SourceService
from engine.settings import SourceSettings
from engine.storage.blobs import digest_of
from engine.storage.database import Database
from engine.sync.checker import Checker
from engine.sync.reconciler import Reconciler
from tests.histories.model import MAX_DELETIONS, Model
from tests.histories.one_pass import look_and_die
from tests.histories.story import NAMES, Story

_POINTS = ("sync.after_fetch", "publish.before_commit", "publish.after_commit")
_KILLS = 1 / 40
"""The part of the looks in which a process of its own is really killed; a new one costs a second."""
_SOMEBODY = Caller("somebody", frozenset({"operator"}))
Pins = dict[tuple[str, str], tuple[str, str, str]]
"""(name, commit) → digests of text, compiled form and functions."""


class Play:
    """One seed over one database."""

    def __init__(
        self, seed: int, database: Database, database_url: str, checker: Checker, folder: Path
    ) -> None:
        self._database_url = database_url
        self._chance = Random(seed)
        self._database = database
        self._checker = checker
        self._folder = folder
        self._registry = WorkflowRegistry(database)
        self._service = SourceService(database)
        self._model = Model(isolated=self._chance.random() < 0.5, hold=self._chance.random() < 0.3)
        self._story = Story(folder / "source.git", self._chance, self._model)
        self._source = SourceSettings(
            name=f"s{seed}",
            url=str(self._story.path),
            max_deletions=MAX_DELETIONS,
            mode="isolated" if self._model.isolated else "atomic",
            rewritten_history="hold" if self._model.hold else "accept",
        )
        self._daemons = [self._start(number) for number in range(2)]
        self._pins: Pins = {}
        self.kills = 0
        """Processes that were killed in the middle."""

    async def play(self) -> None:
        """All of it. Raises `AssertionError` where the registry is not what the model says."""
        try:
            self._story.begin()
            for _ in range(self._chance.randint(4, 8)):
                for _ in range(self._chance.randint(0, 3)):
                    self._story.go_on()
                await self._look()
                self._model.look(self._story.tip)
                await self._compare()
                await self._confirm()
                await self._restart()
            await self._every_pin_holds()
        finally:
            for daemon in self._daemons:
                await daemon.aclose()

    def _start(self, number: int) -> Reconciler:
        return Reconciler(self._source, self._folder / f"data{number}", self._database, self._checker)

    async def _look(self) -> None:
        """A pass of one daemon or of both at once, or one that dies in the middle and then another."""
        number = self._chance.randrange(2)
        how = self._chance.random()
        if how < _KILLS:
            await self._be_killed(number)
        elif how < 0.25:
            await self._die(number)
        elif how < 0.5:
            await asyncio.gather(*(daemon.run_pass() for daemon in self._daemons))
        await self._daemons[number].run_pass()

    async def _die(self, number: int) -> None:
        os.environ["PINFLOW_FAULTS"] = f"{self._chance.choice(_POINTS)}=error"
        try:
            await self._daemons[number].run_pass()
        except InjectedFault:
            pass
        finally:
            del os.environ["PINFLOW_FAULTS"]
        await self._daemons[number].aclose()
        self._daemons[number] = self._start(number)

    async def _be_killed(self, number: int) -> None:
        """A process with this daemon's folder ends by SIGKILL, unless nothing leads it to the point."""
        await self._daemons[number].aclose()
        point = self._chance.choice(_POINTS)
        code = await look_and_die(self._database_url, self._folder / f"data{number}", self._source, point)
        assert code in (0, -signal.SIGKILL), code
        assert code or point != "sync.after_fetch", "that point is on every way"
        self.kills += code != 0
        self._daemons[number] = self._start(number)

    async def _confirm(self) -> None:
        """Somebody says that what is held is meant."""
        last = self._model.revisions[-1]
        if last.held and self._chance.random() < 0.4:
            try:
                await self._service.confirm(_SOMEBODY, self._source.name, last.sha)
            except Conflict:
                assert self._model.confirmed == last.sha, "a commit is confirmed once"
            self._model.confirmed = last.sha

    async def _restart(self) -> None:
        """With the mirror or without it."""
        if self._chance.random() < 0.3:
            number = self._chance.randrange(2)
            await self._daemons[number].aclose()
            if self._chance.random() < 0.5:
                shutil.rmtree(self._folder / f"data{number}", ignore_errors=True)
            self._daemons[number] = self._start(number)

    async def _compare(self) -> None:
        rows = await self._registry.revisions(limit=1000, source=self._source.name)
        found = [(row["sha"], row["status"], row["history_rewritten"]) for row in reversed(rows)]
        assert found == [(each.sha, each.status, each.rewritten) for each in self._model.revisions]
        live = await self._registry.workflows(limit=1000, source=self._source.name)
        assert {row["name"]: (row["commit_sha"], row["path"]) for row in live} == {
            name: (self._model.first_with[key], path) for name, (key, path) in self._model.live.items()
        }
        for row in live:
            digests = (row["digest"], row["compiled_digest"], row["bundle_digest"])
            assert self._pins.setdefault((row["name"], row["commit_sha"]), digests) == digests

    async def _every_pin_holds(self) -> None:
        """Each commit ever taken resolves to what was live at it, each pin to its bytes, whatever git has lost since."""
        for sha, expected in self._model.at.items():
            for name in NAMES:
                assert await self._resolved(name, sha) == expected.get(name), (sha, name)
        for (name, sha), digests in self._pins.items():
            pin = (await self._registry.resolve(f"{self._source.name}/{name}", sha)).pin
            assert (pin.digest, pin.compiled_digest, pin.bundle_digest) == digests
            for digest in filter(None, digests):
                assert digest_of(await self._registry.content(digest)) == digest

    async def _resolved(self, name: str, sha: str) -> str | None:
        try:
            return (await self._registry.resolve(f"{self._source.name}/{name}", sha)).pin.commit_sha
        except NotFound:
            return None
