"""Record the histories that the replay test holds the engine to: `python -m tests.workflow.record_histories [--release 0.1]`.

Histories of a released version are never recorded again: a run that began on it must replay on every later one.
Each release has a folder of its own under `histories/`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from temporalio.client import Client

from tests.support.temporal import running_temporal
from tests.workflow.scenarios import SCENARIOS
from tests.workflow.stage import stage

HISTORIES = Path(__file__).parent / "histories"


async def record(folder: Path) -> None:
    """Play every scenario on a server of its own and write what Temporal kept of it."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    async with running_temporal() as server:
        client = await Client.connect(server.address)
        for name, scenario in SCENARIOS.items():
            async with stage(client) as made:
                handle = await scenario(made)
                history = await handle.fetch_history()
            text = json.dumps(history.to_json_dict(), indent=1, sort_keys=True)
            await asyncio.to_thread((folder / f"{name}.json").write_text, text + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", default="0.1")
    asyncio.run(record(HISTORIES / parser.parse_args().release))
