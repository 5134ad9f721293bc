"""An executor and rows to work on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest_asyncio

from engine.executor.dispatcher import Dispatcher
from engine.executor.payloads import data_converter
from engine.executor.reconciler import Reconciler
from engine.executor.runs import RemoteRun
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.storage import executions
from engine.storage.database import Database
from tests.support.registered import Registered, register


class Stage:
    """One database, one Temporal, a dispatcher and a reconciler that a test drives by hand."""

    def __init__(
        self, database: Database, executor: TemporalWorkflowExecutor, version: Registered, queue: str
    ) -> None:
        self.database = database
        self.executor = executor
        self.version = version
        self.queue = queue
        self.dispatcher = Dispatcher(database, executor)
        self.reconciler = Reconciler(database, executor, interval=0.1)

    async def begin(self, head_start: float = 0.0, title: str = "A title", **inputs: Any) -> str:
        """A PENDING run with its start message."""
        version = self.version
        run = executions.NewRun(
            id=uuid.uuid4().hex,
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
            inputs=inputs,
            title=title,
            started_by="ada",
            created_at=datetime.now(UTC),
        )
        await executions.begin(self.database, run, head_start=head_start)
        return run.id

    async def another_executor(self) -> TemporalWorkflowExecutor:
        """One as another process has it: nothing is in its caches."""
        client = self.executor.client
        return await TemporalWorkflowExecutor.connect(
            client.service_client.config.target_host,
            namespace=client.namespace,
            task_queue=self.queue,
            converter=data_converter(self.database),
            lazy=False,
        )

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query, for looking."""
        from sqlalchemy import text

        async with self.database.begin() as connection:
            result = await connection.execute(text(query), values)
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    async def closed(self, run: str) -> RemoteRun:
        """Wait until Temporal has closed the run."""
        for _ in range(400):
            remote = await self.executor.describe(run)
            if remote.status != "OPEN":
                return remote
            await asyncio.sleep(0.05)
        raise AssertionError(f"run {run} does not end")

    async def status(self, run: str) -> str:
        """The status in the run's row."""
        (row,) = await self.rows("SELECT status FROM workflow_executions WHERE id = :run", run=run)
        return str(row["status"])

    async def actions(self, run: str) -> list[str]:
        """The audit of a run."""
        return [
            row["action"]
            for row in await self.rows(
                "SELECT action FROM audit WHERE execution_id = :run ORDER BY id", run=run
            )
        ]


@pytest_asyncio.fixture(loop_scope="session")
async def stage(database: Database, temporal: str) -> AsyncIterator[Stage]:
    queue = f"test-{uuid.uuid4().hex[:8]}"
    executor = await TemporalWorkflowExecutor.connect(
        temporal, namespace="default", task_queue=queue, converter=data_converter(database), lazy=False
    )
    yield Stage(database, executor, await register(database), queue)
