"""The first sync of a repository, beside the least that it could be.

The limit, with the same number of processes: fetch into a new bare mirror, read all by one `cat-file --batch`, parse
with libyaml's loader and validate with jsonschema-rs in two children, COPY texts and rows into Postgres.
Processor time is that of all processes, git's and Postgres' as well: unlike time, it hardly moves with other load.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import multiprocessing
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import TypeAlias

import asyncpg

from benchmarks import repositories
from benchmarks.bare_check import parse_and_validate
from benchmarks.processor import spent_by_all
from benchmarks.servers import ROOT, folder
from benchmarks.table import Pair, Row, at_most, beside, seconds
from engine.settings import SourceSettings
from engine.stack.postgres import EmbeddedPostgres
from engine.storage.database import Database
from engine.storage.migrate import upgrade
from engine.sync.checker import Checker
from engine.sync.reconciler import Reconciler
from tests.support.git import Repository

Taken: TypeAlias = tuple[float, float]
"""Seconds, and seconds of processor time."""

PROCESSES = 2
BATCH = 50
_TABLES = """
    DROP TABLE IF EXISTS texts, flows;
    CREATE TABLE texts (digest text PRIMARY KEY, kind text, content bytea);
    CREATE TABLE flows (name text PRIMARY KEY, path text, digest text);
"""


async def measure(quick: bool) -> list[Row]:
    """Two rows for each size of repository."""
    sizes = {250: 1} if quick else {1_000: 3, 10_000: 1}
    rows: list[Row] = []
    with folder() as place:
        postgres = EmbeddedPostgres(place / "postgres", die_with_parent=True)
        await postgres.start()
        try:
            for size, rounds in sizes.items():
                repository = repositories.many(place / f"repository-{size}", size)
                time_taken, processor = await _size(place, postgres, repository, size, rounds)
                what = f"first sync of {size:,} definitions"
                rows.append(at_most(what, time_taken, 1.3, seconds))
                rows.append(beside(f"{what}, processor time", processor, seconds))
        finally:
            await postgres.stop()
    return rows


async def _size(
    place: Path, postgres: EmbeddedPostgres, repository: Repository, size: int, rounds: int
) -> tuple[Pair, Pair]:
    """Time, and processor time."""
    limits: list[Taken] = []
    ours: list[Taken] = []
    for number in range(rounds):
        turns = [_limit, _pinflow] if number % 2 == 0 else [_pinflow, _limit]
        for turn in turns:
            fresh = f"cold_{size}_{number}_{turn.__name__.strip('_')}"
            await postgres.create_database(fresh)
            taken = await turn(place / fresh, postgres.url(fresh), repository, size)
            (limits if turn is _limit else ours).append(taken)
    time_taken, processor = (_pair([each[n] for each in limits], [each[n] for each in ours]) for n in (0, 1))
    return time_taken, processor


def _pair(limits: Sequence[float], ours: Sequence[float]) -> Pair:
    return Pair(median(limits), median(ours), median(b / a for a, b in zip(limits, ours, strict=True)))


async def _pinflow(place: Path, url: str, repository: Repository, size: int) -> Taken:
    await upgrade(url)
    database = Database(url)
    checker = Checker(processes=PROCESSES)
    source = SourceSettings(name="bench", url=str(repository.path))
    reconciler = Reconciler(source, place, database, checker)
    try:
        await checker.warm()
        begin, before = time.perf_counter(), spent_by_all()
        standing = await reconciler.run_pass()
        taken = time.perf_counter() - begin, spent_by_all() - before
        if f"with {size} definitions" not in standing.message:
            raise RuntimeError(f"not synced: {standing}")
        return taken
    finally:
        await reconciler.aclose()
        await checker.aclose()
        await database.aclose()


async def _limit(place: Path, url: str, repository: Repository, size: int) -> Taken:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(_TABLES)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        await asyncio.gather(*(_in(pool, []) for _ in range(PROCESSES * 2)))
        begin, before = time.perf_counter(), spent_by_all()
        files = await asyncio.to_thread(_read, place, repository)
        batches = [files[at : at + BATCH] for at in range(0, len(files), BATCH)]
        names = list(itertools.chain(*await asyncio.gather(*(_in(pool, each) for each in batches))))
        async with connection.transaction():
            await _copy(connection, files, names)
        taken = time.perf_counter() - begin, spent_by_all() - before
    assert len(names) == size
    await connection.close()
    shutil.rmtree(place)
    return taken


async def _in(pool: ProcessPoolExecutor, batch: Sequence[tuple[str, bytes]]) -> list[str]:
    schema = str(ROOT / "schemas/workflow.schema.json")
    return await asyncio.get_running_loop().run_in_executor(pool, parse_and_validate, batch, schema)


def _read(mirror: Path, repository: Repository) -> list[tuple[str, bytes]]:
    def git(*arguments: str, given: bytes = b"") -> bytes:
        return subprocess.run(
            ["git", *arguments], cwd=mirror, check=True, input=given, stdout=subprocess.PIPE
        ).stdout

    mirror.mkdir()
    git("init", "--quiet", "--bare")
    git("fetch", "--quiet", f"file://{repository.path}", "+refs/heads/main:refs/heads/main")
    listing = [line.split(None, 3) for line in git("ls-tree", "-r", "main").splitlines()]
    ids = b"".join(line[2] + b"\n" for line in listing)
    out = git("cat-file", "--batch", given=ids)
    files: list[tuple[str, bytes]] = []
    at = 0
    for line in listing:
        end = out.index(b"\n", at)
        length = int(out[at:end].split()[2])
        files.append((line[3].decode(), out[end + 1 : end + 1 + length]))
        at = end + length + 2
    return files


async def _copy(
    connection: asyncpg.Connection, files: Sequence[tuple[str, bytes]], names: Sequence[str]
) -> None:
    digests = [hashlib.sha256(text).hexdigest() for _, text in files]
    texts = [(digest, "definition", text) for digest, (_, text) in zip(digests, files, strict=True)]
    rows = [(name, path, digest) for name, (path, _), digest in zip(names, files, digests, strict=True)]
    await connection.copy_records_to_table("texts", records=texts)
    await connection.copy_records_to_table("flows", records=rows)
