"""A stage on the session's Temporal."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.client import Client

from engine.storage.database import Database
from tests.workflow.house import House, house
from tests.workflow.stage import Stage, stage


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client(temporal: str) -> Client:
    """A client of the session's Temporal."""
    return await Client.connect(temporal)


@pytest_asyncio.fixture(loop_scope="session")
async def on_stage(client: Client) -> AsyncIterator[Stage]:
    """A worker with the real workflow and activities that do as their config says."""
    async with stage(client) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def at_home(database: Database, temporal: str) -> AsyncIterator[House]:
    """The driver with everything real around it but the tasks."""
    async with house(database, temporal) as made:
        yield made
