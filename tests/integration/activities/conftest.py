"""A database with one run in it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest_asyncio
from sqlalchemy import text

from engine.storage import executions
from engine.storage.database import Database
from tests.support.registered import register


@dataclass
class Run:
    """A run that is RUNNING as far as Postgres knows."""

    database: Database
    id: str
    commit_sha: str

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query; `:run` is the run's id."""
        async with self.database.begin() as connection:
            result = await connection.execute(
                text(query), {"run": self.id, **values} if ":run" in query else values
            )
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    async def audit(self) -> list[str]:
        """What the audit says of the run, less how it began."""
        rows = await self.rows("SELECT action FROM audit WHERE execution_id = :run ORDER BY id")
        return [row["action"] for row in rows if row["action"] != "execution.requested"]


@pytest_asyncio.fixture(loop_scope="session")
async def run(database: Database) -> Run:
    """One run of a deployed definition."""
    version = await register(database)
    new = executions.NewRun(
        id=f"run-{uuid.uuid4().hex[:8]}",
        source_id=version.source_id,
        source="main",
        workflow=version.name,
        version_id=version.version_id,
        commit_sha=version.commit_sha,
        revision_sha=version.commit_sha,
        digest=version.digest,
        compiled_digest=version.compiled_digest,
        bundle_digest="",
        dsl="1",
        inputs={},
        title="",
        started_by="ada",
        created_at=datetime.now(UTC),
    )
    await executions.begin(database, new, head_start=0.0)
    async with database.begin() as connection:
        await connection.execute(text("UPDATE workflow_executions SET status = 'RUNNING'"))
    return Run(database, new.id, version.commit_sha)
