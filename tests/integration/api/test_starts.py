"""Starting runs over HTTP: exactly one run for what was acknowledged, and clear answers to everything else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.storage.models import WorkflowExecution
from tests.integration.api.conftest import Api


async def test_a_start_answers_with_its_pin(api: Api) -> None:
    reply = await api.start()
    assert reply.status_code == 202
    body = reply.json()
    assert body["commit_sha"] == body["revision_sha"] == api.version.commit_sha
    assert (body["workflow"], body["digest"], body["status"]) == ("hello", api.version.digest, "RUNNING")
    assert reply.headers["location"] == f"/executions/{body['id']}"
    assert (await api.executor.describe(body["id"])).status == "OPEN"


async def test_defaults_of_the_schema_are_filled_in_at_every_depth(api: Api) -> None:
    run = (await api.start(options={})).json()["id"]
    shown = (await api.call("GET", f"/executions/{run}")).json()
    assert shown["inputs"] == {"service": "web", "count": 3, "options": {"dry": True}}


async def test_inputs_that_break_the_schema_are_told_with_a_pointer_each(api: Api) -> None:
    body = {"inputs": {"count": "many", "options": {"dry": 1}, "more": 1}}
    reply = await api.call("POST", "/executions/workflows/hello/execute", body)
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    said = reply.json()
    assert said["code"] == "INVALID_INPUT"
    assert {problem["pointer"] for problem in said["problems"]} == {
        "/inputs/service",
        "/inputs/count",
        "/inputs/options/dry",
        "/inputs",
    }
    assert await api.rows("SELECT id FROM workflow_executions") == []


async def test_one_key_leads_to_one_run_however_many_ask_at_once(api: Api) -> None:
    replies = await asyncio.gather(*(api.start(key="the-key") for _ in range(20)))
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert [reply.json()["repeated"] for reply in replies].count(False) == 1
    assert len(await api.rows("SELECT id FROM workflow_executions")) == 1
    actions = await api.rows("SELECT action FROM audit WHERE execution_id <> '' ORDER BY id")
    assert [row["action"] for row in actions] == ["execution.requested", "execution.started"]


async def test_the_same_key_for_another_request_is_a_conflict(api: Api) -> None:
    first = await api.start(key="k")
    other = await api.start(key="k", service="db")
    assert other.status_code == 409
    assert first.json()["id"] in other.json()["detail"]
    broken = await api.call(
        "POST", "/executions/workflows/hello/execute", {"inputs": {}}, Idempotency_Key="k"
    )
    assert broken.status_code == 409


async def test_a_key_belongs_to_its_caller(api: Api) -> None:
    one = await api.start(key="k", by="admin")
    other = await api.start(key="k", by="operator")
    assert one.json()["id"] != other.json()["id"]


async def test_a_repeat_gets_the_first_answer_also_when_the_workflow_is_retired(api: Api) -> None:
    first = (await api.start(key="k")).json()
    await api.rows("UPDATE workflow_definitions SET live_version_id = NULL, retired_seq = 1")
    again = await api.start(key="k")
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    assert (await api.start()).status_code == 404


@pytest.mark.parametrize(
    ("name", "ref", "status", "said"),
    [
        ("helo", "latest", 404, "hello"),
        ("hello", "abcdef0123", 404, "is at"),
        ("hello", "no sha", 422, "no commit"),
    ],
)
async def test_an_unknown_name_or_ref_is_told_what_exists(
    api: Api, name: str, ref: str, status: int, said: str
) -> None:
    body = {"inputs": {"service": "web"}, "ref": ref}
    reply = await api.call("POST", f"/executions/workflows/{name}/execute", body)
    assert reply.status_code == status
    assert said in reply.json()["detail"] + reply.json().get("hint", "")


async def test_a_run_can_be_started_at_a_short_sha_and_by_source_and_name(api: Api) -> None:
    body = {"inputs": {"service": "web"}, "ref": api.version.commit_sha[:8]}
    reply = await api.call("POST", "/executions/workflows/main/hello/execute", body)
    assert (reply.status_code, reply.json()["commit_sha"]) == (202, api.version.commit_sha)


async def test_nothing_in_a_request_can_widen_the_pin(api: Api) -> None:
    extras: tuple[dict[str, Any], ...] = ({"task_queue": "x"}, {"labels": {}}, {"digest": "0" * 64})
    for extra in extras:
        body = {"inputs": {"service": "web"}, **extra}
        reply = await api.call("POST", "/executions/workflows/hello/execute", body)
        assert reply.status_code == 422
        assert reply.json()["problems"][0]["pointer"] == f"/{next(iter(extra))}"


@pytest.mark.parametrize(
    "inputs",
    [{"service": "a\x00b"}, {"service": "\ud800"}, {"service": "x", "count": 1e400}, {"a\x00": 1}],
)
async def test_what_postgres_cannot_keep_is_refused(api: Api, inputs: dict[str, Any]) -> None:
    import json

    reply = await api.client.post(
        "/executions/workflows/hello/execute",
        content=json.dumps({"inputs": inputs}).encode(),
        headers={"authorization": f"Bearer {api.tokens['admin']}", "content-type": "application/json"},
    )
    assert reply.status_code in (400, 422), reply.text


async def test_while_temporal_is_away_nothing_is_recorded(api: Api) -> None:
    api.executor.away = "Temporal is away (test)"
    reply = await api.start()
    assert (reply.status_code, "retry-after" in reply.headers) == (503, True)
    assert await api.rows("SELECT id FROM workflow_executions") == []
    assert (await api.call("GET", "/executions")).status_code == 200


async def test_a_start_that_dies_before_its_commit_leaves_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINFLOW_FAULTS", "start.before_commit=error")
    assert (await api.start(key="k")).status_code == 500
    for table in (WorkflowExecution.__tablename__, "outbox", "idempotency_keys"):
        assert await api.rows(f"SELECT * FROM {table}") == []


async def test_a_start_that_dies_after_its_commit_is_found_by_its_key(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINFLOW_FAULTS", "start.after_commit=error")
    assert (await api.start(key="k")).status_code == 500
    monkeypatch.delenv("PINFLOW_FAULTS")
    again = await api.start(key="k")
    assert (again.status_code, again.json()["repeated"], again.json()["status"]) == (202, True, "PENDING")
    assert len(await api.rows("SELECT * FROM outbox")) == 1


async def test_a_source_that_is_not_there_is_told_apart_from_a_workflow(api: Api) -> None:
    reply = await api.call("POST", "/executions/workflows/nowhere/hello/execute", {})
    assert (reply.status_code, reply.json()["detail"]) == (404, "no source 'nowhere'")
