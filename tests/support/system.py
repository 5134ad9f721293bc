"""The whole system as an operator runs it: real Postgres, real Temporal, and `pinflow serve` for each process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.services.tokens import ensure_local_token
from engine.stack.postgres import EmbeddedPostgres
from engine.stack.processes import dying_with_parent, free_port
from engine.stack.temporal import EmbeddedTemporal
from engine.storage.database import Database
from engine.storage.migrate import upgrade
from tests.support.postgres import FAST

PINFLOW = Path(sys.executable).parent / "pinflow"
PROCESSES = ("api", "worker", "sync")


@dataclass(frozen=True)
class Reply:
    """An HTTP answer: its status, headers and JSON body. Status 0 means that nobody answered."""

    status: int
    headers: dict[str, str]
    body: Any


class System:
    """Postgres, Temporal, api, worker and sync in one folder; each can be killed and launched again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres", options=FAST, die_with_parent=True)
        self.temporal = EmbeddedTemporal(folder / "temporal", ui=False, die_with_parent=True)
        self.sources: list[dict[str, Any]] = []
        self.settings: dict[str, str] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()
        self.token = ""

    async def start(self, *processes: str) -> System:
        """Start the servers, migrate, make a token, launch the processes (all, if none is named)."""
        await self.postgres.start()
        await self.postgres.create_database("pinflow")
        await self.temporal.start()
        await upgrade(self.postgres.url())
        database = Database(self.postgres.url())
        self.token = await ensure_local_token(database, self.folder / "token")
        await database.aclose()
        for name in processes or PROCESSES:
            self.launch(name)
        if "api" in self._running:
            await self.until(self.ready, "the API to be ready")
        return self

    async def stop(self) -> None:
        """Kill what runs, stop the servers."""
        for name in list(self._running):
            self.kill(name)
        await self.temporal.stop()
        await self.postgres.stop()

    def launch(self, name: str, faults: str = "") -> None:
        """Start one process; `faults` is what PINFLOW_FAULTS says to it."""
        log = (self.folder / f"{name}.log").open("ab")
        self._running[name] = subprocess.Popen(
            [PINFLOW, "serve", name],
            env=self._environment() | ({"PINFLOW_FAULTS": faults} if faults else {}),
            cwd=self.folder,
            stdout=log,
            stderr=log,
            preexec_fn=dying_with_parent(signal.SIGKILL),
        )
        log.close()

    def runs(self, name: str) -> bool:
        """Whether a process runs."""
        return name in self._running and self._running[name].poll() is None

    def pid(self, name: str) -> int:
        """The process id of a process that runs."""
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    async def died(self, name: str, seconds: float = 90) -> None:
        """Wait until a process has died of a fault point."""
        await self.until(lambda: _true(self._running[name].poll() is not None), f"{name} to die", seconds)
        del self._running[name]

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request to the API with the admin token; header names may use `_` for `-`."""
        return await asyncio.to_thread(self._call, method, path, body, headers)

    async def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The body of a request that must succeed."""
        reply = await self.call(method, path, body, **headers)
        assert 200 <= reply.status < 300, f"{method} {path}: {reply.status} {reply.body}"
        return reply.body

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 60) -> None:
        """Wait for a condition; fails with the end of every log."""
        deadline = time.monotonic() + seconds
        while not await condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s for {what}\n{self.logs()}")
            await asyncio.sleep(0.1)

    async def live(self, name: str, sha: str = "", seconds: float = 60) -> None:
        """Wait until a workflow is live, at the given commit if one is given."""

        async def condition() -> bool:
            reply = await self.call("GET", f"/workflows/{name}")
            return reply.status == 200 and (not sha or reply.body["commit_sha"] == sha)

        await self.until(condition, f"{name} to be live at {sha or 'any commit'}", seconds)

    async def execute(self, name: str, inputs: dict[str, Any] | None = None, key: str = "") -> Any:
        """Start a run and return the answer."""
        headers = {"Idempotency_Key": key} if key else {}
        return await self.ok(
            "POST", f"/executions/workflows/{name}/execute", {"inputs": inputs or {}}, **headers
        )

    async def finished(self, execution: str, status: str = "COMPLETED", seconds: float = 90) -> Any:
        """Wait until a run has ended, and return it; it must have the given status."""

        async def condition() -> bool:
            reply = await self.call("GET", f"/executions/{execution}")
            return reply.status == 200 and reply.body["status"] in (
                "COMPLETED",
                "FAILED",
                "CANCELLED",
                "TIMED_OUT",
            )

        await self.until(condition, f"run {execution} to end", seconds)
        run = await self.ok("GET", f"/executions/{execution}")
        assert run["status"] == status, json.dumps(run, indent=1)
        return run

    async def approval(self, execution: str, seconds: float = 60) -> str:
        """Wait for the pending approval request of a run; its id."""

        async def pending() -> list[Any]:
            reply = await self.call("GET", "/approvals?status=PENDING")
            items = reply.body["items"] if reply.status == 200 else []
            return [item["id"] for item in items if item["execution_id"] == execution]

        async def condition() -> bool:
            return bool(await pending())

        await self.until(condition, f"an approval request of {execution}", seconds)
        return str((await pending())[0])

    def logs(self, characters: int = 2500) -> str:
        """The end of the log of every process."""
        parts = [
            f"--- {file.name}\n{file.read_text(errors='replace')[-characters:]}"
            for file in sorted(self.folder.glob("*.log"))
        ]
        return "\n".join(parts)

    async def ready(self) -> bool:
        """Whether the API says that it can serve."""
        return (await self.call("GET", "/readyz")).status == 200

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PINFLOW_")}
        return kept | {
            "PINFLOW_DATABASE_URL": self.postgres.url(),
            "PINFLOW_TEMPORAL_ADDRESS": self.temporal.address,
            "PINFLOW_API_PORT": str(self.port),
            "PINFLOW_DATA_DIR": str(self.folder / "data"),
            "PINFLOW_SOURCES": json.dumps(self.sources),
            "PINFLOW_HTTP_ALLOW": '["127.0.0.0/8"]',
            "PINFLOW_RECONCILE_INTERVAL": "2",
            **self.settings,
        }

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "authorization": f"Bearer {self.token}",
                "content-type": "application/json",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Reply(answer.status, dict(answer.headers), _parsed(answer.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers), _parsed(error.read()))
        except OSError:
            return Reply(0, {}, None)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except json.JSONDecodeError:
        return content.decode(errors="replace")


async def _true(value: bool) -> bool:
    return value
