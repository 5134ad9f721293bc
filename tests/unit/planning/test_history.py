"""Plan against history: recorded runs under another definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.planning.history import replay, replay_all
from engine.planning.plans import NotReplayed, Replayed
from engine.planning.recorded import RecordedAttempt, RecordedCancel, RecordedRun, RecordedTask, RecordedVote

TYPES = ActivityTypes.default()
NOON = 1_800_000_000.0

RELEASE = """\
name: release
inputs: {type: object, required: [service], properties: {service: {type: string}, loud: {type: boolean, default: false}}}
tasks:
  - id: build
    activity_type: http_request
    config: {method: POST, url: "https://x.example.test/${{ inputs.service }}"}
    retry: {max_attempts: 3}
  - id: gate
    activity_type: human_approval
    depends_on: [build]
    config: {message: "Go?", approvers: {groups: [sre]}, required_approvals: 2}
  - id: deploy
    depends_on: [gate]
    activity_type: http_request
    config: {method: POST, url: "https://x.example.test/deploy"}
    outputs: {size: "${{ result.body.size }}"}
  - id: shout
    depends_on: [deploy]
    type: set
    when: "${{ inputs.loud }}"
    values: {done: "${{ tasks.deploy.outputs.size > 10 }}"}
"""
BUILT = {"status": 200, "headers": {}, "body": {"image": "web:1"}}


def compiled(text: str) -> dict[str, Any]:
    checked = check(text.encode(), "release.yaml", TYPES)
    assert not checked.problems, [str(each) for each in checked.problems]
    assert checked.compiled is not None
    return checked.compiled


def ended(task: str, status: str = "COMPLETED", **more: Any) -> RecordedTask:
    skipped = status == "SKIPPED"
    times = {} if skipped else {"started_at": NOON, "finished_at": NOON + 5}
    return RecordedTask(task, status, 0 if skipped else 1, **(times | more))


RUN = RecordedRun(
    id="run-1",
    commit_sha="c" * 40,
    status="COMPLETED",
    inputs={"service": "web", "loud": False},
    started_by="alice",
    started_at=NOON,
    tasks=(
        ended("build", outputs=BUILT),
        ended("gate", outputs={"decision": "approved", "decisions": []}),
        ended("deploy", outputs={"size": 20}),
        ended("shout", "SKIPPED"),
    ),
    attempts={
        "build": (
            RecordedAttempt(1, "FAILED", 1.0, {"type": "HTTP_5XX", "message": "500"}),
            RecordedAttempt(2, "COMPLETED", 4.0),
        ),
        "deploy": (RecordedAttempt(1, "COMPLETED", 4.0),),
    },
    votes={"gate": (RecordedVote("bob", "approve", 60.0), RecordedVote("eve", "approve", 90.0))},
)


def after(old: str, new: str, run: RecordedRun = RUN, text: str = RELEASE) -> Replayed | NotReplayed | None:
    assert old in text
    return replay(run, compiled(text), compiled(text.replace(old, new)), TYPES)


def test_the_same_definition_leads_to_the_same_path() -> None:
    assert after("Go?", "Go on?") is None


@pytest.mark.parametrize(
    ("old", "new", "task", "was", "would"),
    [
        ('"${{ inputs.loud }}"', '"${{ !inputs.loud }}"', "shout", "SKIPPED", "COMPLETED"),
        ("required_approvals: 2", "required_approvals: 3", "gate", "COMPLETED", "WAITING"),
        (
            "required_approvals: 2",
            "required_approvals: 3, deadline: 1h",
            "gate",
            "COMPLETED",
            "FAILED",
        ),
        ("    retry: {max_attempts: 3}\n", "", "build", "COMPLETED", "FAILED"),
        ("    retry: {max_attempts: 3}\n", "    retry: {max_attempts: 3}\n    timeout: 2s\n", "build", "COMPLETED", "at attempt 3, of which nothing is recorded"),
        ("max_attempts: 3}", "max_attempts: 3, non_retryable_errors: [HTTP_5XX]}", "build", "COMPLETED", "FAILED"),
        ("    depends_on: [deploy]\n", "    depends_on: [deploy, more]\n", "more", "not there", "COMPLETED"),
        ("    depends_on: [gate]\n", "    depends_on: [gate]\n    execution: worker\n", "", "", ""),
    ],
)  # fmt: skip
def test_the_task_is_named_where_the_paths_part(old: str, new: str, task: str, was: str, would: str) -> None:
    text = RELEASE.replace(old, new)
    if task == "more":
        text += "  - {id: more, type: set, values: {x: 1}}\n"
    found = replay(RUN, compiled(RELEASE), compiled(text), TYPES)
    if not task:
        assert found is None
        return
    assert isinstance(found, Replayed)
    assert (found.run, found.task, found.was, found.would) == ("run-1", task, was, would)


def test_a_task_that_never_ran_has_nothing_recorded() -> None:
    text = (
        RELEASE
        + '  - {id: ping, activity_type: http_request, config: {method: GET, url: "https://x.example.test/"}}\n'
    )
    found = replay(RUN, compiled(RELEASE), compiled(text), TYPES)
    assert isinstance(found, Replayed)
    assert (found.task, found.was, found.would) == (
        "ping",
        "not there",
        "RUNNING, of which nothing is recorded",
    )


def test_a_task_that_is_gone_is_told() -> None:
    text = RELEASE[: RELEASE.index("  - id: shout")]
    ran = replace(
        RUN,
        inputs={"service": "web", "loud": True},
        tasks=(*RUN.tasks[:3], ended("shout", outputs={"done": True})),
    )
    found = replay(ran, compiled(RELEASE), compiled(text), TYPES)
    assert isinstance(found, Replayed)
    assert (found.task, found.was, found.would) == ("shout", "COMPLETED", "not there")


def test_inputs_that_would_be_refused_are_told() -> None:
    found = after("properties: {service", "minProperties: 3, properties: {service")
    assert isinstance(found, Replayed)
    assert found.task == ""
    assert found.would.startswith("refused: inputs: ")


def test_an_end_of_the_run_that_differs_is_told() -> None:
    found = after("    retry: {max_attempts: 3}\n", "")
    assert isinstance(found, Replayed)
    assert (found.status, found.would_end) == ("COMPLETED", "FAILED")


def test_a_raw_result_that_is_not_kept_is_not_made_up() -> None:
    found = after("result.body.size }}", "result.body.length }}")
    assert isinstance(found, NotReplayed)
    assert "deploy" in found.why


def test_a_raw_result_that_is_kept_is_judged_anew() -> None:
    found = after(
        "    retry: {max_attempts: 3}\n",
        "    success_when: \"${{ result.body.image == 'web:2' }}\"\n    retry: {max_attempts: 2}\n",
    )
    assert isinstance(found, Replayed)
    assert (found.task, found.was, found.would) == ("build", "COMPLETED", "FAILED")


def test_a_run_that_its_own_definition_does_not_explain_says_nothing() -> None:
    found = after("Go?", "Go on?", replace(RUN, votes={}))
    assert isinstance(found, NotReplayed)
    assert "gate was COMPLETED, and comes to" in found.why


CANCELLED = replace(
    RUN,
    status="CANCELLED",
    tasks=(RUN.tasks[0], ended("gate", "CANCELLED"), ended("deploy", "SKIPPED"), ended("shout", "SKIPPED")),
    votes={},
    cancel=RecordedCancel("bob", 60.0, "not today"),
)


def test_a_run_that_was_cancelled_is_played_up_to_there() -> None:
    assert after("Go?", "Go on?", CANCELLED) is None
    found = after("    retry: {max_attempts: 3}\n", "", CANCELLED)
    assert isinstance(found, Replayed)
    assert (found.task, found.was, found.would) == ("build", "COMPLETED", "FAILED")
    assert (found.status, found.would_end) == ("CANCELLED", "FAILED")


def test_a_task_that_a_cancel_broke_off_has_no_answer_for_another_path() -> None:
    found = after("required_approvals: 2", "required_approvals: 2, deadline: 30s", CANCELLED)
    assert isinstance(found, Replayed)
    assert (found.task, found.was) == ("gate", "CANCELLED")


def test_a_run_that_ran_out_of_its_time_is_played_to_its_end() -> None:
    short = RELEASE.replace("tasks:\n", "timeout: 1h\ntasks:\n", 1)
    late = replace(CANCELLED, status="TIMED_OUT", cancel=None)
    assert after("Go?", "Go on?", late, short) is None
    found = after("timeout: 1h", "timeout: 2s", late, short)
    assert isinstance(found, Replayed)
    assert found.task == "build"


@pytest.mark.parametrize("status", ["CANCELLED", "TIMED_OUT"])
def test_a_run_that_was_broken_off_by_something_else_says_nothing(status: str) -> None:
    found = after("Go?", "Go on?", replace(CANCELLED, status=status, cancel=None))
    assert isinstance(found, NotReplayed)
    assert "its own definition does not lead to what is recorded" in found.why


def test_inputs_are_refused_in_words_that_do_not_say_what_they_hold() -> None:
    found = after("service: {type: string}", "service: {type: string, enum: [api, db]}")
    assert isinstance(found, Replayed)
    assert found.would == 'refused: inputs/service: does not fit enum ["api", "db"]'


MAPPED = """\
name: release
env: {factor: 2}
tasks:
  - {id: listed, type: set, values: {list: "${{ [1, 2] }}", other: 1}}
  - id: each
    type: map
    depends_on: [listed]
    items: "${{ tasks.listed.outputs.list }}"
    tasks:
      - {id: work, activity_type: http_request, config: {method: GET, url: "https://x.example.test/${{ item * env.factor }}"}}
      - {id: check, type: set, depends_on: [work], when: "${{ tasks.work.outputs.status == 200 }}", values: {big: true}}
"""
MAP_RAN = RecordedRun(
    id="run-2", commit_sha="c" * 40, status="COMPLETED", inputs={}, started_by="alice", started_at=NOON,
    tasks=(
        ended("listed", outputs={"list": [1, 2], "other": 1}),
        ended("each", outputs=[None, None]),
        *(ended(f"each[{index}].{task}") for index in (0, 1) for task in ("work", "check")),
    ),
)  # fmt: skip


def test_a_map_over_other_items_is_where_the_paths_part() -> None:
    found = after("[1, 2]", "[1, 2, 3]", MAP_RAN, MAPPED)
    assert isinstance(found, Replayed)
    assert (found.task, found.was) == ("each", "COMPLETED")
    assert found.would == "RUNNING on what listed would give, of which nothing is recorded"
    assert (
        after("other: 1}}", "other: 1}}\n  - {id: more, type: wait, duration: 1s}", MAP_RAN, MAPPED)
        is not None
    )
    assert after("name: release", "name: release\ndescription: same", MAP_RAN, MAPPED) is None


def test_a_map_behind_one_more_expression_is_the_same_map() -> None:
    assert after("name: release", "name: release\ntitle: \"${{ 'a' + 'b' }}\"", MAP_RAN, MAPPED) is None
    assert after("{id: work,", "{id: work, name: Work,", MAP_RAN, MAPPED) is None


@pytest.mark.parametrize(
    ("old", "new"), [("== 200", "== 201"), ("factor: 2", "factor: 3"), ("item * env", "1 + item * env")]
)
def test_of_a_map_that_is_another_inside_the_results_are_not_kept(old: str, new: str) -> None:
    found = after(old, new, MAP_RAN, MAPPED)
    assert found == NotReplayed("run-2", "what the tasks inside of each gave is not kept")


def test_a_damaged_record_stops_no_other() -> None:
    damaged = replace(RUN, id="run-0", started_at="yesterday")  # type: ignore[arg-type]
    old, new = compiled(RELEASE), compiled(RELEASE.replace("inputs.loud }}", "!inputs.loud }}"))
    differ, unknown = replay_all([(damaged, old), (RUN, old)], new, TYPES)
    assert [each.run for each in differ] == ["run-1"]
    assert [each.run for each in unknown] == ["run-0"]
