"""A few of the histories at each run of the tests; `make histories` plays a thousand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.storage.database import Database
from engine.sync.checker import Checker
from tests.histories.play import Play
from tests.histories.seeds import SLICE, broken_once


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def checker() -> AsyncIterator[Checker]:
    made = Checker()
    yield made
    await made.aclose()


@pytest.mark.parametrize("seed", sorted({*SLICE, *broken_once()}))
async def test_the_registry_equals_the_model(
    seed: int, database: Database, database_url: str, checker: Checker, tmp_path: Path
) -> None:
    await Play(seed, database, database_url, checker, tmp_path).play()
