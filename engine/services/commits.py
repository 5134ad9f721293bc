"""The audit, by commit and otherwise: what a commit deployed, what ran on it, who decided what."""

from __future__ import annotations

from engine.errors import NotFound
from engine.registry.workflow_registry import WorkflowRegistry
from engine.services import cursors
from engine.services.executions import one_commit
from engine.storage import decisions, executions, history
from engine.storage.database import Database
from engine.storage.rows import Record

_RUNS_SHOWN = 200


class AuditService:
    """Reads only."""

    def __init__(self, database: Database, registry: WorkflowRegistry) -> None:
        self._database = database
        self._registry = registry

    async def commit(self, ref: str) -> Record:
        """All about a commit (full or short SHA): `revisions` with their problems, `changes`, `runs`, `approvals`.

        `runs` are those of versions that it brought, and those that started while it was the tip (`started_at_tip`);
        the newest 200.  Raises `NotFound` and `InvalidInput`.
        """
        sha = await self._registry.full_sha(ref)
        revisions = await self._registry.revision(sha)
        if not revisions:
            raise NotFound(f"commit {ref} is no revision of a watched branch")
        async with self._database.read() as connection:
            runs = await executions.of_commit(connection, sha, count=_RUNS_SHOWN)
            asked = await decisions.of_runs(connection, [run["id"] for run in runs])
        return {
            "sha": sha,
            "revisions": revisions,
            "changes": await self._registry.changes_of(sha),
            "runs": runs,
            "approvals": asked,
        }

    async def page(
        self,
        *,
        count: int,
        cursor: str = "",
        commit_sha: str = "",
        execution_id: str = "",
        workflow: str = "",
        source: str = "",
        actor: str = "",
        action: str = "",
    ) -> tuple[list[Record], str]:
        """Audit rows in the order in which they were written, and the cursor of the next page ("" if there is none)."""
        after = cursors.decode(cursor, int)
        async with self._database.read() as connection:
            commit_sha = await one_commit(connection, commit_sha)
            rows = await history.page(
                connection,
                count=count + 1,
                after=after[0] if after else 0,
                commit_sha=commit_sha,
                execution_id=execution_id,
                workflow=workflow,
                source=source,
                actor=actor,
                action=action,
            )
        return rows[:count], cursors.encode(rows[count - 1]["id"]) if len(rows) > count else ""
