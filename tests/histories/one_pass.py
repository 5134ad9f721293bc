"""A daemon for one pass, as a process of its own: what is to be killed for good."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from engine.settings import SourceSettings
from engine.storage.database import Database
from engine.sync.checker import Checker
from engine.sync.reconciler import Reconciler

_ROOT = Path(__file__).parents[2]


async def look_and_die(database_url: str, data_dir: Path, source: SourceSettings, point: str) -> int:
    """Have a process look once that is killed at the fault point; its exit code, 0 if it never came there."""
    command = [sys.executable, "-m", "tests.histories.one_pass", database_url, str(data_dir)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PINFLOW_FAULTS": f"{point}=kill"}
    process = await asyncio.create_subprocess_exec(
        *command, source.model_dump_json(), env=environment, cwd=_ROOT, stderr=subprocess.DEVNULL
    )
    async with asyncio.timeout(120):
        return await process.wait()


async def _look(database_url: str, data_dir: Path, source: SourceSettings) -> None:
    database, checker = Database(database_url), Checker()
    reconciler = Reconciler(source, data_dir, database, checker)
    try:
        await reconciler.run_pass()
    finally:
        await reconciler.aclose()
        await checker.aclose()
        await database.aclose()


if __name__ == "__main__":
    asyncio.run(_look(sys.argv[1], Path(sys.argv[2]), SourceSettings.model_validate_json(sys.argv[3])))
