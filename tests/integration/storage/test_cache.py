"""Results that are kept for other runs."""

from __future__ import annotations

from engine.storage import cache
from engine.storage.database import Database
from tests.support.runs import rows


async def test_the_newest_result_of_a_key_wins_and_says_who_made_it(database: Database) -> None:
    for run, n in (("one", 1), ("two", 2)):
        await cache.keep(database, "key", {"n": n}, execution_id=run, task="t")
    found = await cache.find(database, "key", max_age=None)
    assert found == cache.Cached({"n": 2}, "two")
    assert await cache.find(database, "another", max_age=None) is None


async def test_a_result_that_is_too_old_is_none(database: Database) -> None:
    await cache.keep(database, "key", 1, execution_id="one", task="t")
    assert await cache.find(database, "key", max_age=60) is not None
    await rows(database, "UPDATE cache_entries SET created_at = now() - interval '2 minutes'")
    assert await cache.find(database, "key", max_age=60) is None
    assert await cache.find(database, "key", max_age=3600) is not None


async def test_what_comes_out_is_what_went_in(database: Database) -> None:
    value = {"float": 1e16, "whole": 2.0, "nul": "a\0b", "none": None, "deep": [[{"k": [1, 10**30]}]]}
    await cache.keep(database, "key", value, execution_id="one", task="t")
    found = await cache.find(database, "key", max_age=None)
    assert found is not None
    assert repr(found.result) == repr(value)
