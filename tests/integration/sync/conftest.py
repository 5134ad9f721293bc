"""Fixtures of sync: a checker for all tests, and a source that is synced pass by pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest_asyncio

from engine.storage.database import Database
from engine.sync.checker import Checker
from tests.support.git import Repository
from tests.support.syncing import Syncing

Make = Callable[..., Syncing]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def checker() -> AsyncIterator[Checker]:
    """A warm checker."""
    made = Checker()
    await made.warm()
    yield made
    await made.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def make_syncing(
    git_repo: Repository, database: Database, checker: Checker, tmp_path: Path
) -> AsyncIterator[Make]:
    """Makes a `Syncing` over the test's repository; keyword arguments are settings of the source."""
    async with AsyncExitStack() as stack:

        def make(repository: Repository = git_repo, data_dir: Path | None = None, **settings: Any) -> Syncing:
            made = Syncing(repository, database, checker, data_dir or tmp_path / "data", **settings)
            stack.push_async_callback(made.reconciler.aclose)
            return made

        yield make


@pytest_asyncio.fixture(loop_scope="session")
async def syncing(make_syncing: Make) -> Syncing:
    """A `Syncing` with default settings."""
    return make_syncing()
