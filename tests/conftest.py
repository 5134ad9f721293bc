"""Fixtures that all tests share. Servers are real, and start only if a test asks for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.histories.seeds import SLICE, broken_once
from tests.support.git import Repository

# The order in which the folders begin, the longest files first: what is left to the end should be short, so that no
# worker goes on alone. (`--no-loadscope-reorder` of pytest-xdist keeps it; by itself that takes the files with the most
# tests first, and so the acceptance tests, few and long, last.)
_FIRST = ("acceptance", "workflow", "integration", "histories", "simulation", "unit")
_TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders in order, and leave the tests of a file as they stand there."""
    items.sort(key=lambda item: _FIRST.index(item.path.relative_to(_TESTS).parts[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which random histories were played, also where the rest is quiet."""
    reports = [each for some in terminalreporter.stats.values() for each in some]
    if any(getattr(each, "nodeid", "").startswith("tests/histories/") for each in reports):
        terminalreporter.write_line(
            f"histories: seeds {SLICE[0]} to {SLICE[-1]}, and of those that broke a rule once {broken_once()}"
        )


def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` means: one and a half for a processor, as tests of servers wait for a part of their time."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, processors * 3 // 2)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees no PINFLOW_ variable but those it sets: it must not talk to the developer's own stack."""
    for name in list(os.environ):
        if name.startswith("PINFLOW_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_private_folders_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As root, a database of a private folder (and pytest's are) stands elsewhere; a note in the folder says where."""
    yield
    if os.geteuid() == 0:
        for note in tmp_path_factory.getbasetemp().rglob("MOVED"):
            shutil.rmtree(note.read_text().strip(), ignore_errors=True)


@pytest.fixture
def git_repo(tmp_path: Path) -> Repository:
    """An empty repository with branch `main`."""
    return Repository(tmp_path / "source")


# Imports stand inside of the fixtures: unit tests of the language should not pay for SQLAlchemy.


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[object]:
    """A real Postgres server (`tests.support.postgres.TestPostgres`), one per test process."""
    from tests.support.postgres import running_postgres

    async with running_postgres() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def database_url(postgres: object) -> AsyncIterator[str]:
    """The URL of a fresh database with all tables and no rows; dropped after the test, with its connections."""
    from tests.support.postgres import TestPostgres

    assert isinstance(postgres, TestPostgres)
    url = await postgres.fresh_database()
    yield url
    await postgres.drop_database(url.rpartition("/")[2])


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_url: str) -> AsyncIterator[object]:
    """An `engine.storage.database.Database` on a fresh database."""
    from engine.storage.database import Database

    opened = Database(database_url)
    yield opened
    await opened.aclose()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal_server() -> AsyncIterator[object]:
    """A real Temporal dev server (`engine.stack.temporal.EmbeddedTemporal`), in memory, one per test process."""
    from tests.support.temporal import running_temporal

    async with running_temporal() as server:
        yield server


@pytest.fixture(scope="session")
def temporal(temporal_server: object) -> str:
    """host:port of the session's Temporal, with the search attributes of Pinflow; use task queues of your own."""
    return str(getattr(temporal_server, "address"))  # noqa: B009
