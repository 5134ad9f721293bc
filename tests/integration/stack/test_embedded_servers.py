"""The embedded servers survive kill -9 of themselves and of whoever started them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from engine.errors import Misconfigured, Unavailable
from engine.stack import temporal
from engine.stack.postgres import EmbeddedPostgres
from engine.stack.temporal import SEARCH_ATTRIBUTES, EmbeddedTemporal, temporal_program
from tests.support.processes import runs


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(_folder(tmp_path_factory) / "postgres", die_with_parent=True)
    yield embedded
    await embedded.stop()


@pytest.fixture
async def dev_server(tmp_path: Path) -> AsyncIterator[EmbeddedTemporal]:
    embedded = EmbeddedTemporal(tmp_path / "temporal", die_with_parent=True)
    yield embedded
    await embedded.stop()


def _folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that another user can reach: pytest's own are private, and as root Postgres drops its rights."""
    folder = factory.mktemp("stack")
    for place in (folder, *folder.parents):
        if place.name.startswith("pytest-"):
            place.chmod(0o755)
    folder.chmod(0o755)
    return folder


async def _write(server: EmbeddedPostgres, statement: str) -> None:
    await server.execute(statement)


async def _count(server: EmbeddedPostgres) -> int:
    connection = await asyncpg.connect(server.url("postgres").replace("+asyncpg", ""))
    try:
        return int(await connection.fetchval("SELECT count(*) FROM kept"))
    finally:
        await connection.close()


async def test_postgres_killed_comes_back_at_the_same_port_with_its_data(server: EmbeddedPostgres) -> None:
    await server.start()
    port = server.port
    await _write(server, "CREATE TABLE kept AS SELECT 1 AS x")

    for _ in range(3):
        os.kill(server.pid, signal.SIGKILL)
        await _gone(server)
        await server.start()

    assert server.port == port
    assert await _count(server) == 1


async def test_a_second_launcher_adopts_the_living_postgres(server: EmbeddedPostgres) -> None:
    await server.start()
    heir = EmbeddedPostgres(server.folder)

    await heir.start()

    assert (heir.pid, heir.port) == (server.pid, server.port)
    assert heir.alive()
    await heir.stop()
    assert not heir.alive()


async def test_a_stale_lock_of_a_recycled_pid_does_not_stop_postgres(server: EmbeddedPostgres) -> None:
    await server.start()
    os.kill(server.pid, signal.SIGKILL)
    await _gone(server)
    lock = server.folder / "pg" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")  # as if our own pid had been its

    await server.start()

    assert server.pid != os.getpid()
    assert server.alive()


async def test_a_killed_initdb_leaves_nothing_in_the_way(server: EmbeddedPostgres) -> None:
    (server.folder / "pg.new" / "base").mkdir(parents=True)

    await server.start()

    assert server.alive()


async def test_data_of_another_postgres_are_left_alone(server: EmbeddedPostgres) -> None:
    await server.start()
    await server.stop()
    (server.folder / "pg" / "PG_VERSION").write_text("12\n")

    with pytest.raises(Misconfigured, match="written by Postgres 12"):
        await server.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders can be out of reach of the server's user")
async def test_a_private_folder_of_root_stays_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    private = tmp_path / "data" / "postgres"
    embedded = EmbeddedPostgres(private, die_with_parent=True)
    try:
        await embedded.start()

        assert tmp_path.stat().st_mode & 0o777 == 0o700
        assert (private / "MOVED").read_text().strip() == str(embedded.folder)
        assert EmbeddedPostgres(private).folder == embedded.folder
    finally:
        await embedded.stop()
        await asyncio.to_thread(subprocess.run, ["rm", "-rf", str(embedded.folder)], check=True)


async def test_temporal_killed_comes_back_at_the_same_port(dev_server: EmbeddedTemporal) -> None:
    await dev_server.start()
    before = (dev_server.port, dev_server.ui_port)

    os.kill(dev_server.pid, signal.SIGKILL)
    await _gone(dev_server)
    await dev_server.start()

    assert (dev_server.port, dev_server.ui_port) == before
    assert set(SEARCH_ATTRIBUTES) <= set(
        _temporal(dev_server, "operator", "search-attribute", "list").split()
    )


async def test_a_second_launcher_adopts_the_living_temporal(
    dev_server: EmbeddedTemporal, tmp_path: Path
) -> None:
    await dev_server.start()
    heir = EmbeddedTemporal(tmp_path / "temporal")

    await heir.start()

    assert (heir.pid, heir.address) == (dev_server.pid, dev_server.address)
    await heir.stop()
    assert not heir.alive()


async def test_an_orphan_that_does_not_answer_is_ended_and_replaced(
    dev_server: EmbeddedTemporal, tmp_path: Path
) -> None:
    await dev_server.start()
    os.kill(dev_server.pid, signal.SIGSTOP)
    heir = EmbeddedTemporal(tmp_path / "temporal", die_with_parent=True)

    await heir.start()
    try:
        assert heir.pid != dev_server.pid
        assert not dev_server.alive()
    finally:
        await heir.stop()


async def test_a_server_that_never_comes_up_is_ended_before_the_next_try(
    dev_server: EmbeddedTemporal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "temporal-that-hangs"
    program.write_text("#!/bin/sh\necho it hangs\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(temporal, "temporal_program", lambda: program)
    monkeypatch.setattr(temporal, "START_LIMIT", 0.2)
    with pytest.raises(Unavailable, match="Temporal does not start"):
        await dev_server.start()
    assert not dev_server.alive()


async def test_servers_of_a_killed_test_process_end_with_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = _folder(tmp_path_factory)
    script = f"""
import asyncio, pathlib
from engine.stack.postgres import EmbeddedPostgres
from engine.stack.temporal import EmbeddedTemporal
async def main():
    p = EmbeddedPostgres(pathlib.Path({str(folder)!r}) / "postgres", die_with_parent=True)
    t = EmbeddedTemporal(pathlib.Path({str(folder)!r}) / "temporal", durable=False, die_with_parent=True)
    await p.start(); await t.start()
    print(p.pid, t.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(word) for word in (await asyncio.to_thread(owner.stdout.readline)).split()]
    assert len(pids) == 2

    owner.kill()
    owner.wait()
    owner.stdout.close()

    deadline = time.monotonic() + 20
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still there: {[pid for pid in pids if runs(pid)]}"
        await asyncio.sleep(0.05)


async def _gone(server: EmbeddedPostgres | EmbeddedTemporal) -> None:
    deadline = time.monotonic() + 20
    while server.alive():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _temporal(server: EmbeddedTemporal, *words: str) -> str:
    done = subprocess.run(
        [temporal_program(), *words, "--address", server.address], capture_output=True, text=True, check=True
    )
    return done.stdout


async def test_an_orphan_that_does_not_answer_yet_is_not_doubled(server: EmbeddedPostgres) -> None:
    await server.start()
    os.kill(server.pid, signal.SIGSTOP)  # accepts connections, answers none: as one that still recovers
    heir = EmbeddedPostgres(server.folder)
    starting = asyncio.create_task(heir.start())
    await _until_it_says(server, "lock file|shared memory")

    os.kill(server.pid, signal.SIGCONT)
    await starting

    assert heir.pid == server.pid


async def _until_it_says(server: EmbeddedPostgres, pattern: str) -> None:
    deadline = time.monotonic() + 40
    while not re.search(pattern, server.log.read_text()):
        assert time.monotonic() < deadline, server.log.read_text()
        await asyncio.sleep(0.05)
