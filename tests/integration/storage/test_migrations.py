"""Migrations: equal to the models, safe to run from many processes, and the audit's guard."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from engine.errors import Misconfigured, Unavailable
from engine.storage import audit
from engine.storage.database import Database
from engine.storage.migrate import head, upgrade
from engine.storage.models import Base


async def test_migrations_equal_the_models(database: Database) -> None:
    def compare(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))

    async with database.read() as connection:
        assert await connection.run_sync(compare) == []


async def test_many_processes_may_upgrade_at_once(database_url: str, database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    reached = await asyncio.gather(*(upgrade(database_url) for _ in range(5)))
    assert reached == [head()] * 5


async def test_a_newer_schema_is_left_alone(database_url: str, database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Misconfigured, match="9999"):
        await upgrade(database_url)


async def test_an_absent_server_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await upgrade("postgresql+asyncpg://pinflow@127.0.0.1:1/pinflow")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'other'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "DELETE FROM audit WHERE false",
    ],
)
async def test_the_audit_refuses_every_change(database: Database, statement: str) -> None:
    async with database.begin() as connection:
        await audit.record(connection, "test.happened", actor="somebody")
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.begin() as connection:
            await connection.execute(text(statement))
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT actor FROM audit"))).scalars().all() == ["somebody"]
