"""A real Postgres for the session, and a fresh migrated database for each test that asks."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.stack.postgres import EmbeddedPostgres
from engine.storage.migrate import upgrade

TEMPLATE = "template_pinflow"

# What is committed has left the server's memory, so that a killed server loses nothing; only a killed machine would.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}


class TestPostgres(EmbeddedPostgres):
    """The embedded server, plus a template database that is migrated once and cloned in a few milliseconds."""

    __test__ = False

    async def fresh_database(self) -> str:
        """The URL of a new database with all tables and no rows."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        # Copying files takes half of what writing each page to the log does, as no checkpoint waits for the disk here.
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}" STRATEGY FILE_COPY')
        return self.url(name)


@asynccontextmanager
async def running_postgres() -> AsyncIterator[TestPostgres]:
    """A server in a temporary folder that ends with this process, even when this process is killed."""
    with tempfile.TemporaryDirectory(prefix="pinflow-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the server's own user must pass through when we are root
        server = TestPostgres(Path(folder) / "postgres", options=FAST, die_with_parent=True)
        await server.start()
        try:
            await server.create_database(TEMPLATE)
            await upgrade(server.url(TEMPLATE))
            yield server
        finally:
            await server.stop()
