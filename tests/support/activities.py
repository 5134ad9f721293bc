"""A door for one attempt of one activity type, without a Temporal server: the SDK's own activity environment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.common import RawValue
from temporalio.testing import ActivityEnvironment

from engine.activities.bundles import BundleStore
from engine.activities.context import Workbench
from engine.activities.door import task_activities
from engine.activities.environments import EnvironmentStore
from engine.activities.function_process import FunctionRunner
from engine.activities.http_client import HttpClient
from engine.activities.registry import ActivityRegistry, ActivityType
from engine.activities.secrets import EnvironmentSecrets, Secrets
from engine.core.contracts import ActivityCall
from engine.settings import Settings
from engine.storage.database import Database


class MemoryBundles(BundleStore):
    """Bundles by digest without a database, for tests that are about something else."""

    def __init__(self, bundles: dict[str, bytes]) -> None:
        super().__init__(Database("postgresql+asyncpg://nobody@127.0.0.1:1/none"))
        self._bundles = bundles

    async def _read(self, digest: str) -> bytes | None:
        return self._bundles.get(digest)


@asynccontextmanager
async def workbench(
    *,
    bundles: dict[str, bytes] | None = None,
    memory: int = 1024 * 1024 * 1024,
    resolve: Any = None,
    namespaces: bool = True,
    environments: EnvironmentStore | None = None,
    secrets: dict[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[Workbench]:
    """What a worker lends to its activities; loopback may be reached unless `http_allow` is given."""
    made = Settings(**{"http_allow": ("127.0.0.0/8", "::1"), "data_dir": Path("/nonexistent"), **settings})
    http = HttpClient(made.http_allow, resolve=resolve)
    yield Workbench(
        settings=made,
        http=http,
        bundles=MemoryBundles(bundles or {}),
        functions=FunctionRunner(memory=memory, namespaces=namespaces),
        environments=environments or EnvironmentStore(made.data_dir / "environments"),
        secrets=Secrets([("environment", EnvironmentSecrets(_variables(secrets or {})))]),
    )
    await http.aclose()


def _variables(secrets: dict[str, str]) -> dict[str, str]:
    return {f"PINFLOW_SECRET_{name}": value for name, value in secrets.items()}


def call(activity_type: str, config: Any, **fields: Any) -> ActivityCall:
    """A call as the brain makes it."""
    known: dict[str, Any] = {
        "execution_id": "run-1",
        "workflow": "hello",
        "commit_sha": "c" * 40,
        "source": "main",
        "bundle_digest": "",
        "task": "t",
        "activity_type": activity_type,
        "config": config,
        "idempotency_key": "run-1/t",
    }
    return ActivityCall(**{**known, **fields})


async def attempt(
    bench: Workbench,
    request: ActivityCall,
    *,
    timeout: float | None = 20.0,
    number: int = 1,
    types: Sequence[ActivityType] | None = None,
    environment: ActivityEnvironment | None = None,
    heartbeat: timedelta | None = None,
) -> Any:
    """The result of one attempt, as its reader will see it. Raises what Temporal would get."""
    registry = ActivityRegistry(types) if types is not None else ActivityRegistry.load()
    activities = {_name(each): each for each in task_activities(registry, bench)}
    environment = environment or ActivityEnvironment()
    environment.info = dataclasses.replace(
        environment.info,
        activity_type=request.activity_type,
        attempt=number,
        start_to_close_timeout=timedelta(seconds=timeout) if timeout else None,
        schedule_to_close_timeout=None,
        heartbeat_timeout=heartbeat,
    )
    value: RawValue = await environment.run(activities[request.activity_type], asdict(request))
    outcome = json.loads(value.payload.data)
    assert outcome["attempt"] == number
    return outcome["result"]


def _name(function: Any) -> str | None:
    return str(function.__temporal_activity_definition.name)
