"""One source, synced pass by pass without a daemon, and what the registry then says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text

from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import Credential, SourceSettings, Trust
from engine.storage.database import Database
from engine.sync.checker import Checker
from engine.sync.declarations import Declared
from engine.sync.reconciler import Reconciler
from engine.sync.standing import Standing
from tests.support.git import Repository


def flow(name: str, marker: str = "1", *, function: str = "") -> str:
    """A valid definition; `marker` makes its text differ. With `function`, it calls one of the source's functions."""
    if function:
        return (
            f"name: {name}\ndescription: '{marker}'\ntasks:\n"
            f"  - {{id: call, activity_type: python_function, config: {{function: '{function}'}}}}\n"
        )
    return f"name: {name}\ndescription: '{marker}'\ntasks:\n  - {{id: only, type: set, values: {{a: 1}}}}\n"


class Syncing:
    """A repository, a reconciler over it, and a registry to look into."""

    def __init__(
        self,
        repository: Repository,
        database: Database,
        checker: Checker,
        data_dir: Path,
        *,
        credential: Credential | None = None,
        trust: Trust | None = None,
        **settings: Any,
    ) -> None:
        self.repository = repository
        self.database = database
        self.registry = WorkflowRegistry(database)
        values: dict[str, Any] = {"name": "main", "url": str(repository.path)} | settings
        self.source = SourceSettings(**values)
        declared = Declared(self.source, credential, trust)
        self.reconciler = Reconciler(declared, data_dir, database, checker)

    async def sync(self) -> Standing:
        """One pass."""
        return await self.reconciler.run_pass()

    async def live(self) -> dict[str, tuple[str, str]]:
        """Name → (commit that brought the version, path)."""
        rows = await self.registry.workflows(limit=1000)
        return {row["name"]: (row["commit_sha"], row["path"]) for row in rows}

    async def revisions(self) -> list[tuple[str, str]]:
        """(sha, status) of every revision, oldest first."""
        return [(row["sha"], row["status"]) for row in reversed(await self.registry.revisions(limit=1000))]

    async def problems(self, sha: str) -> list[tuple[str, int, str]]:
        """(file, line, code) of the problems that a rejected commit has."""
        (revision,) = await self.registry.revision(sha)
        return [(each["file"], each["line"], each["code"]) for each in revision["problems"]]

    async def audit(self) -> list[tuple[str, str, str]]:
        """(action, workflow, commit) of every audit row, oldest first."""
        async with self.database.read() as connection:
            rows = await connection.execute(
                text("SELECT action, workflow, commit_sha FROM audit ORDER BY id")
            )
            return [(row.action, row.workflow, row.commit_sha) for row in rows]

    async def row(self) -> dict[str, Any]:
        """The source's row."""
        return next(row for row in await self.registry.sources() if row["name"] == self.source.name)


class DaemonProcess:
    """`pinflow serve sync` as a process of its own, to be killed."""

    _CODE = (
        "import asyncio; from engine.settings import Settings; from engine.sync.daemon import run_sync; "
        "asyncio.run(run_sync(Settings()))"
    )

    def __init__(
        self, database_url: str, data_dir: Path, *sources: dict[str, Any], file: Path | None = None
    ) -> None:
        self._environment = {
            "PINFLOW_DATABASE_URL": database_url,
            "PINFLOW_DATA_DIR": str(data_dir),
            "PINFLOW_SOURCES": json.dumps(sources),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        if file is not None:
            self._environment["PINFLOW_SOURCES_FILE"] = str(file)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, faults: str = "") -> None:
        """Start it; `faults` as in `engine/faults.py`."""
        environment = {**os.environ, **self._environment, "PINFLOW_FAULTS": faults}
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._CODE], env=environment, stderr=subprocess.DEVNULL
        )

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, seconds: float = 60) -> int:
        """Wait until it is gone and return its code (negative: the signal)."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, seconds)

    def kill(self) -> None:
        """kill -9, if it still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 60) -> None:
    """Wait until `condition` holds; fail naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(0.02)
