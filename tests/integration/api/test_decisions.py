"""Decisions: the row judges, once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from tests.integration.api.conftest import Api
from tests.support.puppet import worker


async def decide(api: Api, request: str, decision: str, by: str = "approver", **more: Any) -> httpx2.Response:
    """One decision."""
    return await api.call("POST", f"/approvals/{request}/approve", {"decision": decision, **more}, by=by)


async def run_of(api: Api, **inputs: Any) -> str:
    """A RUNNING run."""
    return str((await api.start(**inputs)).json()["id"])


async def actions(api: Api) -> list[str]:
    """The audit of approvals."""
    return [
        row["action"]
        for row in await api.rows("SELECT action FROM audit WHERE action LIKE 'approval.%' ORDER BY id")
    ]


async def test_an_approval_reaches_the_run_with_who_said_what(api: Api) -> None:
    async with worker(api.executor, api.queue):
        run = await run_of(api, end="wait")
        request = await api.ask(run)
        reply = await decide(api, request, "approve", comment="ship it")
        assert reply.status_code == 200, reply.text
        assert reply.json()["status"] == "APPROVED"
        for _ in range(200):
            remote = await api.executor.describe(run)
            if remote.status != "OPEN":
                break
            await asyncio.sleep(0.05)
    (told,) = remote.outputs["told"]
    assert (told["approval_id"], told["outcome"]) == (request, "APPROVED")
    assert [(said["by"], said["comment"]) for said in told["decisions"]] == [("a-person", "ship it")]
    assert await actions(api) == ["approval.decided", "approval.approved"]


async def test_of_fifty_decisions_at_once_exactly_one_resolves(api: Api) -> None:
    run = await run_of(api)
    request = await api.ask(run)
    people = [f"p{number}" for number in range(10)]
    for person in people:
        await api.token(person, "approver")
    replies = await asyncio.gather(
        *(decide(api, request, "approve" if n % 3 else "reject", by=people[n % 10]) for n in range(50))
    )
    codes = [reply.status_code for reply in replies]
    assert (codes.count(200), codes.count(409)) == (1, 49)
    said = await actions(api)
    assert len(said) == 2
    assert said[0] == "approval.decided"


async def test_a_quorum_counts_persons_not_voices(api: Api) -> None:
    request = await api.ask(await run_of(api), required_approvals=2)
    await api.token("bob", "approver")
    assert (await decide(api, request, "approve")).json()["status"] == "PENDING"
    assert (await decide(api, request, "approve")).status_code == 409
    assert (await decide(api, request, "approve", by="bob")).json()["status"] == "APPROVED"


async def test_the_last_word_before_the_quorum_counts(api: Api) -> None:
    request = await api.ask(await run_of(api), required_approvals=2)
    await decide(api, request, "approve")
    assert (await decide(api, request, "reject")).json()["status"] == "REJECTED"


async def test_a_second_decision_is_told_who_was_first(api: Api) -> None:
    request = await api.ask(await run_of(api))
    await decide(api, request, "approve")
    reply = await decide(api, request, "reject")
    assert (reply.status_code, "APPROVED already by a-person" in reply.json()["detail"]) == (409, True)


async def test_only_those_who_are_named_may_decide(api: Api) -> None:
    request = await api.ask(await run_of(api), approvers={"groups": ["sre"], "users": ["alice"]})
    await api.token("alice", "approver")
    await api.token("carol", "approver", groups=("dev",))
    assert (await decide(api, request, "approve", by="carol")).status_code == 403
    assert (await decide(api, request, "approve", by="admin")).status_code == 403
    assert (await decide(api, request, "approve", by="alice")).status_code == 200


async def test_a_group_is_enough(api: Api) -> None:
    request = await api.ask(await run_of(api), approvers={"groups": ["sre"]})
    await api.token("dave", "approver", groups=("sre",))
    assert (await decide(api, request, "approve", by="dave")).status_code == 200


async def test_to_decide_takes_the_role_of_an_approver(api: Api) -> None:
    request = await api.ask(await run_of(api))
    for by in ("viewer", "operator"):
        assert (await decide(api, request, "approve", by=by)).status_code == 403


async def test_nobody_approves_the_run_that_they_started_where_it_is_forbidden(api: Api) -> None:
    await api.token("eve", "approver", "operator")
    run = str((await api.start(by="eve")).json()["id"])
    request = await api.ask(run, prevent_self_approval=["starter"])
    assert (await decide(api, request, "approve", by="eve")).status_code == 403
    assert (await decide(api, request, "approve")).status_code == 200


async def test_the_author_of_the_commit_does_not_approve_it_where_it_is_forbidden(api: Api) -> None:
    request = await api.ask(await run_of(api), prevent_self_approval=["commit_author"])
    for name in ("ada", "ada@example.test"):
        await api.token(name, "approver")
        assert (await decide(api, request, "approve", by=name)).status_code == 403
    assert (await decide(api, request, "approve")).status_code == 200


async def test_a_form_must_fit_and_a_rejection_may_leave_it_out(api: Api) -> None:
    form = {"type": "object", "required": ["ticket"], "properties": {"ticket": {"type": "string"}}}
    request = await api.ask(await run_of(api), form=form)
    missing = await decide(api, request, "approve")
    assert (missing.status_code, missing.json()["problems"][0]["pointer"]) == (422, "/form/ticket")
    wrong = await decide(api, request, "approve", form={"ticket": 1})
    assert (wrong.status_code, wrong.json()["problems"][0]["pointer"]) == (422, "/form/ticket")
    done = await decide(api, request, "approve", form={"ticket": "T-1"})
    assert (done.status_code, done.json()["decisions"][0]["form"]) == (200, {"ticket": "T-1"})
    other = await api.ask(await run_of(api), form=form)
    assert (await decide(api, other, "reject")).status_code == 200


async def test_a_form_that_nobody_asked_for_is_refused(api: Api) -> None:
    request = await api.ask(await run_of(api))
    assert (await decide(api, request, "approve", form={"a": 1})).status_code == 422


async def test_after_the_deadline_or_the_end_of_the_run_it_is_too_late(api: Api) -> None:
    run = await run_of(api)
    request = await api.ask(run)
    await api.rows("UPDATE approval_requests SET deadline_at = now() - interval '1 second'")
    late = await decide(api, request, "approve")
    assert (late.status_code, "deadline" in late.json()["detail"]) == (409, True)
    await api.rows("UPDATE approval_requests SET deadline_at = NULL")
    await api.rows("UPDATE workflow_executions SET status = 'CANCELLED'")
    ended = await decide(api, request, "approve")
    assert (ended.status_code, "ended" in ended.json()["detail"]) == (409, True)
    assert await actions(api) == []


async def test_requests_are_listed_by_status_and_run(api: Api) -> None:
    runs = [await run_of(api) for _ in range(3)]
    requests = [await api.ask(run) for run in runs]
    await decide(api, requests[0], "approve")
    pending = (await api.call("GET", "/approvals?status=PENDING&limit=1")).json()
    assert [item["id"] for item in pending["items"]] == [requests[2]]
    rest = (await api.call("GET", f"/approvals?status=PENDING&cursor={pending['next_cursor']}")).json()
    assert [item["id"] for item in rest["items"]] == [requests[1]]
    own = (await api.call("GET", f"/approvals?execution_id={runs[0]}")).json()["items"]
    assert [(item["id"], item["decisions"][0]["by"]) for item in own] == [(requests[0], "a-person")]
    for name, found in (("hello", 3), ("main/hello", 3), ("other/hello", 0)):
        assert len((await api.call("GET", f"/approvals?workflow={name}")).json()["items"]) == found


async def test_a_decision_while_temporal_is_away_records_nothing(api: Api) -> None:
    request = await api.ask(await run_of(api))
    api.executor.away = "away (test)"
    assert (await decide(api, request, "approve")).status_code == 503
    assert await api.rows("SELECT * FROM approval_decisions") == []


async def test_an_unknown_request_is_not_found(api: Api) -> None:
    assert (await decide(api, "nope", "approve")).status_code == 404
    assert (await api.call("GET", "/approvals/nope")).status_code == 404
