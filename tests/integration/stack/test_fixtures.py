"""The fixtures that all other tests stand on."""

from __future__ import annotations

import asyncio
import socket

import asyncpg
import pytest

from tests.support.git import Repository
from tests.support.network import OutsideWorld, loopback_only


def _dsn(url: str) -> str:
    return url.replace("+asyncpg", "")


async def test_a_fresh_database_has_the_tables_and_is_ours_alone(database_url: str, postgres: object) -> None:
    connection = await asyncpg.connect(_dsn(database_url))
    try:
        assert await connection.fetchval("SELECT count(*) FROM workflow_executions") == 0
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
    finally:
        await connection.close()


async def test_temporal_answers_at_its_address(temporal: str) -> None:
    host, _, port = temporal.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    await writer.wait_closed()


def test_a_repository_makes_the_same_commits_everywhere(git_repo: Repository) -> None:
    first = git_repo.commit({"workflows/a.yaml": "name: a\n", "functions/x.py": b"\x00"}, message="Add a")
    second = git_repo.commit({"workflows/a.yaml": None}, author="Bob <bob@example.test>")

    assert first == "db5afa335f9b500b464bc62c8b7bcfffba47d511"
    assert git_repo.git("log", "--format=%an %ae", "-1", second) == "Bob bob@example.test"
    assert git_repo.git("ls-tree", "-r", "--name-only", second) == "functions/x.py"


def test_a_merge_is_a_real_merge_commit(git_repo: Repository) -> None:
    git_repo.commit({"a": "1"})
    git_repo.git("checkout", "--quiet", "-b", "change")
    git_repo.commit({"b": "2"})
    git_repo.git("checkout", "--quiet", "main")

    merged = git_repo.merge("change")

    assert len(git_repo.git("rev-list", "--parents", "-1", merged).split()) == 3


def test_unit_tests_reach_no_other_machine() -> None:
    with loopback_only(), socket.socket() as probe, pytest.raises(OutsideWorld):
        probe.connect(("192.0.2.1", 80))
