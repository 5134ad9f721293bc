"""The API over a real Postgres and a real Temporal, called through ASGI."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest_asyncio
from sqlalchemy import text

from engine.api.app import create_app
from engine.executor.payloads import data_converter
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.services.tokens import create_token
from engine.services.workflow_service import WorkflowService
from engine.storage.database import Database
from tests.support.registered import Registered, compiled_form, register

INPUTS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["service"],
    "properties": {
        "service": {"type": "string"},
        "count": {"type": "integer", "default": 3},
        "options": {
            "type": "object",
            "properties": {"dry": {"type": "boolean", "default": True}},
            "default": {},
        },
        "end": {"type": "string"},
    },
}


class Api:
    """A client with a token for each role, and a look at the tables."""

    def __init__(
        self, client: httpx2.AsyncClient, database: Database, tokens: dict[str, str], version: Registered
    ) -> None:
        self.client = client
        self.database = database
        self.tokens = tokens
        self.version = version
        self.executor: TemporalWorkflowExecutor
        self.service: WorkflowService
        self.queue = ""

    async def call(
        self, method: str, path: str, body: Any = None, *, by: str = "admin", **headers: str
    ) -> httpx2.Response:
        """One request by the holder of a role's token ("" for none). Header names may use `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if by:
            sent["authorization"] = f"Bearer {self.tokens[by]}"
        return await self.client.request(method, path, json=body, headers=sent)

    async def token(self, subject: str, *roles: str, groups: tuple[str, ...] = ()) -> str:
        """A token under the name of its subject."""
        made = await create_token(self.database, actor="test", subject=subject, roles=roles, groups=groups)
        self.tokens[subject] = made.secret
        return made.secret

    async def start(self, key: str = "", by: str = "admin", **inputs: Any) -> httpx2.Response:
        """Start `hello`."""
        headers = {"Idempotency_Key": key} if key else {}
        body = {"inputs": {"service": "web", **inputs}}
        return await self.call("POST", "/executions/workflows/hello/execute", body, by=by, **headers)

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query, for looking."""
        async with self.database.begin() as connection:
            result = await connection.execute(text(query), values)
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    async def ask(self, run: str, **policy: Any) -> str:
        """An open approval request of a run; its id."""
        request = uuid.uuid4().hex
        await self.rows(
            "INSERT INTO approval_requests (id, execution_id, task, workflow, commit_sha, message, policy, requested_at)"
            " VALUES (:id, :run, :task, 'hello', :sha, 'Go?', CAST(:policy AS jsonb), :at)",
            id=request,
            run=run,
            task=f"gate-{request[:4]}",
            sha=self.version.commit_sha,
            policy=json.dumps(policy),
            at=datetime.now(UTC),
        )
        return request


@pytest_asyncio.fixture(loop_scope="session")
async def api(database: Database, temporal: str) -> AsyncIterator[Api]:
    queue = f"test-{uuid.uuid4().hex[:8]}"
    executor = await TemporalWorkflowExecutor.connect(
        temporal, namespace="default", task_queue=queue, converter=data_converter(database), lazy=False
    )
    service = WorkflowService(database, executor)
    version = await register(database, compiled=compiled_form("hello", inputs=INPUTS))
    tokens: dict[str, str] = {}
    for role in ("viewer", "operator", "approver", "admin"):
        made = await create_token(
            database, actor="test", subject=role[0] + "-person", roles=[role], groups=[f"{role}s"]
        )
        tokens[role] = made.secret
    transport = httpx2.ASGITransport(app=create_app(service))
    async with httpx2.AsyncClient(transport=transport, base_url="http://pinflow.test", timeout=30) as client:
        made_api = Api(client, database, tokens, version)
        made_api.executor, made_api.service, made_api.queue = executor, service, queue
        yield made_api
    await asyncio.sleep(0)
