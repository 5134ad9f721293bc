"""The servers that both sides share, and Pinflow's processes beside them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.stack.processes import dying_with_parent
from engine.stack.temporal import EmbeddedTemporal
from engine.storage.database import Database
from tests.support.registered import Registered, register
from tests.support.system import System

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "benchmarks" / "plugin"


@asynccontextmanager
async def system(
    *processes: str, source: str = "", settings: Mapping[str, str] | None = None
) -> AsyncIterator[System]:
    """Postgres as `pinflow up` runs it, Temporal in memory (the harder limit), and the named processes of Pinflow.

    `source` is the name of a folder in the system's own, where a repository to be watched will stand; `settings` are added to the environment of Pinflow's processes.
    """
    with folder() as place:
        running = System(place)
        running.temporal = EmbeddedTemporal(place / "temporal", durable=False, ui=False, die_with_parent=True)
        running.sources = [{"name": "bench", "url": str(place / source)}] if source else []
        running.settings = {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{PLUGIN}",
            "PINFLOW_RECONCILE_INTERVAL": "15",
            "PINFLOW_LOG_LEVEL": "WARNING",
            **(settings or {}),
        }
        try:
            await running.start(*processes)
            yield running
        finally:
            await running.stop()


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one section. Servers may have been started as another user, who must pass through it."""
    with tempfile.TemporaryDirectory(prefix="pinflow-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def child(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A module of the benchmarks as a process of its own, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=dying_with_parent(signal.SIGKILL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def deploy(database: Database, text: str) -> Registered:
    """Have a definition live, without git: for sections that are not about sync. Raises ValueError with its problems."""
    checked = check(text.encode(), "bench.yaml", ActivityTypes.default())
    if checked.compiled is None:
        raise ValueError("\n".join(map(str, checked.problems)))
    return await register(database, checked.name, compiled=checked.compiled)


async def within(seconds: float, what: str, work: asyncio.Future[None]) -> None:
    """Wait for `work`. Raises RuntimeError, naming `what`, when it takes too long."""
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise RuntimeError(f"{what} took more than {seconds:.0f} s") from None
