"""Signals by name and callbacks: rows first, checked, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import pytest_asyncio

from engine.core.ids import callback_token
from engine.services.signals import MAX_PAYLOAD
from tests.integration.api.conftest import Api
from tests.support.registered import compiled_form, register

SCHEMA = {
    "type": "object",
    "required": ["ticket"],
    "properties": {"ticket": {"type": "string"}, "count": {"type": "integer"}},
}


def waiting(id: str, name: str, schema: Any = None) -> dict[str, Any]:
    """A compiled task that waits for a signal."""
    task: dict[str, Any] = {
        "id": id,
        "name": "",
        "type": "signal",
        "signal": name,
        "depends_on": [],
        "outputs": None,
    }
    return task | ({"schema": schema} if schema is not None else {})


FORM = compiled_form(
    "release",
    format=2,
    tasks=[
        waiting("lifted", "freeze-lifted", SCHEMA),
        waiting("free", "anything"),
        {
            "id": "rollout",
            "type": "map",
            "name": "",
            "depends_on": [],
            "tasks": [waiting("hook", "deployed", SCHEMA)],
        },
    ],
)


class Released:
    """A run of `release`."""

    def __init__(self, api: Api, id: str, key: str) -> None:
        self.api = api
        self.id = id
        self.key = key

    async def signal(self, name: str, payload: Any = None, *, key: str = "", **more: Any) -> httpx2.Response:
        body = {"name": name, "payload": payload, **more}
        headers = {"Idempotency_Key": key} if key else {}
        return await self.api.call("POST", f"/executions/{self.id}/signal", body, by="operator", **headers)

    async def call_back(self, address: str, payload: Any, token: str | None = None) -> httpx2.Response:
        token = callback_token(self.key, address) if token is None else token
        path = f"/callbacks/{self.id}/{quote(address)}?token={quote(token)}"
        return await self.api.call("POST", path, payload, by="")

    async def sent(self) -> list[dict[str, Any]]:
        return await self.api.rows(
            'SELECT id, name, correlation, task, payload, "by" FROM signals ORDER BY at, id'
        )


@pytest_asyncio.fixture(loop_scope="session")
async def run(api: Api) -> AsyncIterator[Released]:
    await register(api.database, "release", compiled=FORM)
    reply = await api.call("POST", "/executions/workflows/release/execute", {})
    assert reply.status_code == 202, reply.text
    (row,) = await api.rows("SELECT id, callback_key FROM workflow_executions WHERE workflow = 'release'")
    yield Released(api, row["id"], row["callback_key"])


async def test_a_signal_is_a_row_an_audit_and_a_message_at_once(
    run: Released, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINFLOW_FAULTS", "signal.after_commit=error")
    assert (
        await run.signal("freeze-lifted", {"ticket": "T1"}, key="k1", correlation="eu")
    ).status_code == 500
    (row,) = await run.sent()
    assert row == {
        "id": "k1",
        "name": "freeze-lifted",
        "correlation": "eu",
        "task": "",
        "payload": {"ticket": "T1"},
        "by": "o-person",
    }
    (message,) = await run.api.rows("SELECT kind, execution_id, body FROM outbox")
    assert (message["kind"], message["execution_id"], message["body"]) == ("signal", run.id, row)
    (entry,) = await run.api.rows("SELECT actor, details FROM audit WHERE action = 'execution.signalled'")
    assert entry == {
        "actor": "o-person",
        "details": {"id": "k1", "name": "freeze-lifted", "correlation": "eu"},
    }
    monkeypatch.delenv("PINFLOW_FAULTS")
    again = await run.signal("freeze-lifted", {"ticket": "T1"}, key="k1", correlation="eu")
    assert (again.status_code, again.json()["repeated"]) == (202, True)
    assert len(await run.sent()) == 1


async def test_a_payload_is_checked_with_a_pointer_for_each_fault(run: Released) -> None:
    reply = await run.signal("freeze-lifted", {"count": "many"})
    assert reply.status_code == 422
    assert {fault["pointer"] for fault in reply.json()["problems"]} == {"/payload/ticket", "/payload/count"}
    assert await run.sent() == []
    assert (await run.signal("anything", None)).status_code == 202


async def test_a_name_that_nobody_waits_for_is_told_what_there_is(run: Released) -> None:
    reply = await run.signal("freeze-lited", {})
    assert reply.status_code == 404
    assert "anything, deployed, freeze-lifted" in reply.json()["hint"]
    hello = (await run.api.start()).json()["id"]
    reply = await run.api.call("POST", f"/executions/{hello}/signal", {"name": "go"})
    assert (reply.status_code, "no task of it waits for any signal" in reply.json()["hint"]) == (404, True)


async def test_a_key_belongs_to_one_signal(run: Released) -> None:
    replies = await asyncio.gather(*(run.signal("anything", 1, key="k") for _ in range(8)))
    assert {reply.status_code for reply in replies} == {202}
    assert [reply.json()["repeated"] for reply in replies].count(False) == 1
    assert (await run.signal("anything", 2, key="k")).status_code == 409
    assert len(await run.sent()) == 1


async def test_a_run_that_is_over_takes_no_signal(run: Released) -> None:
    assert (await run.signal("anything", 1, key="k")).status_code == 202
    await run.api.rows("UPDATE workflow_executions SET status = 'FAILED'")
    reply = await run.signal("anything", 2)
    assert (reply.status_code, "FAILED" in reply.json()["detail"]) == (409, True)
    assert (await run.signal("anything", 1, key="k")).json()["repeated"] is True
    assert (await run.call_back("free", 1)).status_code == 404


async def test_a_payload_is_bounded(run: Released) -> None:
    reply = await run.signal("anything", "x" * MAX_PAYLOAD)
    assert (reply.status_code, reply.json()["problems"][0]["pointer"]) == (422, "/payload")


async def test_a_callback_needs_no_token_but_its_own_and_is_good_once(run: Released) -> None:
    address = "rollout[3].hook"
    reply = await run.call_back(address, {"ticket": "T2"})
    assert (reply.status_code, reply.json()) == (202, {"taken": True})
    (row,) = await run.sent()
    assert (row["task"], row["name"], row["payload"], row["by"]) == (
        address,
        "deployed",
        {"ticket": "T2"},
        "callback",
    )
    again = await run.call_back(address, {"ticket": "T2"})
    assert again.status_code == 404
    assert (await run.call_back("rollout[4].hook", {"ticket": "T3"})).status_code == 202
    assert len(await run.sent()) == 2


async def test_one_of_many_callbacks_at_once_is_taken(run: Released) -> None:
    replies = await asyncio.gather(*(run.call_back("free", number) for number in range(10)))
    assert sorted(reply.status_code for reply in replies) == [202] + [404] * 9
    assert len(await run.sent()) == 1


async def test_whatever_is_wrong_with_a_callback_is_not_found_in_the_same_words(run: Released) -> None:
    other = callback_token(run.key, "lifted")
    said = set()
    for address, token in (
        ("free", ""),
        ("free", "0" * 64),
        ("free", other),
        ("free", other[:-1]),
        ("free", "ü"),
        ("nowhere", callback_token(run.key, "nowhere")),
        ("rollout", callback_token(run.key, "rollout")),
        ("free", callback_token("", "free")),
    ):
        reply = await run.call_back(address, {}, token)
        assert reply.status_code == 404, (address, token)
        said.add(reply.json()["detail"])
    unknown = await run.api.call("POST", f"/callbacks/nope/free?token={other}", {}, by="")
    hello = (await run.api.start()).json()["id"]
    keyless = await run.api.call(
        "POST", f"/callbacks/{hello}/free?token={callback_token('', 'free')}", {}, by=""
    )
    assert {unknown.status_code, keyless.status_code} == {404}
    assert len(said | {unknown.json()["detail"], keyless.json()["detail"]}) == 1
    assert await run.sent() == []


async def test_a_payload_that_does_not_fit_leaves_the_callback_good(run: Released) -> None:
    refused = await run.call_back("lifted", {"ticket": 1})
    assert (refused.status_code, refused.json()["problems"][0]["pointer"]) == (422, "/payload/ticket")
    assert (await run.call_back("lifted", {"ticket": "T"})).status_code == 202


async def test_the_key_of_callbacks_is_shown_to_nobody(run: Released) -> None:
    for path in (f"/executions/{run.id}", "/executions", f"/audit?execution_id={run.id}"):
        assert run.key not in (await run.api.call("GET", path)).text
