"""Cases played offline: retries, time limits, people, timers and cancels as a real run has them, in skipped time."""

from __future__ import annotations

from random import Random

import pytest

from engine.core.states import RUN_ENDS, TASK_ENDS
from engine.testing.addresses import ByAddress
from engine.testing.cases import Answer, Cancel, Case, Expectation, Failure, Mock, Vote
from engine.testing.driver import Driver
from engine.testing.spans import duration
from tests.simulation.random_definitions import random_definition
from tests.support.casefiles import HTTP, TYPES, passes, play


def definition(*tasks: str, more: str = "") -> str:
    return "name: w\n" + more + "\ntasks:\n" + "".join(f"  - {{{task}}}\n" for task in tasks)


def activity(rest: str = "", id: str = "a") -> str:
    return f"id: {id}, {HTTP}" + (f", {rest}" if rest else "")


def gate(config: str = "", rest: str = "") -> str:
    config = f", {config}" if config else ""
    return f"id: gate, activity_type: human_approval, config: {{message: go{config}}}, {rest}"


RETRY = "retry: {max_attempts: 4, initial_interval: 10s, backoff_coefficient: 3, max_interval: 60s%s}"


# --- attempts ---


def test_pauses_grow_up_to_the_longest_one() -> None:
    passes(
        definition(activity(RETRY % "")),
        "mocks: {a: {error: {type: X}, after: 1s}}, expect: {status: FAILED, attempts: {a: 4}, took: 1m44s}",
    )


def test_a_list_answers_attempt_after_attempt() -> None:
    passes(
        definition(activity(RETRY % ""), more="outputs: {n: '${{ tasks.a.attempts }}'}"),
        "mocks: {a: [{error: {type: X}}, {result: 1}]}, expect: {status: COMPLETED, outputs: {n: 2}, took: 10s}",
    )


@pytest.mark.parametrize(
    ("rest", "answer", "attempts"),
    [
        (", non_retryable_errors: [X]", "{error: {type: X}}", 1),
        (", when: '${{ attempt < 2 }}'", "{error: {type: X}}", 2),
        (", when: '${{ error.type == \"Y\" }}'", "{error: {type: X}}", 1),
        ("", "{error: {type: X, retryable: false}}", 1),
        ("", "{error: {type: DENIED}}", 1),
        ("", "{error: {type: DENIED, retryable: true}}", 4),
    ],
)
def test_what_is_not_tried_again(rest: str, answer: str, attempts: int) -> None:
    passes(
        definition(activity(RETRY % rest)),
        f"mocks: {{a: {answer}}}, expect: {{status: FAILED, attempts: {{a: {attempts}}}}}",
    )


def test_success_when_judges_a_result_and_its_failure_is_retried() -> None:
    passes(
        definition(activity("success_when: '${{ result.body.ok }}', " + RETRY % "")),
        "mocks: {a: [{result: {body: {ok: false}}}, {result: {body: {ok: true}}}]}, "
        "expect: {status: COMPLETED, attempts: {a: 2}}",
    )


def test_a_success_when_that_fails_is_final() -> None:
    passes(
        definition(activity("success_when: '${{ result.body.ok }}', " + RETRY % "")),
        "mocks: {a: {result: {body: {}}}}, expect: {status: FAILED, attempts: {a: 1}, error: {type: EXPRESSION}}",
    )


def test_an_attempt_is_cut_off_at_its_timeout() -> None:
    passes(
        definition(activity("timeout: 5s, " + RETRY % "")),
        "mocks: {a: [{result: 1, after: 9s}, {result: 1, after: 4s}]}, expect: {status: COMPLETED, attempts: {a: 2}, took: 19s}",
    )


def test_all_attempts_together_end_with_total_timeout() -> None:
    passes(
        definition(activity("timeout: 10s, total_timeout: 25s, " + RETRY % "")),
        "mocks: {a: {result: 1, after: 1h}}, expect: {status: FAILED, error: {type: TIMEOUT}, attempts: {a: 2}, took: 25s}",
    )


def test_an_attempt_that_could_only_begin_after_the_end_is_not_made() -> None:
    passes(
        definition(activity("timeout: 10s, total_timeout: 12s, " + RETRY % "")),
        "mocks: {a: {error: {type: X}, after: 3s}}, expect: {status: FAILED, error: {type: X}, attempts: {a: 1}, took: 3s}",
    )


def test_a_config_that_an_expression_made_wrong_is_refused_as_on_a_worker() -> None:
    task = "id: a, activity_type: http_request, config: {url: 'https://x.test', timeout: '${{ run.id }}'}"
    task = task.replace("timeout", "max_response_bytes")
    trace = passes(
        definition(task, more="defaults: {retry: {max_attempts: 3}}"),
        "mocks: {a: {result: 1}}, expect: {status: FAILED, error: {type: INVALID_CONFIG}, attempts: {a: 1}}",
    )
    assert "config.max_response_bytes" in trace.error["message"]


def test_a_task_without_a_mock_is_named_with_the_line_to_add() -> None:
    trace, (said,) = play(definition(activity()), "expect: {status: COMPLETED}")
    assert trace.status == ""
    assert said.startswith("task `a` ran, and the case has no mock for it")
    assert "a: {result: {status: 200, headers: {}, body: {}}}" in said


def test_a_list_that_ends_too_soon_is_named() -> None:
    _, (said,) = play(
        definition(activity(RETRY % "")), "mocks: {a: [{error: {type: X}}]}, expect: {status: FAILED}"
    )
    assert said.startswith("task `a` asks for attempt 2, and the list of its mock has 1")


# --- people ---


def test_a_quorum_of_different_people_approves() -> None:
    trace = passes(
        definition(gate("required_approvals: 2")),
        "approvals: {gate: [{by: b, decision: approve, after: 3h}, {by: a, decision: approve, after: 2h, comment: ok}]}, "
        "expect: {status: COMPLETED, took: 3h}",
    )
    assert trace.tasks["gate"].status == "COMPLETED"


def test_one_rejection_decides() -> None:
    passes(
        definition(gate("required_approvals: 2")),
        "approvals: {gate: [{by: a, decision: reject, comment: 'no'}]}, "
        "expect: {status: FAILED, error: {type: ApprovalRejected, message: 'rejected by a: no'}, took: 0s}",
    )


@pytest.mark.parametrize(
    ("policy", "expect"),
    [
        ("", "status: FAILED, error: {type: ApprovalTimedOut}, took: 48h"),
        ("on_timeout: approve, ", "status: COMPLETED, took: 48h"),
        (
            "on_timeout: escalate, escalate_to: {groups: [leads]}, ",
            "status: FAILED, error: {type: ApprovalTimedOut}, took: 96h",
        ),
    ],
)
def test_a_deadline_that_passes(policy: str, expect: str) -> None:
    passes(definition(gate(policy + "deadline: 48h")), f"expect: {{{expect}}}")


def test_after_an_escalation_more_people_may_decide() -> None:
    config = (
        "approvers: {users: [alice]}, on_timeout: escalate, escalate_to: {groups: [leads]}, deadline: 48h"
    )
    vote = (
        "approvals: {gate: [{by: eve, groups: [leads], decision: approve, after: %s}]}, expect: {status: %s}"
    )
    passes(definition(gate(config)), vote % ("50h", "COMPLETED"))
    _, said = play(definition(gate(config)), vote % ("47h", "FAILED"))
    assert said == ["a vote by eve was not possible: eve is not an approver of this request (users alice)"]


@pytest.mark.parametrize(
    ("votes", "why"),
    [
        ("{by: a, decision: approve}, {by: a, decision: approve, after: 1s}", "a has decided so already"),
        ("{by: a, decision: approve, after: 3d}", "the request is TIMED_OUT already"),
        ("{by: a, decision: approve, form: {x: 1}}", "the request asks for no form"),
        ("{by: a, decision: approve}, {by: b, decision: approve}, {by: c, decision: approve}", "the request is APPROVED"),
    ],
)  # fmt: skip
def test_a_vote_that_nobody_could_give_is_a_failure(votes: str, why: str) -> None:
    tasks = (gate("required_approvals: 2, deadline: 2d"), "id: soak, type: wait, duration: 5d")
    _, said = play(definition(*tasks), f"approvals: {{gate: [{votes}]}}, expect: {{status: COMPLETED}}")
    assert why in said[0]


def test_a_vote_after_the_end_of_the_run_is_a_failure() -> None:
    votes = "approvals: {gate: [{by: a, decision: approve}, {by: b, decision: approve, after: 1h}]}"
    _, (said,) = play(definition(gate()), votes + ", expect: {status: COMPLETED}")
    assert said == "a vote by b was not possible: the run was over after 0s"


@pytest.mark.parametrize("who", ["starter", "commit_author"])
def test_nobody_approves_their_own_run(who: str) -> None:
    case = "started_by: tom, commit_author: ann, approvals: {gate: [{by: %s, decision: approve}]}, expect: {status: COMPLETED}"
    task = gate(f"prevent_self_approval: [{who}], approvers: {{users: ['${{{{ run.id }}}}', tom, ann]}}")
    _, said = play(definition(task), case % ("tom" if who == "starter" else "ann"))
    assert "may not decide on it" in said[0]
    passes(definition(task), case % ("ann" if who == "starter" else "tom"))


def test_a_form_must_fit() -> None:
    task = gate("form: {type: object, required: [ticket], properties: {ticket: {type: string}}}")
    vote = "approvals: {gate: [{by: a, decision: approve%s}]}, expect: {status: COMPLETED}"
    passes(definition(task), vote % ", form: {ticket: T-1}")
    _, said = play(definition(task), vote % "")
    assert said[0] == 'a vote by a was not possible: the form does not fit: "ticket" is a required property'


def test_a_run_that_waits_for_nobody_says_what_to_add() -> None:
    _, (said,) = play(definition(gate()), "expect: {status: COMPLETED}")
    assert "gate: [{by: alice, decision: approve}]" in said


# --- time and ends ---


def test_waits_are_skipped_in_no_time() -> None:
    passes(
        definition("id: a, type: wait, duration: 300d", "id: b, type: wait, until: '2031-01-01T00:00:00Z'"),
        "expect: {status: COMPLETED, path: [a, b], took: 365d}",
    )


def test_the_run_starts_when_the_case_says() -> None:
    passes(
        definition("id: a, type: wait, until: '2026-01-02T00:00:00Z'", more="outputs: {at: '${{ run.started_at }}'}"),
        "started_at: '2026-01-01T00:00:00Z', expect: {status: COMPLETED, took: 1d, outputs: {at: '2026-01-01T00:00:00.000000Z'}}",
    )  # fmt: skip


def test_parallel_tasks_end_in_the_order_of_their_durations() -> None:
    passes(
        definition(activity(), activity(id="b"), activity("depends_on: [a, b]", id="c")),
        "mocks: {a: {result: 1, after: 2s}, b: {result: 1, after: 1s}, c: {result: 1}}, "
        "expect: {status: COMPLETED, path: [b, a, c], took: 2s}",
    )


def test_a_run_past_its_timeout_is_cleaned_up() -> None:
    more = f"timeout: 10m\nfinally: [{{{activity(id='unlock')}}}]\non_failure: [{{{activity(id='alert')}}}]"
    passes(
        definition(activity("timeout: 1h"), more=more),
        "mocks: {a: {result: 1, after: 30m}, alert: {result: 1}, unlock: {result: 1, after: 1m}}, "
        "expect: {status: TIMED_OUT, tasks: {a: CANCELLED}, path: [a, alert, unlock], took: 11m}",
    )


def test_a_cancel_ends_what_runs_and_skips_the_rest() -> None:
    passes(
        definition(activity(), activity("depends_on: [a]", id="b"), gate()),
        "mocks: {a: {result: 1, after: 1m}}, cancel: {after: 5s, by: tom, reason: enough}, "
        "expect: {status: CANCELLED, tasks: {a: CANCELLED, b: SKIPPED, gate: CANCELLED}, took: 5s, "
        "error: {type: RunCancelled, message: 'cancelled by tom: enough'}}",
    )


def test_the_same_case_gives_the_same_trace() -> None:
    text = definition(*(activity(id=f"t{n}") for n in range(20)))
    mocks = ", ".join(f"t{n}: {{result: {n}, after: {n % 3 + 1}s}}" for n in range(20))
    case = f"mocks: {{{mocks}}}, expect: {{status: COMPLETED}}"
    assert passes(text, case) == passes(text, case)


# --- what is compared ---


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ("status: FAILED", "status:\n      expected  FAILED\n      was       COMPLETED"),
        ("status: COMPLETED, tasks: {a: SKIPPED}", "tasks.a:\n      expected  SKIPPED\n      was       COMPLETED"),
        ("status: COMPLETED, outputs: {l: [1, 3]}", "outputs.l[1]:\n      expected  3\n      was       2"),
        ("status: COMPLETED, outputs: {l: [1]}", "outputs.l:\n      expected  [1]\n      was       [1, 2]"),
        ("status: COMPLETED, outputs: {b: 1}", "outputs.b:\n      expected  1\n      was       true"),
        ("status: COMPLETED, outputs: {z: null}", "outputs.z:\n      expected  null\n      was       not there"),
        ("status: COMPLETED, took: '>=1m'", "took:\n      expected  >=1m\n      was       5s"),
        ("status: COMPLETED, attempts: {a: 2}", "attempts.a:\n      expected  2\n      was       1"),
        ("status: COMPLETED, error: {type: X}", 'error:\n      expected  {"type": "X"}\n      was       no error'),
    ],
)  # fmt: skip
def test_a_difference_is_shown_beside_what_was_expected(expected: str, said: str) -> None:
    text = definition(activity(), more="outputs: {l: [1, 2], b: true, n: 1.0}")
    _, found = play(text, f"mocks: {{a: {{result: 1, after: 5s}}}}, expect: {{{expected}}}")
    assert found == [said]


def test_another_path_is_shown_as_a_diff() -> None:
    _, (said,) = play(
        definition(activity(), activity("depends_on: [a]", id="b"), activity("depends_on: [b]", id="c")),
        "mocks: {a: {result: 1}, b: {result: 1}, c: {result: 1}}, expect: {status: COMPLETED, path: [a, c, b]}",
    )
    assert said.splitlines()[1:] == ["        a", "      + b", "        c", "      - b"]


@pytest.mark.parametrize("took", ["5s", "<6s", "<=5s", ">4s", ">=5s", "PT5S", ">0s"])
def test_took(took: str) -> None:
    passes(definition("id: a, type: wait, duration: 5s"), f"expect: {{status: COMPLETED, took: '{took}'}}")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.25, "250ms"), (5400, "1h30m"), (90061.5, "1d1h1m1s500ms")]
)
def test_spans(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("seed", range(60))
def test_any_definition_is_played_to_its_end_and_the_same_twice(seed: int) -> None:
    chance = Random(seed)
    compiled = random_definition(chance)
    tasks = [*compiled["tasks"], *compiled["on_failure"], *compiled["finally"]]
    failure = Failure("X", "no")
    answers = {
        t["id"]: Answer({"n": 1}, chance.choice([None, None, failure]), chance.choice([0, 7])) for t in tasks
    }
    votes = {t["id"]: (Vote("bob", chance.choice(["approve", "reject"]), 3.0, ()),) for t in tasks}
    case = Case(
        name="any",
        line=1,
        place=(),
        inputs={},
        mocks=ByAddress((name, Mock((answer,), repeats=True)) for name, answer in answers.items()),
        approvals=ByAddress(votes),
        expect=Expectation("COMPLETED", {}, {}),
        started_at=1000.0,
        cancel=chance.choice([None, None, Cancel(chance.choice([0.0, 9.0]), "bob", "")]),
    )
    trace = Driver(compiled, TYPES).play(case)
    assert trace.status in RUN_ENDS
    assert all(end.status in TASK_ENDS for end in trace.tasks.values())
    assert trace == Driver(compiled, TYPES).play(case)
