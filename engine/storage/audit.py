"""The audit: one row per change of state, written in the transaction that makes the change (promise P6)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import AuditEntry


async def record(
    connection: AsyncConnection,
    action: str,
    *,
    actor: str,
    source: str = "",
    workflow: str = "",
    execution_id: str = "",
    commit_sha: str = "",
    details: dict[str, Any] | None = None,
) -> None:
    """Write one audit row. `action` is `noun.verb`, such as `execution.requested`; the list stands in docs/reference/audit.md."""
    await connection.execute(
        insert(AuditEntry).values(
            actor=actor,
            action=action,
            source=source,
            workflow=workflow,
            execution_id=execution_id,
            commit_sha=commit_sha,
            details=details or {},
        )
    )
