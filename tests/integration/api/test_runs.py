"""Looking at runs, listing and cancelling them."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.api.schemas.executions import ExecutionDetail, Started
from engine.storage import task_states
from tests.integration.api.conftest import Api
from tests.support.puppet import worker


async def get(api: Api, run: str) -> dict[str, Any]:
    """The run as the API shows it."""
    reply = await api.call("GET", f"/executions/{run}")
    assert reply.status_code == 200, reply.text
    ExecutionDetail.model_validate(reply.json(), extra="forbid", by_alias=True)
    return dict(reply.json())


async def test_an_open_run_speaks_for_itself(api: Api) -> None:
    async with worker(api.executor, api.queue):
        started = await api.start(end="wait")
        Started.model_validate(started.json(), extra="forbid")
        shown = await get(api, started.json()["id"])
    assert (shown["live"], shown["status"]) == (True, "RUNNING")
    (task,) = shown["tasks"]
    assert (task["id"], task["status"], task["started_at"]) == (
        "gate",
        "WAITING",
        "1970-01-01T00:00:01.500000Z",
    )


async def test_without_a_worker_the_recorded_state_is_shown_and_said_to_be_so(api: Api) -> None:
    run = (await api.start()).json()["id"]
    async with api.database.begin() as connection:
        task = {
            "id": "build",
            "status": "COMPLETED",
            "attempts": 2,
            "started_at": 1.0,
            "finished_at": 2.0,
            "outputs": {"a": [1, None]},
        }
        await task_states.note(connection, run, task_states.as_json([task]))
    await api.rows(
        "INSERT INTO task_attempts (execution_id, task, scheduled_at, attempt, phase, status, started_at, error)"
        ' VALUES (:run, \'build\', now(), 1, 1, \'FAILED\', now(), \'{"type": "X", "message": "m"}\')',
        run=run,
    )
    shown = await get(api, run)
    assert (shown["live"], shown["status"]) == (False, "RUNNING")
    assert shown["tasks"][0]["outputs"] == {"a": [1, None]}
    assert [attempt["error"]["type"] for attempt in shown["tasks"][0]["attempt_log"]] == ["X"]


async def test_while_temporal_is_away_runs_can_be_read(api: Api) -> None:
    run = (await api.start()).json()["id"]
    api.executor.away = "away (test)"
    async with asyncio.timeout(2):
        assert (await get(api, run))["live"] is False


async def test_a_run_with_an_open_request_is_waiting_in_answers_and_filters(api: Api) -> None:
    run = (await api.start()).json()["id"]
    other = (await api.start()).json()["id"]
    await api.ask(run)
    assert (await get(api, run))["status"] == "WAITING"
    for status, expected in (("WAITING", [run]), ("RUNNING", [other])):
        listed = (await api.call("GET", f"/executions?status={status}")).json()["items"]
        assert [item["id"] for item in listed] == expected
        assert {item["status"] for item in listed} == {status}


async def test_listings_go_on_where_the_page_before_ended(api: Api) -> None:
    runs = [(await api.start()).json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = (await api.call("GET", f"/executions?limit=2&cursor={cursor}")).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == runs[::-1]
    assert cursor == ""


async def test_runs_are_found_by_workflow_commit_and_starter(api: Api) -> None:
    run = (await api.start(by="operator")).json()["id"]
    sha = api.version.commit_sha
    for query in (
        "workflow=hello",
        "workflow=main/hello",
        f"commit_sha={sha}",
        f"commit_sha={sha[:7].upper()}",
        "started_by=o-person",
    ):
        listed = (await api.call("GET", f"/executions?{query}")).json()["items"]
        assert [item["id"] for item in listed] == [run], query
    for query in ("workflow=other", "workflow=other/hello", "commit_sha=" + "0" * 40, "started_by=nobody"):
        assert (await api.call("GET", f"/executions?{query}")).json()["items"] == [], query


async def test_parameters_that_mean_nothing_are_refused(api: Api) -> None:
    for query in (
        "status=ODD",
        "limit=0",
        "limit=501",
        "cursor=%25%25",
        "cursor=WzFd",
        "commit_sha=xyz",
        "commit_sha=abc",
        "limit=9" + "9" * 30,
    ):
        reply = await api.call("GET", f"/executions?{query}")
        assert reply.status_code == 422, query
        assert reply.json()["problems"][0]["pointer"].startswith("/"), query


async def test_a_cancel_reaches_the_run_and_is_audited_with_its_reason(api: Api) -> None:
    async with worker(api.executor, api.queue):
        run = (await api.start(end="wait")).json()["id"]
        reply = await api.call(
            "POST", f"/executions/{run}/cancel", {"reason": "wrong version"}, by="operator"
        )
        assert reply.status_code == 202
        for _ in range(200):
            if (await api.executor.describe(run)).status == "CANCELLED":
                break
            await asyncio.sleep(0.05)
    assert (await api.executor.describe(run)).status == "CANCELLED"
    (row,) = await api.rows(
        "SELECT actor, details ->> 'reason' AS why FROM audit WHERE action = 'execution.cancel_requested'"
    )
    assert (row["actor"], row["why"]) == ("o-person", "wrong version")
    assert await api.rows("SELECT * FROM outbox") == []


async def test_a_run_that_has_ended_cannot_be_cancelled(api: Api) -> None:
    run = (await api.start()).json()["id"]
    await api.rows("UPDATE workflow_executions SET status = 'COMPLETED'")
    reply = await api.call("POST", f"/executions/{run}/cancel")
    assert (reply.status_code, "COMPLETED" in reply.json()["detail"]) == (409, True)


async def test_an_unknown_run_is_not_found(api: Api) -> None:
    assert (await api.call("GET", "/executions/nope")).status_code == 404
    assert (await api.call("POST", "/executions/nope/cancel")).status_code == 404
