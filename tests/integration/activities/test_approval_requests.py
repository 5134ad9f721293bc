"""Approval requests: made once, closed once, whoever else is at the row."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.activities import approval_requests
from engine.activities.failures import ActivityFailure
from engine.core.approvals import approval_id
from engine.faults import InjectedFault
from engine.storage import approvals
from engine.storage.database import Database
from tests.integration.activities.conftest import Run
from tests.support.activities import call

ASKED = {"message": "Deploy?", "approvers": {"groups": ["sre"]}}


async def request(run: Run, **config: Any) -> dict[str, Any]:
    asked = call("human_approval", {**ASKED, **config}, execution_id=run.id, task="gate")
    return await approval_requests.request(run.database, asked)


async def close(run: Run, why: Any = "deadline") -> dict[str, Any]:
    return await approval_requests.close(run.database, run.id, "gate", why)


async def row(run: Run) -> dict[str, Any]:
    (found,) = await run.rows("SELECT * FROM approval_requests WHERE execution_id = :run")
    return found


async def say(run: Run, by: str, decision: str) -> None:
    await run.rows(
        "INSERT INTO approval_decisions (id, approval_id, by, decision, comment)"
        " VALUES (:id, :approval, :by, :decision, 'so be it')",
        id=f"{by}-{decision}",
        approval=approval_id(run.id, "gate"),
        by=by,
        decision=decision,
    )


async def test_request_is_visible_and_audited(run: Run) -> None:
    made = await request(run, deadline="2h", remind_every="30m", on_timeout="approve")
    found = await row(run)
    assert made["approval_id"] == found["id"] == approval_id(run.id, "gate")
    assert made["deadline"] - made["requested_at"] == pytest.approx(7200, abs=0.1)
    assert found["requested_at"].timestamp() == pytest.approx(made["requested_at"], abs=0.001)
    assert (found["remind_at"] - found["requested_at"]).total_seconds() == pytest.approx(1800, abs=0.1)
    assert (found["status"], found["message"], found["commit_sha"]) == ("PENDING", "Deploy?", run.commit_sha)
    assert found["policy"]["approvers"] == {"groups": ["sre"], "users": []}
    assert await run.audit() == ["approval.requested"]


async def test_repeat_finds_the_same_request(run: Run) -> None:
    first = await request(run, deadline="1h")
    assert await request(run, deadline="1h") == first
    assert await run.audit() == ["approval.requested"]


async def test_many_at_once_make_one_request(run: Run) -> None:
    made = await asyncio.gather(*(request(run) for _ in range(8)))
    assert all(each == made[0] for each in made)
    assert await run.audit() == ["approval.requested"]


async def test_attempt_that_dies_after_the_commit_is_repeated_without_effect(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINFLOW_FAULTS", "approval.after_commit=error")
    with pytest.raises(InjectedFault):
        await request(run)
    monkeypatch.delenv("PINFLOW_FAULTS")
    assert (await request(run))["approval_id"] == (await row(run))["id"]
    assert await run.audit() == ["approval.requested"]


async def test_message_with_a_nul_is_kept_readable(run: Run) -> None:
    await request(run, message="Deploy \x00?")
    assert (await row(run))["message"] == "Deploy \ufffd?"


@pytest.mark.parametrize("status", ["CANCELLED", "FAILED", "TIMED_OUT"])
async def test_run_that_is_over_asks_nobody(run: Run, status: str) -> None:
    await run.rows("UPDATE workflow_executions SET status = :status", status=status)
    with pytest.raises(ActivityFailure, match="has ended") as caught:
        await request(run)
    assert (caught.value.type, caught.value.retryable) == ("RUN_IS_OVER", False)
    assert await run.rows("SELECT 1 FROM approval_requests") == []


async def test_unknown_run_asks_nobody(run: Run) -> None:
    with pytest.raises(ActivityFailure):
        await approval_requests.request(run.database, call("human_approval", ASKED, execution_id="nope"))


@pytest.mark.parametrize(
    "config",
    [
        {"approvers": {}},
        {"deadline": "soon"},
        {"deadline": -5},
        {"on_timeout": "escalate", "deadline": "1h"},
        {"on_timeout": "approve"},
        {"required_approvals": 0},
        {"required_approvals": 2, "approvers": {"users": ["ada", "ada"]}},
        {"message": ""},
        {"prevent_self_approval": ["anybody"]},
    ],
)
async def test_policy_that_cannot_be_is_refused(run: Run, config: dict[str, Any]) -> None:
    with pytest.raises(ActivityFailure) as caught:
        await request(run, **config)
    assert (caught.value.type, caught.value.retryable) == ("INVALID_CONFIG", False)


# --- deadlines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_timeout", "outcome"), [({}, "TIMED_OUT"), ({"on_timeout": "approve"}, "APPROVED")]
)
async def test_deadline_resolves(run: Run, on_timeout: dict[str, Any], outcome: str) -> None:
    await request(run, deadline="1h", **on_timeout)
    await say(run, "bob", "approve")
    closed = await close(run)
    assert (closed["outcome"], closed["deadline"]) == (outcome, None)
    (said,) = closed["decisions"]
    assert (said["by"], said["decision"], said["comment"], said["form"]) == (
        "bob",
        "approve",
        "so be it",
        None,
    )
    assert said["at"].endswith("Z")
    found = await row(run)
    assert (found["status"], found["remind_at"]) == (outcome, None)
    assert found["resolved_at"] is not None
    assert await run.audit() == ["approval.requested", f"approval.{outcome.lower()}"]
    assert (await close(run))["outcome"] == outcome
    assert len(await run.audit()) == 2


async def test_escalation_gives_one_fresh_deadline_then_ends(run: Run) -> None:
    await request(run, deadline="1h", on_timeout="escalate", escalate_to={"groups": ["leads"]})
    first = await close(run)
    found = await row(run)
    assert (first["outcome"], found["status"], found["escalated"]) == ("PENDING", "PENDING", True)
    assert first["deadline"] == pytest.approx(found["requested_at"].timestamp() + 3600, abs=5)
    assert first["deadline"] > found["requested_at"].timestamp() + 3600 - 0.001
    await run.rows("UPDATE approval_requests SET deadline_at = now()")
    assert (await close(run))["outcome"] == "TIMED_OUT"
    assert await run.audit() == ["approval.requested", "approval.escalated", "approval.timed_out"]


async def test_escalation_whose_answer_was_lost_is_not_a_second_deadline(run: Run) -> None:
    await request(run, deadline="1h", on_timeout="escalate", escalate_to={"users": ["lea"]})
    first = await close(run)
    assert await close(run) == first
    assert await run.audit() == ["approval.requested", "approval.escalated"]


async def test_resolution_that_came_first_stands(run: Run) -> None:
    await request(run, deadline="1h")
    async with run.database.begin() as connection:
        assert await approvals.resolve(connection, approval_id(run.id, "gate"), "REJECTED")
    assert (await close(run))["outcome"] == "REJECTED"
    assert (await close(run, "cancelled"))["outcome"] == "REJECTED"


async def test_end_of_the_run_closes_the_request(run: Run) -> None:
    await request(run)
    assert (await close(run, "cancelled"))["outcome"] == "CANCELLED"
    assert await run.audit() == ["approval.requested", "approval.cancelled"]


async def test_request_that_was_never_made_is_cancelled(run: Run) -> None:
    assert await close(run, "cancelled") == {"outcome": "CANCELLED", "decisions": [], "deadline": None}


async def test_of_many_that_close_at_once_one_resolves(run: Run, database: Database) -> None:
    await request(run, deadline="1h")
    closed = await asyncio.gather(*(close(run, why) for why in ["deadline", "cancelled"] * 4))
    assert len({each["outcome"] for each in closed}) == 1
    assert len(await run.audit()) == 2
