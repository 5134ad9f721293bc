"""A planted secret is used by every kind of task, and then looked for everywhere: tables, histories, logs, replies, files."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import pytest_asyncio
from sqlalchemy import text
from temporalio.client import Client

from engine.dsl import bundle
from engine.services.signatures import sign
from engine.storage import blobs
from engine.storage.database import Database
from tests.support.definitions import definition, retry, task
from tests.support.evil_server import Seen, answer, serving
from tests.support.registered import register
from tests.support.system import System

pytestmark = [pytest.mark.timeout(300)]

# Of characters that every encoding changes.
CANARIES = {
    "TOKEN": 'kanaríe"1/+&<tok%en>',
    "FILED": "file-canary\\2/ ok?=",
    "HOOK": "hook'canary+3/zz",
}
CODE = b"""
import base64, json, urllib.parse

def show(token):
    print("printed", token, base64.b64encode(token.encode()).decode())
    return {"raw": token, "json": json.dumps([token]), "url": urllib.parse.quote(token, safe=""), "split": list(token)[:2]}

def fail(token):
    print("failing with", token)
    raise ValueError(f"refused: {token} / {base64.b64encode(('u:' + token).encode()).decode()}")

def die(token):
    import os, sys
    sys.stderr.write(token * 50)
    sys.stderr.flush()
    os._exit(9)
"""


def forms(value: str) -> Iterator[str]:
    """The value and its disguises."""
    data = value.encode()
    yield value
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield from (once, json.dumps(once, ensure_ascii=ascii_only)[1:-1])
    yield from (quote(value), quote(value, safe=""), quote_plus(value), html.escape(value), repr(value)[1:-1])
    yield from (data.hex(), data.hex().upper())
    for before in range(3):
        first, last = -(-8 * before // 6), 8 * (before + len(data)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * before + data).decode()[first:last]


NEEDLES = {form.encode() for value in CANARIES.values() for form in forms(value)}


def found(content: bytes) -> list[bytes]:
    """The forms of canaries that stand in some bytes."""
    return [needle for needle in NEEDLES if needle in content]


def secret(name: str, *path: Any, before: str = "") -> dict[str, Any]:
    """A place of a secret, as the compiler writes it."""
    return {"path": list(path), "parts": [*([before] if before else []), {"$secret": name}]}


def http(id: str, url: str, name: str, *after: str, **fields: Any) -> dict[str, Any]:
    """A request that carries a secret in a header, in its query and in its body."""
    config = {
        "method": "POST",
        "url": url,
        "headers": {"authorization": None},
        "query": {"k": None},
        "json": {"t": None},
    }
    made: dict[str, Any] = task(
        id, *after, activity_type="http_request", config=config, retry=retry(2), **fields
    )
    places = [
        secret(name, "headers", "authorization", before="Bearer "),
        secret(name, "query", "k"),
        secret(name, "json", "t"),
    ]
    return made | {"secrets": places}


def function(id: str, what: str, name: str, **fields: Any) -> dict[str, Any]:
    """A function that gets a secret as its argument."""
    config = {"function": f"leaky:{what}", "args": {"token": None}}
    made: dict[str, Any] = task(id, activity_type="python_function", config=config, retry=retry(2), **fields)
    return made | {"secrets": [secret(name, "args", "token")]}


def planted(url: str) -> dict[str, Any]:
    """A definition whose every task uses a secret, well and badly, and hands on what it got."""
    plain = [
        http("good", f"{url}/good", "TOKEN"),
        http("bad", f"{url}/bad", "TOKEN"),
        http("filed", f"{url}/good", "FILED", execution="worker"),
        http("gone", f"{url}/hang", "FILED", timeout=1.0),
        http("missing", f"{url}/good", "NOWHERE"),
        function("show", "show", "TOKEN"),
        function("fail", "fail", "FILED"),
        function("die", "die", "TOKEN"),
        task("told", "good", type="set", values={"all": "${{ tasks.good.outputs }}"}),
    ]
    secrets = {each["id"]: each.pop("secrets") for each in plain if "secrets" in each}
    made: dict[str, Any] = definition(
        *plain, outputs={"good": "${{ tasks.good.outputs }}"}, on_task_failure="finish"
    )
    for each in made["tasks"]:
        if each["id"] in secrets:
            each["secrets"] = secrets[each["id"]]
    return made | {
        "format": 2,
        "name": "leaky",
        "secrets": ["TOKEN", "FILED", "NOWHERE"],
        "triggers": [{"id": "pushed", "type": "webhook", "secret": "HOOK"}],
    }


async def echo(seen: Seen, writer: Any) -> None:
    """Say back what came, in many forms."""
    if "/hang" in seen.target:
        return
    told = seen.headers["authorization"].removeprefix("Bearer ").encode("latin-1").decode()
    body = {
        "target": seen.target,
        "headers": {
            name: value.encode("latin-1").decode("utf-8", "replace") for name, value in seen.headers.items()
        },
        "forms": list(forms(told)),
        told: True,
        "text": seen.body.decode(),
        "long": "x" * 3000 + told,
    }
    status = "403 Forbidden" if "/bad" in seen.target else "200 OK"
    writer.write(
        answer(json.dumps(body).encode(), status, content_type="application/json", x_echo=quote(told))
    )


class Planted:
    """The system after a run that used all canaries, started by a signed webhook."""

    def __init__(self, system: System, run: dict[str, Any], seen: list[Seen]) -> None:
        self.system = system
        self.run = run
        self.seen = seen


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def planted_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Planted]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(echo))
        system = System(tmp_path_factory.mktemp("canaries"))
        stack.push_async_callback(system.stop)
        folder = tmp_path_factory.mktemp("secrets")
        (folder / "FILED").write_text(CANARIES["FILED"] + "\n")
        system.settings = {f"PINFLOW_SECRET_{name}": CANARIES[name] for name in ("TOKEN", "HOOK")}
        system.settings |= {
            "PINFLOW_SECRETS": json.dumps([f"files:{folder}", "environment"]),
            "PINFLOW_LOG_LEVEL": "DEBUG",
        }
        await system.start("api", "worker")
        await _publish(system, server.url().rstrip("/"))
        run = await system.finished(await _sent(system), "FAILED")
        yield Planted(system, run, server.seen)


async def _publish(system: System, url: str) -> None:
    database = Database(system.postgres.url())
    await register(database, "leaky", compiled=planted(url))
    packed = bundle.pack({"leaky.py": CODE})
    async with database.begin() as connection:
        await blobs.put(connection, "bundle", {bundle.digest(packed): packed})
        await connection.execute(
            text("UPDATE workflow_versions SET bundle_digest = :d"), {"d": bundle.digest(packed)}
        )
    await database.aclose()


async def _sent(system: System) -> str:
    """The run that a signed request has started, whose sender put the canaries into it as well."""
    body = json.dumps(
        {"echo": CANARIES["HOOK"], "b64": base64.b64encode(CANARIES["HOOK"].encode()).decode()}
    ).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{system.port}/hooks/leaky/pushed",
        data=body,
        headers={
            "content-type": "application/json",
            "x-pinflow-signature": sign(CANARIES["HOOK"], body, time=int(time.time())),
            "x-gitlab-token": CANARIES["HOOK"],
        },
    )
    return str(json.loads(await asyncio.to_thread(_read, request))["id"])


def _read(request: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(request, timeout=30) as reply:
        content: bytes = reply.read()
        return content


async def test_the_canaries_were_used(planted_system: Planted) -> None:
    sent = {seen.headers["authorization"].encode("latin-1").decode() for seen in planted_system.seen}
    assert sent == {f"Bearer {CANARIES['TOKEN']}", f"Bearer {CANARIES['FILED']}"}
    tasks = {each["id"]: each for each in planted_system.run["tasks"]}
    assert {name: each["status"] for name, each in tasks.items()} == {
        "good": "COMPLETED",
        "bad": "FAILED",
        "filed": "COMPLETED",
        "gone": "FAILED",
        "missing": "FAILED",
        "show": "COMPLETED",
        "fail": "FAILED",
        "die": "FAILED",
        "told": "COMPLETED",
    }
    assert tasks["missing"]["error"]["type"] == "SECRET_MISSING"
    assert "PINFLOW_SECRET_NOWHERE" in tasks["missing"]["error"]["message"]
    assert tasks["show"]["outputs"]["raw"] == "***"
    assert tasks["good"]["outputs"]["body"]["headers"]["authorization"] == "Bearer ***"


async def test_no_table_has_a_canary(planted_system: Planted) -> None:
    database = Database(planted_system.system.postgres.url())
    async with database.read() as connection:
        names = (
            await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        ).scalars()
        looked_at = 0
        for name in names.all():
            for row in await connection.execute(text(f'SELECT * FROM "{name}"')):
                for column, value in row._mapping.items():
                    raw = bytes(value) if isinstance(value, bytes | memoryview) else b""
                    plain = json.dumps(value, default=str, ensure_ascii=False).encode()
                    assert found(raw + plain) == [], f"{name}.{column}"
                    looked_at += 1
    await database.aclose()
    assert looked_at > 300


async def test_no_history_has_a_canary(planted_system: Planted) -> None:
    client = await Client.connect(planted_system.system.temporal.address)
    count = 0
    async for execution in client.list_workflows():
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        async for event in handle.fetch_history_events():
            assert found(event.SerializeToString()) == [], f"{execution.id} event {event.event_id}"
            count += 1
    assert count > 30


async def test_no_log_and_no_file_of_temporal_has_a_canary(planted_system: Planted) -> None:
    folder = planted_system.system.folder
    files = [*folder.glob("*.log"), *(path for path in (folder / "temporal").rglob("*") if path.is_file())]
    assert {"api.log", "worker.log"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        assert found(content) == [], file
        if file.name == "worker.log":
            assert b"attempt failed" in content
            assert b"printed ***" in content


async def test_no_reply_has_a_canary(planted_system: Planted) -> None:
    system = planted_system.system
    run = planted_system.run["id"]
    for path in (
        f"/executions/{run}",
        "/executions",
        "/workflows",
        "/workflows/leaky?definition=true",
        "/workflows/leaky/versions",
        f"/audit?execution_id={run}",
        "/audit",
        "/revisions",
        "/sources",
        "/metrics",
        "/openapi.json",
    ):
        reply = await system.call("GET", path)
        assert reply.status == 200, path
        assert (
            found(json.dumps(reply.body, ensure_ascii=False).encode() + json.dumps(reply.body).encode()) == []
        ), path


def test_the_scan_would_find_one() -> None:
    for value in CANARIES.values():
        for form in forms(value):
            assert found(f"...{form}...".encode())
