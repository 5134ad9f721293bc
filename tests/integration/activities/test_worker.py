"""The worker as a whole: real Temporal, real Postgres, real child processes, HTTP over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from engine.dsl import bundle
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.errors import Misconfigured
from engine.settings import Settings
from engine.stack.processes import free_port
from engine.storage import blobs, executions
from engine.storage.database import Database
from engine.worker import serve_worker
from tests.support.evil_server import Seen, always, answer, serving
from tests.support.plugins import install_example, write_metadata
from tests.support.registered import register
from tests.support.wheels import WheelHouse

OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


@dataclass
class Yard:
    """A place to start workers and runs in."""

    database: Database
    settings: Settings

    @asynccontextmanager
    async def worker(self, **changes: Any) -> AsyncIterator[asyncio.Event]:
        """A worker in this process; asked to stop, and drained, at the end of the block."""
        stop = asyncio.Event()
        task = asyncio.create_task(serve_worker(self.settings.model_copy(update=changes), stop))
        try:
            yield stop
        finally:
            stop.set()
            await task

    async def begin(self, definition: str, files: dict[str, bytes] | None = None, **inputs: Any) -> str:
        """Start a run of a definition (YAML)."""
        checked = check(definition.encode(), "test.yaml", ActivityTypes.default())
        assert checked.compiled is not None, checked.problems
        version = await register(self.database, checked.name, compiled=checked.compiled)
        packed = bundle.pack(files) if files else b""
        new = executions.NewRun(
            id=f"run-{uuid.uuid4().hex[:8]}",
            source_id=version.source_id,
            source="main",
            workflow=version.name,
            version_id=version.version_id,
            commit_sha=version.commit_sha,
            revision_sha=version.commit_sha,
            digest=version.digest,
            compiled_digest=version.compiled_digest,
            bundle_digest=bundle.digest(packed) if packed else "",
            dsl="1",
            inputs=inputs,
            title="",
            started_by="ada",
            created_at=datetime.now(UTC),
        )
        async with self.database.begin() as connection:
            if packed:
                await blobs.put(connection, "bundle", {bundle.digest(packed): packed})
        await executions.begin(self.database, new, head_start=0.0)
        return new.id

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of a query."""
        async with self.database.begin() as connection:
            result = await connection.execute(text(query), values)
            return [dict(row._mapping) for row in result] if result.returns_rows else []

    async def until(self, query: str, limit: float = 30.0, **values: Any) -> dict[str, Any]:
        """Wait for a query to have a row."""
        end = time.monotonic() + limit
        while not (found := await self.rows(query, **values)):
            assert time.monotonic() < end, f"waited in vain for {query} {values}"
            await asyncio.sleep(0.05)
        return found[0]

    async def ended(self, run: str) -> dict[str, Any]:
        """Wait until the run has ended; its row."""
        return await self.until(
            "SELECT * FROM workflow_executions WHERE id = :run AND status = ANY(:over)",
            run=run,
            over=list(OVER),
        )


@pytest_asyncio.fixture(loop_scope="session")
async def yard(database: Database, database_url: str, temporal: str, tmp_path: Path) -> Yard:
    return Yard(
        database,
        Settings(
            database_url=database_url,
            temporal_address=temporal,
            task_queue=f"test-{uuid.uuid4().hex[:8]}",
            data_dir=tmp_path,
            http_allow=("127.0.0.1",),
            drain_timeout=5.0,
            reconcile_interval=60.0,
        ),
    )


async def test_run_through_all_three_types(yard: Yard) -> None:
    definition = """
name: build
inputs: {type: object, properties: {url: {type: string}}}
tasks:
  - id: fetch
    config: {url: "${{ inputs.url }}"}
    activity_type: http_request
    timeout: 1s
  - id: add
    activity_type: python_function
    depends_on: [fetch]
    config: {function: "sums:add", args: {numbers: "${{ tasks.fetch.outputs.body }}"}}
  - id: gate
    activity_type: human_approval
    depends_on: [add]
    config: {message: "Is it ${{ tasks.add.outputs }}?", deadline: 300ms, on_timeout: approve}
outputs: {sum: "${{ tasks.add.outputs }}"}
"""
    files = {"sums.py": b"def add(numbers): return sum(numbers)\n"}
    async with (
        serving(always(answer(b"[1, 2, 39]", content_type="application/json"))) as server,
        yard.worker(),
    ):
        run = await yard.begin(definition, files, url=server.url())
        row = await yard.ended(run)
        assert (row["status"], row["outputs"], row["error"]) == ("COMPLETED", {"sum": 42}, None)
    assert [seen.headers["idempotency-key"] for seen in server.seen] == [f"{run}/fetch"]
    tasks = await yard.rows(
        "SELECT task, status FROM task_states WHERE execution_id = :run ORDER BY position", run=run
    )
    assert [(t["task"], t["status"]) for t in tasks] == [(t, "COMPLETED") for t in ("fetch", "add", "gate")]
    attempts = await yard.rows("SELECT task, status FROM task_attempts WHERE execution_id = :run", run=run)
    assert sorted((t["task"], t["status"]) for t in attempts) == [
        ("add", "COMPLETED"),
        ("fetch", "COMPLETED"),
    ]
    (request,) = await yard.rows("SELECT message, status FROM approval_requests")
    assert request == {"message": "Is it 42?", "status": "APPROVED"}
    audit = await yard.rows("SELECT action, actor FROM audit WHERE execution_id = :run ORDER BY id", run=run)
    assert [each["action"] for each in audit] == [
        "execution.requested",
        "execution.started",
        "approval.requested",
        "approval.approved",
        "execution.completed",
    ]


async def test_flaky_target_is_retried_with_one_key(yard: Yard) -> None:
    async def handle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        good = len(server.seen) >= 3
        writer.write(answer(b"ok") if good else answer(b"later", "503 Away"))

    definition = """
name: flaky
inputs: {type: object, properties: {url: {type: string}}}
tasks:
  - id: call
    activity_type: http_request
    config: {url: "${{ inputs.url }}"}
    retry: {max_attempts: 5, initial_interval: 50ms}
"""
    async with serving(handle) as server, yard.worker():
        run = await yard.begin(definition, url=server.url())
        assert (await yard.ended(run))["status"] == "COMPLETED"
    assert [seen.headers["idempotency-key"] for seen in server.seen] == [f"{run}/call"] * 3
    attempts = await yard.rows(
        "SELECT attempt, status, error FROM task_attempts WHERE execution_id = :run ORDER BY attempt", run=run
    )
    assert [(a["attempt"], a["status"]) for a in attempts] == [(1, "FAILED"), (2, "FAILED"), (3, "COMPLETED")]
    assert attempts[0]["error"]["type"] == "HTTP_5XX"


async def test_error_of_a_function_reaches_the_run(yard: Yard) -> None:
    definition = """
name: broken
tasks:
  - {id: f, activity_type: python_function, config: {function: "m:f"}}
"""
    async with yard.worker():
        run = await yard.begin(
            definition, {"m.py": b"class NoStock(Exception): pass\ndef f(): raise NoStock('none')\n"}
        )
        row = await yard.ended(run)
    assert row["status"] == "FAILED"
    assert (row["error"]["type"], row["error"]["task"], row["error"]["message"]) == ("NoStock", "f", "none")


async def test_type_that_no_worker_has_ends_the_run_clearly(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = "name: gone\ntasks: [{id: g, activity_type: example.greet, config: {name: Ada}}]\n"
    with monkeypatch.context() as installed:
        installed.syspath_prepend(str(install_example(tmp_path / "packages")))
        run = await yard.begin(definition)
    async with yard.worker():
        row = await yard.ended(run)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "UNKNOWN_ACTIVITY")


async def test_type_of_a_package_runs(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = "name: greet\ntasks: [{id: g, activity_type: example.greet, config: {name: Ada}}]\n"
    monkeypatch.syspath_prepend(str(install_example(tmp_path / "packages")))
    async with yard.worker():
        run = await yard.begin(definition)
        assert (await yard.ended(run))["status"] == "COMPLETED"
    (task,) = await yard.rows("SELECT outputs FROM task_states WHERE execution_id = :run", run=run)
    assert task["outputs"] == {"text": "Hello Ada (g, attempt 1)"}


async def test_worker_with_a_broken_package_does_not_start(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_metadata(tmp_path, "broken-package", {"broken.x = nowhere_at_all:X"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Misconfigured, match="broken-package"):
        await serve_worker(yard.settings, asyncio.Event())


SLEEPER = {"m.py": b"import time\ndef f(seconds): time.sleep(seconds); return 'slept'\n"}
SLEEPY = """
name: sleepy
inputs: {type: object, properties: {seconds: {type: number}}}
tasks:
  - {id: f, activity_type: python_function, config: {function: "m:f", args: {seconds: "${{ inputs.seconds }}"}}}
"""


async def test_worker_that_is_asked_to_stop_lets_work_end(yard: Yard) -> None:
    async with yard.worker() as stop:
        run = await yard.begin(SLEEPY, SLEEPER, seconds=1.5)
        await yard.until("SELECT 1 FROM task_attempts WHERE execution_id = :run", run=run)
        stop.set()
    (attempt,) = await yard.rows("SELECT status FROM task_attempts WHERE execution_id = :run", run=run)
    assert attempt["status"] == "COMPLETED"
    async with yard.worker():
        assert (await yard.ended(run))["status"] == "COMPLETED"


async def test_work_that_does_not_end_in_time_is_done_by_the_next_worker(yard: Yard) -> None:
    async with yard.worker(drain_timeout=0.3) as stop:
        run = await yard.begin(SLEEPY, SLEEPER, seconds=4)
        await yard.until("SELECT 1 FROM task_attempts WHERE execution_id = :run", run=run)
        began = time.monotonic()
        stop.set()
    assert time.monotonic() - began < 8
    async with yard.worker():
        assert (await yard.ended(run))["status"] == "COMPLETED"
    rows = await yard.rows(
        "SELECT status, error FROM task_attempts WHERE execution_id = :run ORDER BY scheduled_at, attempt",
        run=run,
    )
    assert [row["status"] for row in rows] == ["FAILED", "COMPLETED"]
    assert rows[0]["error"]["type"] == "WORKER_STOPPED"


async def test_attempt_that_takes_too_long_is_a_timeout(yard: Yard) -> None:
    async with yard.worker():
        run = await yard.begin(SLEEPY.replace("{id: f,", "{id: f, timeout: 1s,"), SLEEPER, seconds=30)
        row = await yard.ended(run)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "TIMEOUT")


async def test_cancelled_run_ends_the_function(yard: Yard) -> None:
    async with yard.worker():
        run = await yard.begin(SLEEPY, SLEEPER, seconds=60)
        await yard.until("SELECT 1 FROM task_attempts WHERE execution_id = :run", run=run)
        await yard.rows(
            'INSERT INTO outbox (kind, execution_id, body) VALUES (\'cancel\', :run, \'{"by": "ada", "reason": "no"}\')',
            run=run,
        )
        assert (await yard.ended(run))["status"] == "CANCELLED"
        row = await yard.until(
            "SELECT status FROM task_attempts WHERE execution_id = :run AND phase = 1", run=run
        )
    assert row["status"] == "CANCELLED"


async def test_worker_waits_for_temporal(yard: Yard) -> None:
    stop = asyncio.Event()
    settings = yard.settings.model_copy(update={"temporal_address": f"127.0.0.1:{free_port()}"})
    task = asyncio.create_task(serve_worker(settings, stop))
    done, _ = await asyncio.wait([task], timeout=0.5)
    assert not done
    stop.set()
    await asyncio.wait_for(task, 15)


async def test_health_tells_the_truth(yard: Yard) -> None:
    port = free_port()
    async with yard.worker(worker_health_port=port):
        end = time.monotonic() + 10
        while (ready := await _get(port, "/readyz"))[0] != 200:
            assert time.monotonic() < end, ready
            await asyncio.sleep(0.05)
        assert ready == (200, {"ok": True, "problems": {}})
        assert (await _get(port, "/healthz"))[0] == 200
        assert (await _get(port, "/nope"))[0] == 404


async def _get(port: int, path: str) -> tuple[int, Any]:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0, None
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def test_process_ends_cleanly_when_asked(yard: Yard, tmp_path: Path) -> None:
    settings = yard.settings
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "pinflow",
        *("serve", "worker"),
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env={
            **os.environ,
            "PINFLOW_DATABASE_URL": settings.database_url,
            "PINFLOW_TEMPORAL_ADDRESS": settings.temporal_address,
            "PINFLOW_TASK_QUEUE": settings.task_queue,
        },
    )
    assert process.stderr is not None
    said: list[str] = []
    while "worker ready" not in said:
        said.append(json.loads(await asyncio.wait_for(process.stderr.readline(), 60))["message"])
    process.terminate()
    rest = (await asyncio.wait_for(process.stderr.read(), 60)).decode().splitlines()
    assert [json.loads(line)["message"] for line in rest][-1] == "worker stopped"
    assert await process.wait() == 0


NEEDY = """
name: needy
tasks:
  - id: f
    activity_type: python_function
    timeout: 1s
    retry: {max_attempts: 1}
    config: {function: "m:f"}
"""
NEEDY_FILES = {
    "m.py": b"import greeting\ndef f(): return greeting.hello()\n",
    "requirements.txt": b"greeting==1.0\n",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelHouse:
    """An index in a folder, which the worker's uv is pointed to."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    house = WheelHouse(folder)
    house.add("greeting", "1.0", "def hello(): return 'hello'\n")
    monkeypatch.setenv("UV_CONFIG_FILE", house.variables()["UV_CONFIG_FILE"])
    return house


@pytest.mark.usefixtures("index")
async def test_making_an_environment_costs_a_task_neither_time_nor_attempts(yard: Yard) -> None:
    async with yard.worker():
        run = await yard.begin(NEEDY, NEEDY_FILES)
        row = await yard.ended(run)
    assert (row["status"], row["error"]) == ("COMPLETED", None)
    (state,) = await yard.rows("SELECT * FROM task_states WHERE execution_id = :run", run=run)
    assert (state["status"], state["outputs"], state["attempts"]) == ("COMPLETED", "hello", 1)
    attempts = await yard.rows("SELECT status FROM task_attempts WHERE execution_id = :run", run=run)
    assert {each["status"] for each in attempts} == {"CANCELLED", "COMPLETED"}


@pytest.mark.usefixtures("index")
async def test_a_task_that_waits_for_its_environment_can_be_cancelled(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINFLOW_FAULTS", "environment.before_rename=hang")
    async with yard.worker():
        run = await yard.begin(NEEDY, NEEDY_FILES)
        await yard.until("SELECT 1 FROM task_attempts WHERE execution_id = :run", run=run)
        await yard.rows(
            'INSERT INTO outbox (kind, execution_id, body) VALUES (\'cancel\', :run, \'{"by": "ada", "reason": "no"}\')',
            run=run,
        )
        row = await yard.ended(run)
    assert row["status"] == "CANCELLED"


@pytest.mark.usefixtures("index")
async def test_packages_that_are_not_there_fail_the_task_with_uvs_words(yard: Yard) -> None:
    async with yard.worker():
        run = await yard.begin(NEEDY, {**NEEDY_FILES, "requirements.txt": b"greeting==7.0\n"})
        row = await yard.ended(run)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "ENVIRONMENT")
    assert "greeting==7.0" in row["error"]["message"]
