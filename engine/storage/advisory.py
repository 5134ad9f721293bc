"""Advisory locks: they save work that somebody else does already. Nothing may be wrong without them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from engine.storage.database import Database


@asynccontextmanager
async def alone(database: Database, key: int) -> AsyncIterator[bool]:
    """Whether this process is the only one in a block with this key. Holds a connection, but no transaction."""
    async with database.read() as connection:
        mine = bool(
            (await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key})).scalar_one()
        )
        try:
            yield mine
        finally:
            if mine:
                await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
