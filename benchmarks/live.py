"""From the moment a branch moves to the moment its definition is live, beside git's own share of that work.

The limit is what nobody can do without: `fetch` into a bare mirror, `diff-tree`, `cat-file`, one process each.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import asyncpg

from benchmarks import repositories
from benchmarks.servers import system
from benchmarks.table import Pair, Row, at_most, milliseconds
from tests.support.git import Repository
from tests.support.system import System


async def measure(quick: bool) -> list[Row]:
    """A row for each size of repository, and one for how flat they are."""
    sizes, commits = ((20, 40), 3) if quick else ((100, 1_000, 10_000), 15)
    past = 200 if quick else 100_000
    rows: list[Row] = []
    medians: list[float] = []
    for size in sizes:
        async with _watched(size) as (running, repository, mirror):
            pair = await _commits(running, repository, mirror, size, commits)
        medians.append(pair.pinflow)
        rows.append(at_most(f"commit to live, one of {size:,} definitions, p50", pair, 3, milliseconds))
    async with _watched(sizes[1], past) as (running, repository, mirror):
        long = await _commits(running, repository, mirror, sizes[1], commits)
    what = f"commit to live, one of {sizes[1]:,} definitions after {past:,} commits, p50"
    rows.append(at_most(what, long, 3, milliseconds))
    growth = medians[-1] / medians[0]
    what = f"commit to live, {sizes[-1]:,} definitions beside {sizes[0]:,}"
    shown = (milliseconds(medians[0]), milliseconds(medians[-1]), f"{growth:.2f} x")
    return [*rows, Row(what, *shown, "flat: ≤ 1.5 x", growth <= 1.5)]


@asynccontextmanager
async def _watched(size: int, past: int = 0) -> AsyncIterator[tuple[System, Repository, Path]]:
    async with system("api", source="repository") as running:
        repository = repositories.many(running.folder / "repository", size, past)
        mirror = running.folder / "bare.git"
        repository.git("clone", "--quiet", "--bare", str(repository.path), str(mirror))
        running.launch("sync")
        connection = await asyncpg.connect(running.postgres.url().replace("+asyncpg", ""))
        await _live(connection, repository.head(), 300)
        await connection.close()
        yield running, repository, mirror


async def _commits(running: System, repository: Repository, mirror: Path, size: int, commits: int) -> Pair:
    connection = await asyncpg.connect(running.postgres.url().replace("+asyncpg", ""))
    limits: list[float] = []
    ours: list[float] = []
    for number in range(commits + 1):
        old = repository.head()
        new = repositories.prepare_change(repository, number * 7 % size, f"Change {number}.")
        await asyncio.sleep(0.3)
        begin = time.perf_counter()
        repository.git("update-ref", "refs/heads/main", new)
        await _live(connection, new, 60)
        ours.append(time.perf_counter() - begin)
        await asyncio.sleep(0.3)  # what the daemon still has to say of itself is not git's
        limits.append(await asyncio.to_thread(_git_alone, mirror, repository, old, new))
    await connection.close()
    # The first one warms both.
    ratios = [b / a for a, b in zip(limits[1:], ours[1:], strict=True)]
    return Pair(median(limits[1:]), median(ours[1:]), median(ratios))


async def _live(connection: asyncpg.Connection, sha: str, limit: float) -> None:
    async with asyncio.timeout(limit):
        # Often enough to add next to nothing, seldom enough to leave the daemon its core.
        while await connection.fetchval("SELECT live_sha FROM sources WHERE name = 'bench'") != sha:  # noqa: ASYNC110
            await asyncio.sleep(0.003)


def _git_alone(mirror: Path, repository: Repository, old: str, new: str) -> float:
    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=mirror, check=True, stdout=subprocess.PIPE).stdout

    begin = time.perf_counter()
    git("fetch", "--quiet", "--no-tags", f"file://{repository.path}", "+refs/heads/main:refs/heads/main")
    changed = git("diff-tree", "-r", "--no-commit-id", old, new).split()
    git("cat-file", "blob", changed[3].decode())
    return time.perf_counter() - begin
