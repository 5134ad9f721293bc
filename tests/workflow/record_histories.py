"""Record the histories that the replay test holds the engine to: `python -m tests.workflow.record_histories [--release 0.1]`.

Histories of a released version are never recorded again: a run that began on it must replay on every later one.
Each release has a folder of its own under `histories/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle

from engine.storage.database import Database
from tests.support.postgres import running_postgres
from tests.support.temporal import running_temporal
from tests.workflow.house import house
from tests.workflow.house_scenarios import HOUSE_SCENARIOS, KEPT_NAMES
from tests.workflow.kept_payloads import keep
from tests.workflow.scenarios import SCENARIOS
from tests.workflow.stage import stage

HISTORIES = Path(__file__).parent / "histories"


async def record(folder: Path) -> None:
    """Play every scenario that no release has a history of, and write what Temporal kept of it."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    known = {path.stem for path in HISTORIES.glob("*/*.json")}
    async with running_temporal() as server:
        client = await Client.connect(server.address)
        for name, scenario in SCENARIOS.items():
            if name not in known:
                async with stage(client) as made:
                    await _write(folder, name, await scenario(made))
        if not known >= KEPT_NAMES:
            await _record_at_home(folder, server.address)


async def _record_at_home(folder: Path, address: str) -> None:
    async with running_postgres() as postgres:
        for scenario in HOUSE_SCENARIOS.values():
            database = Database(await postgres.fresh_database())
            async with house(database, address) as home:
                for name, workflow_id in (await scenario(home)).items():
                    await _write(folder, name, home.handle(workflow_id))
                blobs = await home.rows(
                    "SELECT digest, content FROM blobs WHERE kind IN ('compiled', 'payload')"
                )
                keep(folder, {row["digest"]: bytes(row["content"]) for row in blobs})
            await database.aclose()


async def _write(folder: Path, name: str, handle: WorkflowHandle[Any, Any]) -> None:
    text = json.dumps((await handle.fetch_history()).to_json_dict(), indent=1, sort_keys=True)
    await asyncio.to_thread((folder / f"{name}.json").write_text, text + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", default="0.1")
    asyncio.run(record(HISTORIES / parser.parse_args().release))
