"""A sync daemon at work on a repository, beside git's own share of what it does at a commit.

The limit is what nobody can do without: `fetch` into a bare mirror, `diff-tree`, `cat-file`, one process each.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import asyncpg

from benchmarks import repositories
from benchmarks.processor import family, proportional
from benchmarks.servers import system
from benchmarks.table import Pair, Row
from tests.support.git import Repository
from tests.support.git_servers import https_server
from tests.support.system import System

FIRST_SYNC_LIMIT = 300.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A repository that is live, the remote that it is fetched from, and a mirror for the limit."""

    running: System
    repository: Repository
    remote: str
    mirror: Path
    size: int

    def memory(self) -> float:
        """Bytes of the daemon and of the processes that check for it, shared pages counted by their share."""
        return float(sum(map(proportional, family(self.running.pid("sync")))))

    async def restart(self) -> None:
        """A new daemon: what the first sync took is given back with the old one."""
        self.running.kill("sync")
        self.running.launch("sync")
        await change(self, 3)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to look for what is live."""
        connection = await asyncpg.connect(self.running.postgres.url().replace("+asyncpg", ""))
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def watched(
    size: int, past: int = 0, *, https: bool = False, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Watched]:
    """`size` definitions, live, after `past` other commits; the repository is watched, or a remote that nobody polls."""
    with ExitStack() as stack:
        async with system("api", source="repository", settings=settings) as running:
            repository = repositories.many(running.folder / "repository", size, past)
            mirror = running.folder / "bare.git"
            repository.git("clone", "--quiet", "--bare", str(repository.path), str(mirror))
            here = Watched(running, repository, f"file://{repository.path}", mirror, size)
            if https:
                here = _behind_https(here, stack)
            running.launch("sync")
            async with here.database() as connection:
                await _live(connection, repository.head(), FIRST_SYNC_LIMIT)
            yield here


def _behind_https(here: Watched, stack: ExitStack) -> Watched:
    folder = here.running.folder
    server = stack.enter_context(https_server(folder, folder / "tls", ""))
    remote = f"{server.url}/repository"
    here.running.sources = [{"name": "bench", "url": remote, "poll_interval": 3600}]
    here.running.settings["GIT_SSL_CAINFO"] = str(server.ca_file)
    return replace(here, remote=remote)


async def commits(here: Watched, count: int, tell: Callable[[], Awaitable[object]] | None = None) -> Pair:
    """One commit of one file after another, each until it is live, from the moment at which the branch has moved.

    With `tell`, from the moment at which somebody is told: the branch has moved before.
    """
    limits: list[float] = []
    ours: list[float] = []
    async with here.database() as connection:
        for number in range(count + 1):
            old = here.repository.head()
            new = _prepare(here, number)
            if tell:
                _move(here, new)
            await asyncio.sleep(0.3)
            begin = time.perf_counter()
            if tell:
                await tell()
            else:
                _move(here, new)
            await _live(connection, new, 60)
            ours.append(time.perf_counter() - begin)
            await asyncio.sleep(0.3)  # what the daemon still has to say of itself is not git's
            limits.append(await asyncio.to_thread(_git_alone, here, old, new))
    # The first one warms both.
    ratios = [b / a for a, b in zip(limits[1:], ours[1:], strict=True)]
    return Pair(median(limits[1:]), median(ours[1:]), median(ratios))


async def change(here: Watched, count: int) -> None:
    """As many commits of one file, each until it is live, and nothing measured."""
    async with here.database() as connection:
        for number in range(count):
            new = _prepare(here, number)
            _move(here, new)
            await _live(connection, new, 60)


def _prepare(here: Watched, number: int) -> str:
    return repositories.prepare_change(
        here.repository, number * 7 % here.size, f"After {here.repository.head()[:12]}."
    )


def _move(here: Watched, new: str) -> None:
    here.repository.git("update-ref", "refs/heads/main", new)


def flat(what: str, small: float, large: float, most: float, show: Callable[[float], str]) -> Row:
    """A row of the same thing at a small and at a large size."""
    growth = large / small
    return Row(what, show(small), show(large), f"{growth:.2f} x", f"flat: ≤ {most:g} x", growth <= most)


def megabytes(value: float) -> str:
    """A size in memory."""
    return f"{value / 1024 / 1024:.0f} MB"


async def _live(connection: asyncpg.Connection, sha: str, limit: float) -> None:
    async with asyncio.timeout(limit):
        # Often enough to add next to nothing, seldom enough to leave the daemon its core.
        while await connection.fetchval("SELECT live_sha FROM sources WHERE name = 'bench'") != sha:  # noqa: ASYNC110
            await asyncio.sleep(0.003)


def _git_alone(here: Watched, old: str, new: str) -> float:
    environment = os.environ | here.running.settings

    def git(*arguments: str) -> bytes:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=here.mirror, env=environment, check=True, stdout=subprocess.PIPE
        ).stdout

    begin = time.perf_counter()
    git("fetch", "--quiet", "--no-tags", here.remote, "+refs/heads/main:refs/heads/main")
    changed = git("diff-tree", "-r", "--no-commit-id", old, new).split()
    git("cat-file", "blob", changed[3].decode())
    return time.perf_counter() - begin
