"""Each of our services of docker-compose.yml, by its very command, outside of a container."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from engine.stack.processes import dying_with_parent, free_port
from engine.stack.temporal import EmbeddedTemporal
from tests.support.compose import entrypoint, own_services
from tests.support.docs import commands
from tests.support.postgres import TestPostgres
from tests.support.stack import environment

pytestmark = pytest.mark.timeout(300)
_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


class Service:
    """One service, with the addresses of this test in place of those of compose's network."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        self.log = folder / f"{name}.log"
        declared = {key: str(value) for key, value in own_services()[name]["environment"].items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*entrypoint(), *own_services()[name]["command"]],
                env=environment() | declared | settings | {"PATH": _PATH},
                cwd=folder,
                stdout=log,
                stderr=log,
                preexec_fn=dying_with_parent(signal.SIGKILL),
            )

    async def until_it_says(self, word: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while word not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            await asyncio.sleep(0.1)

    async def ends_with(self, code: int) -> None:
        assert await asyncio.to_thread(self.process.wait, 60) == code, self.log.read_text()


@pytest.fixture
def settings(postgres: TestPostgres, temporal_server: EmbeddedTemporal, tmp_path: Path) -> dict[str, str]:
    """What differs from compose: where the servers are and which ports are free."""
    return {
        "PINFLOW_DATABASE_URL": postgres.url("composed"),
        "PINFLOW_TEMPORAL_ADDRESS": temporal_server.address,
        "PINFLOW_TASK_QUEUE": "composed",
        "PINFLOW_API_HOST": "127.0.0.1",
        "PINFLOW_API_PORT": str(free_port()),
        "PINFLOW_WORKER_HEALTH_PORT": str(free_port()),
        "PINFLOW_DATA_DIR": str(tmp_path / "data"),
    }


@pytest.fixture
def started() -> Iterator[list[Service]]:
    services: list[Service] = []
    yield services
    for service in services:
        service.process.kill()
        service.process.wait()


async def _ready(port: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/readyz")
            return
        except OSError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=5) as reply:
        reply.read()


async def test_the_first_token_is_made_by_whoever_holds_the_database(
    database_url: str, settings: dict[str, str], tmp_path: Path
) -> None:
    (line,) = [line for line in commands("how-to/run-in-production.md") if "token create" in line]
    words = shlex.split(line)[shlex.split(line).index("api") + 1 :]
    asked = {"PINFLOW_DATABASE_URL": database_url, "PATH": _PATH}

    done = await asyncio.to_thread(
        subprocess.run,
        [*entrypoint(), *words],
        env=environment() | settings | asked,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pf_")


async def test_the_services_of_the_compose_file_run_and_drain(
    postgres: TestPostgres, settings: dict[str, str], started: list[Service], tmp_path: Path
) -> None:
    await postgres.create_database("composed")

    await Service("migrate", tmp_path, settings).ends_with(0)
    connection = await asyncpg.connect(postgres.url("composed").replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT count(*) FROM workflow_versions") == 0
    await connection.close()

    started.extend(Service(name, tmp_path, settings) for name in ("api", "worker", "sync"))
    await _ready(settings["PINFLOW_API_PORT"])
    await _ready(settings["PINFLOW_WORKER_HEALTH_PORT"])
    await started[2].until_it_says("no source is configured")

    for service in started:
        service.process.send_signal(signal.SIGTERM)
    for service in started:
        await service.ends_with(0)
    await postgres.drop_database("composed")
