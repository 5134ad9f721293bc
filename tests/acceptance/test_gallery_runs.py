"""The gallery in workflows/ runs on the whole system: from a commit to the outputs its comments promise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.git import Repository
from tests.support.system import System

pytestmark = pytest.mark.timeout(300)
GALLERY = Path(__file__).parents[2] / "workflows"


@dataclass
class Target:
    """What the gallery calls: an API of orders and customers, and a page that fails twice before it is ready."""

    flaky: list[tuple[int, Any]] = field(
        default_factory=lambda: [(503, {}), (200, {"ready": False}), (200, {"ready": True})]
    )
    reports: list[Any] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """http://host:port of the server."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> Target:
        """Listen on a port that the system picks."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, path, _ = (await reader.readline()).decode().split()
        length = 0
        while (line := await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            length = int(value) if name.lower() == "content-length" else length
        status, body = self._answer(method, path.partition("?")[0], await reader.readexactly(length))
        content = json.dumps(body).encode()
        writer.write(
            f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
            "connection: close\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        writer.close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/orders":
            return 200, [
                {"customer": 1, "amount": 10.5},
                {"customer": 2, "amount": 20},
                {"customer": 1, "amount": 1},
                {"customer": 9, "amount": 7},
            ]
        if path == "/customers":
            return 200, [{"id": 1, "country": "it"}, {"id": 2, "country": "de"}]
        if path == "/reports" and method == "POST":
            self.reports.append(json.loads(body))
            return 201, {}
        if path == "/flaky":
            return self.flaky.pop(0) if len(self.flaky) > 1 else self.flaky[0]
        return 404, {}


@pytest_asyncio.fixture(loop_scope="session")
async def target() -> AsyncIterator[Target]:
    served = await Target().start()
    yield served
    await served.stop()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("gallery")
    files = {
        f"workflows/{file.relative_to(GALLERY).as_posix()}": file.read_text(encoding="utf-8")
        for pattern in ("*.yaml", "functions/*.py")
        for file in GALLERY.glob(pattern)
    }
    repository = Repository(folder / "repository")
    repository.commit(files)
    whole = System(folder / "whole")
    whole.folder.mkdir(exist_ok=True)
    whole.sources = [{"name": "main", "url": str(repository.path), "poll_interval": 1}]
    try:
        await whole.start()
        await whole.live("release", repository.head())
        yield whole
    finally:
        await whole.stop()


async def run(system: System, workflow: str, **inputs: Any) -> Any:
    """A run to its end."""
    return await system.finished((await system.execute(workflow, inputs))["id"])


async def test_hello_greets_from_its_own_commit(system: System) -> None:
    done = await run(system, "hello", name="Ada")
    assert done["outputs"] == {"greeting": "Hello, Ada!", "commit": done["commit_sha"]}


async def test_etl_joins_what_it_extracted_in_parallel(system: System, target: Target) -> None:
    done = await run(system, "etl", api=target.url, day="2026-01-31", minimum=5)
    revenue = {"de": 20.0, "it": 10.5, "unknown": 7.0}
    assert done["outputs"] == {"revenue": revenue, "stored": True}
    assert target.reports == [{"day": "2026-01-31", "revenue": revenue, "commit": done["commit_sha"]}]


async def test_flaky_succeeds_at_the_third_attempt(system: System, target: Target) -> None:
    done = await run(system, "flaky", target=f"{target.url}/flaky")
    assert done["outputs"] == {"ready": True, "attempts": 3, "answer": "as called"}


async def test_flaky_falls_back_when_the_target_refuses(system: System, target: Target) -> None:
    target.flaky[:] = [(404, {})]
    done = await run(system, "flaky", target=f"{target.url}/flaky")
    assert (done["outputs"]["ready"], done["outputs"]["attempts"]) == (False, 1)
    assert done["outputs"]["answer"].startswith("unknown, after 1 attempts")


async def test_release_rolls_out_once_it_is_approved(system: System) -> None:
    started = await system.execute("release", {"service": "web"})
    approval = await system.approval(started["id"])
    await system.ok("POST", f"/approvals/{approval}/approve", {"decision": "approve", "comment": "go"})
    done = await system.finished(started["id"])
    assert done["outputs"]["deployed"] == ["eu", "us"]
    assert done["outputs"]["image"] == f"registry.example.test/web:{done['commit_sha'][:12]}"
    assert len(done["outputs"]["approved_by"]) == 1


async def test_release_ends_failed_when_it_is_rejected_and_cleans_up(system: System) -> None:
    started = await system.execute("release", {"service": "web"})
    approval = await system.approval(started["id"])
    await system.ok("POST", f"/approvals/{approval}/approve", {"decision": "reject", "comment": "no"})
    done = await system.finished(started["id"], "FAILED")
    statuses = {task["id"]: task["status"] for task in done["tasks"]}
    assert (statuses["gate"], statuses["rollout"], statuses["undo"], statuses["note"]) == (
        "FAILED", "SKIPPED", "SKIPPED", "COMPLETED",
    )  # fmt: skip


async def test_a_dry_run_asks_nobody(system: System) -> None:
    done = await run(system, "release", service="web", dry_run=True)
    assert done["outputs"]["deployed"] == []
    assert done["outputs"]["approved_by"] == []
