"""Approvals in the brain, the judge of votes, the judge of attempts, and events that come late or twice."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from engine.core.approvals import (
    ApprovalPolicy,
    Circumstances,
    approval_id,
    author_names,
    expiry,
    refusal,
    standing,
)
from engine.core.attempts import judge_error, judge_result
from engine.core.contracts import (
    ActivityCompleted,
    ActivityOutcome,
    Event,
    Judgement,
    RequestApproval,
    RetryPolicy,
    TaskError,
    TimerFired,
)
from tests.support.definitions import approval, definition, retry, task
from tests.support.driver import Run

APPROVE = {"by": "bob", "decision": "approve", "comment": "", "form": None, "at": "2030-01-01T00:00:00Z"}
REJECT = APPROVE | {"by": "carol", "decision": "reject", "comment": "not on a Friday"}


def waiting(**config: Any) -> Run:
    run = Run(definition(approval("gate", **config), task("go", "gate", run_on="always")))
    run.requested("gate", deadline=run.clock + 3600 if "deadline" in config else None)
    return run


def test_an_approval_asks_first_and_waits_without_a_timer_if_it_has_no_deadline() -> None:
    run = Run(definition(approval("gate", approvers={"users": ["bob"]})))
    (command,) = run.commands
    assert isinstance(command, RequestApproval)
    assert command.call.config == {"message": "gate?", "approvers": {"users": ["bob"]}}
    assert run.requested("gate") == []
    assert run.statuses() == {"gate": "WAITING"}
    assert run.brain.snapshot()["status"] == "WAITING"


def test_the_deadline_counts_from_the_moment_at_which_the_request_can_be_seen() -> None:
    run = Run(definition(approval("gate", deadline="1h")))
    requested_at = run.clock + 40
    run.clock += 60
    run.requested("gate", deadline=requested_at + 3600)
    assert list(run.timers().values()) == [3580.0]


def test_approved_completes_with_all_decisions() -> None:
    run = waiting(deadline="1h")
    run.resolved("gate", "APPROVED", APPROVE)
    assert run.task("gate")["outputs"] == {"decision": "approved", "decisions": [APPROVE]}
    assert run.started() == ["go"]
    assert run.brain.to_json()["timers"] == {}


def test_rejected_fails_with_who_and_why() -> None:
    run = waiting()
    run.resolved("gate", "REJECTED", APPROVE, REJECT)
    error = run.task("gate")["error"]
    assert (error["type"], error["message"]) == ("ApprovalRejected", "rejected by carol: not on a Friday")


def test_on_reject_continue_completes_it() -> None:
    run = waiting(on_reject="continue")
    run.resolved("gate", "REJECTED", REJECT)
    assert run.task("gate")["outputs"] == {"decision": "rejected", "decisions": [REJECT]}
    assert run.task("gate")["status"] == "COMPLETED"


def test_a_passed_deadline_asks_the_row_which_times_it_out() -> None:
    run = waiting(deadline="1h")
    run.fire("deadline:1:gate")
    assert run.closed() == {"gate": "deadline"}
    run.resolved("gate", "TIMED_OUT")
    assert run.task("gate")["error"]["type"] == "ApprovalTimedOut"


def test_a_decision_that_came_just_before_the_deadline_wins_because_the_row_says_so() -> None:
    run = waiting(deadline="1h")
    run.fire("deadline:1:gate")
    run.resolved("gate", "APPROVED", APPROVE)
    assert run.statuses()["gate"] == "COMPLETED"


def test_an_escalation_gives_one_new_deadline() -> None:
    run = waiting(deadline="1h")
    run.clock += 3600
    run.fire("deadline:1:gate")
    run.resolved("gate", "PENDING", deadline=run.clock + 1800)
    assert run.timers() == {"deadline:2:gate": 1800.0}
    assert run.fire("deadline:1:gate") == [], "the first deadline told again"
    run.fire("deadline:2:gate")
    assert run.closed() == {"gate": "deadline"}


def test_a_decision_that_overtakes_the_answer_of_the_request_counts() -> None:
    run = Run(definition(approval("gate"), task("go", "gate")))
    run.resolved("gate", "APPROVED", APPROVE)
    assert run.started() == ["go"]
    assert run.requested("gate") == []


def test_the_decision_of_another_request_is_ignored() -> None:
    run = waiting()
    run.brain.snapshot()
    event = run.resolved("other", "APPROVED", APPROVE)
    assert event == []
    assert run.statuses()["gate"] == "WAITING"


def test_a_request_that_cannot_be_made_fails() -> None:
    run = Run(definition(approval("gate")))
    run.fail("gate", "CONFIG")
    assert run.task("gate")["error"]["type"] == "CONFIG"


def test_a_run_that_is_cancelled_while_it_asks_closes_the_request_once_it_is_there() -> None:
    run = Run(definition(approval("gate", deadline="1h")))
    run.cancel()
    assert run.commands == []
    run.requested("gate", deadline=run.clock + 60)
    assert run.closed() == {"gate": "cancelled"}
    assert run.timers() == {}
    run.resolved("gate", "CANCELLED")
    finish = run.finish()
    assert finish is not None
    assert finish.status == "CANCELLED"


def test_a_run_that_is_cancelled_while_its_deadline_is_applied_closes_an_escalated_request() -> None:
    run = waiting(deadline="1h")
    run.fire("deadline:1:gate")
    run.cancel()
    assert run.closed() == {}
    run.resolved("gate", "PENDING", deadline=run.clock + 60)
    assert run.closed() == {"gate": "cancelled"}


def test_an_acknowledged_approval_counts_although_the_run_is_being_cancelled() -> None:
    run = waiting()
    run.cancel()
    run.resolved("gate", "APPROVED", APPROVE)
    assert run.statuses() == {"gate": "COMPLETED", "go": "SKIPPED:ended"}


# --- late and repeated events ---


def test_repeated_and_late_events_change_nothing() -> None:
    run = Run(definition(task("a"), approval("gate", "a"), task("b", "gate")))
    run.complete("a", 1)
    before = run.brain.to_json()
    events: list[Event] = [
        ActivityCompleted("a", ActivityOutcome(2), run.clock),
        ActivityCompleted("nobody", ActivityOutcome(2), run.clock),
        TimerFired("wait:a", run.clock),
        TimerFired("deadline:9:gate", run.clock),
    ]
    for event in events:
        assert run.tell(event) == []
    assert run.fail("a") == []
    assert run.fail("b") == []
    assert run.cancelled("a") == []
    assert run.requested("a") == []
    assert run.resolved("b", "APPROVED") == []
    assert run.brain.to_json() == before


def test_nothing_happens_after_the_end() -> None:
    run = Run(definition(task("a")))
    run.complete("a")
    assert run.cancel() == []
    assert run.complete("a") == []


# --- judgement beside the attempt ---


def test_judgements_take_along_what_the_run_knows_and_only_that() -> None:
    run = Run(
        definition(
            task("a"),
            task(
                "b",
                "a",
                success_when="${{ result.n > tasks.a.outputs.n && task.id == 'b' }}",
                retry=retry(
                    3, when="${{ attempt < 3 && error.type != 'NO' }}", non_retryable_errors=["FATAL"]
                ),
            ),
        )
    )
    run.complete("a", {"n": 5})
    command = run.command("b")
    assert command.retry == RetryPolicy(3, 0.01, 2.0, 1.0, ("FATAL",))
    judged = command.call.success_when
    assert judged is not None
    assert judged.bindings == {"tasks.a.outputs": {"n": 5}, "task.id": "b"}
    assert judge_result(judged, {"n": 6}, 1) is None
    failed = judge_result(judged, {"n": 5}, 1)
    assert failed is not None
    assert failed.type == "NOT_SUCCESSFUL"
    broken = judge_result(judged, "text", 1)
    assert broken is not None
    assert broken.type == "EXPRESSION"

    again = command.call.retry_when
    assert judge_error(again, TaskError("X", "x"), 2) is None
    assert judge_error(again, TaskError("X", "x"), 3) == TaskError("X", "x")
    assert judge_error(again, TaskError("NO", "x"), 1) == TaskError("NO", "x")


@pytest.mark.parametrize("expr", ["yes", 1, None])
def test_a_judgement_that_is_no_boolean_is_an_expression_error(expr: Any) -> None:
    failed = judge_result(Judgement(expr), {}, 1)
    assert failed is not None
    assert failed.type == "EXPRESSION"
    failed = judge_error(Judgement(expr), TaskError("X", "x"), 1)
    assert failed is not None
    assert failed.type == "EXPRESSION"


def test_without_a_judgement_every_result_is_a_success_and_every_error_may_be_retried() -> None:
    assert judge_result(None, None, 1) is None
    assert judge_error(None, TaskError("X", "x"), 1) is None
    assert judge_result(Judgement(True), None, 1) is None


# --- the judge of votes ---


def votes(*words: str) -> list[dict[str, str]]:
    return [{"by": word[1:], "decision": "approve" if word[0] == "+" else "reject"} for word in words]


@pytest.mark.parametrize(
    ("required", "said", "expected"),
    [
        (1, [], "PENDING"),
        (1, ["+bob"], "APPROVED"),
        (2, ["+bob"], "PENDING"),
        (2, ["+bob", "+bob"], "PENDING"),
        (2, ["+bob", "+carol"], "APPROVED"),
        (2, ["+bob", "-carol"], "REJECTED"),
        (2, ["+bob", "-bob"], "REJECTED"),
        (1, ["+bob", "-carol"], "APPROVED"),
        (1, ["-carol", "+bob"], "REJECTED"),
    ],
)
def test_votes(required: int, said: list[str], expected: str) -> None:
    assert standing(ApprovalPolicy(required_approvals=required), votes(*said)) == expected


def policy(**config: Any) -> ApprovalPolicy:
    return ApprovalPolicy.from_json(config)


def test_who_may_vote() -> None:
    named = policy(approvers={"users": ["bob"], "groups": ["sre"]})
    assert refusal(named, "bob", [], Circumstances()) == ""
    assert refusal(named, "dora", ["sre"], Circumstances()) == ""
    assert (
        refusal(named, "eve", ["web"], Circumstances())
        == "eve is not an approver of this request (users bob; groups sre)"
    )
    assert refusal(policy(), "eve", [], Circumstances()) == ""


def test_nobody_approves_their_own_run_or_commit_if_the_policy_says_so() -> None:
    strict = policy(prevent_self_approval=["starter", "commit_author"])
    around = Circumstances(started_by="alice", commit_authors=frozenset({"bob", "bob@example.test"}))
    assert "started this run" in refusal(strict, "alice", [], around)
    assert "wrote the commit" in refusal(strict, "bob@example.test", [], around)
    assert refusal(strict, "carol", [], around) == ""
    assert refusal(policy(), "alice", [], around) == ""


@pytest.mark.parametrize(
    "subject", ["ada", "Ada", "ADA@example.test", "ada+git@example.test", "Ada Lovelace"]
)
def test_an_author_is_known_by_every_name_whatever_its_case(subject: str) -> None:
    strict = policy(prevent_self_approval=["commit_author"])
    around = Circumstances(
        commit_authors=author_names("Ada Lovelace", "Ada+git@example.test")
        | author_names("", "ada@example.test")
    )
    assert "wrote the commit" in refusal(strict, subject, [], around)


def test_an_author_who_hides_their_address_is_known_by_the_name_at_the_forge() -> None:
    assert author_names("Ada L.", "12345+Ada@users.noreply.forge.test") >= {"ada"}
    assert author_names("", "") == frozenset()


def test_escalation_adds_people() -> None:
    named = policy(approvers={"users": ["bob"]}, escalate_to={"groups": ["leads"]})
    assert refusal(named, "lea", ["leads"], Circumstances()) != ""
    assert refusal(named, "lea", ["leads"], Circumstances(escalated=True)) == ""
    assert refusal(named, "bob", [], Circumstances(escalated=True)) == ""


def test_a_passed_deadline() -> None:
    assert expiry(policy(), escalated=False) == "TIMED_OUT"
    assert expiry(policy(on_timeout="approve"), escalated=False) == "APPROVED"
    assert expiry(policy(on_timeout="escalate"), escalated=False) == "ESCALATED"
    assert expiry(policy(on_timeout="escalate"), escalated=True) == "TIMED_OUT"


def test_the_id_of_a_request_is_the_uuid5_of_its_place() -> None:
    assert approval_id("run-1", "gate") == str(uuid.uuid5(uuid.NAMESPACE_URL, "run-1/gate"))


def test_a_request_that_is_closed_from_outside_fails_the_task() -> None:
    run = waiting()
    run.resolved("gate", "CANCELLED")
    assert run.task("gate")["error"]["type"] == "CANCELLED"
