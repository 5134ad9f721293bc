"""Rows of runs, written straight into the tables: for tests of what stands beside them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from engine.storage.database import Database
from tests.support.registered import Registered

_ROW = text("""
    INSERT INTO workflow_executions (id, source_id, workflow, version_id, commit_sha, revision_sha, digest,
                                     compiled_digest, bundle_digest, dsl, inputs, status, started_by, started_at,
                                     parent_id, parent_task, root_id)
    VALUES (:id, :source_id, :name, :version_id, :commit_sha, :commit_sha, :digest, :compiled_digest, '', '1', '{}',
            :status, 'ada', :now, :parent_id, :parent_task, :root_id)
""")


async def add_run(
    database: Database,
    version: Registered,
    id: str = "",
    *,
    status: str = "RUNNING",
    parent: tuple[str, str] = ("", ""),
    root: str = "",
) -> str:
    """A run's row and nothing else; its id."""
    id = id or uuid.uuid4().hex
    values: dict[str, Any] = {
        "id": id,
        "source_id": version.source_id,
        "name": version.name,
        "version_id": version.version_id,
        "commit_sha": version.commit_sha,
        "digest": version.digest,
        "compiled_digest": version.compiled_digest,
        "status": status,
        "now": datetime.now(UTC),
        "parent_id": parent[0],
        "parent_task": parent[1],
        "root_id": root,
    }
    async with database.begin() as connection:
        await connection.execute(_ROW, values)
    return id


async def rows(database: Database, query: str, **values: Any) -> list[dict[str, Any]]:
    """Rows of a query, for looking."""
    async with database.begin() as connection:
        result = await connection.execute(text(query), values)
        return [dict(row._mapping) for row in result] if result.returns_rows else []
