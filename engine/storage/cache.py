"""Named queries for results that are kept for other runs. The newest one of a key wins."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from engine.storage.database import Database
from engine.storage.json_text import dumps

_FIND = """
    SELECT result, execution_id FROM cache_entries
     WHERE key = $1 AND ($2::double precision IS NULL OR created_at > now() - make_interval(secs => $2))
"""
_KEEP = """
    INSERT INTO cache_entries (key, result, execution_id, task) VALUES ($1, $2::jsonb, $3, $4)
    ON CONFLICT (key) DO UPDATE SET result = excluded.result, execution_id = excluded.execution_id,
                                    task = excluded.task, created_at = now()
"""


@dataclass(frozen=True, slots=True)
class Cached:
    """A kept result and the run that made it."""

    result: Any
    execution_id: str


async def find(database: Database, key: str, *, max_age: float | None) -> Cached | None:
    """What is kept under `key`, if it is not older than `max_age` seconds (None: however old)."""
    async with database.direct() as driver:
        row = await driver.fetchrow(_FIND, _digest(key), max_age)
    return None if row is None else Cached(json.loads(json.loads(row["result"])), row["execution_id"])


async def keep(database: Database, key: str, result: Any, *, execution_id: str, task: str) -> None:
    """Keep a result."""
    # As text: `jsonb` would turn 1e16 into a whole number, and holds no U+0000.
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    async with database.direct() as driver:
        await driver.execute(_KEEP, _digest(key), dumps(text), execution_id, task)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
