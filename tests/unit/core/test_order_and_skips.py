"""Rules 1 to 3 of the language's meaning: order, `run_on`, skips."""

from __future__ import annotations

import pytest

from tests.support.definitions import definition, task
from tests.support.driver import Run


def test_a_task_starts_when_every_dependency_is_done() -> None:
    run = Run(definition(task("a"), task("b"), task("c", "a", "b")))
    assert run.started() == ["a", "b"]
    run.complete("a")
    assert run.started() == []
    run.complete("b")
    assert run.started() == ["c"]


def test_all_that_are_ready_start_at_once_in_definition_order() -> None:
    run = Run(definition(task("a"), task("d", "a"), task("c", "a"), task("b", "a")))
    run.complete("a")
    assert run.started() == ["d", "c", "b"]


def test_a_diamond_joins_once() -> None:
    run = Run(definition(task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c")))
    run.complete("a")
    run.complete("c")
    run.complete("b")
    assert run.started() == ["d"]
    run.complete("d")
    finish = run.finish()
    assert finish is not None
    assert finish.status == "COMPLETED"


def test_a_dependency_named_twice_counts_once() -> None:
    run = Run(definition(task("a"), task("b", "a", "a")))
    run.complete("a")
    assert run.started() == ["b"]


def test_config_is_resolved_when_the_task_starts() -> None:
    run = Run(
        definition(
            task("a"),
            task("b", "a", config={"n": "${{ tasks.a.outputs.n + 1 }}", "t": "${{ task.id }}-${{ run.id }}"}),
        )
    )
    run.complete("a", {"n": 1})
    assert run.command("b").call.config == {"n": 2, "t": "b-run-1"}


def test_an_error_in_when_fails_the_task_and_never_skips_it() -> None:
    run = Run(definition(task("a"), task("b", "a", when="${{ tasks.a.outputs.no == 1 }}")))
    run.complete("a", {})
    assert run.statuses()["b"] == "FAILED"
    assert run.task("b")["error"]["type"] == "EXPRESSION"
    assert run.ever_started() == ["a"]


def test_a_when_that_is_no_boolean_fails_the_task() -> None:
    run = Run(definition(task("a", when="${{ 'yes' }}")))
    assert run.task("a")["error"] == {
        "type": "EXPRESSION",
        "message": "when: when gave text instead of a boolean",
        "task": "a",
        "details": None,
    }


def test_an_error_in_config_fails_the_task_without_an_attempt() -> None:
    run = Run(definition(task("a", config={"x": "${{ inputs.n / 0 }}"}), inputs={"properties": {"n": {}}}))
    assert run.task("a")["error"]["type"] == "EXPRESSION"
    assert run.task("a")["attempts"] == 0
    finish = run.finish()
    assert finish is not None
    assert finish.status == "FAILED"


def test_run_on_is_judged_before_when() -> None:
    run = Run(definition(task("a"), task("b", "a", when="${{ tasks.a.outputs.x == 1 }}")))
    run.fail("a")
    assert run.statuses()["b"] == "SKIPPED:upstream"


def ends_of(run_on: str, *ends: str, **fields: object) -> str:
    """The status of a task behind one task for each of `ends`: ok, fail, tolerated, condition."""
    before = [
        task(
            f"t{index}",
            when="${{ false }}" if end == "condition" else None,
            continue_on_failure=end == "tolerated",
        )
        for index, end in enumerate(ends)
    ]
    run = Run(definition(*before, task("last", *(t["id"] for t in before), run_on=run_on)))
    for index, end in enumerate(ends):
        if end == "ok":
            run.complete(f"t{index}")
        elif end in ("fail", "tolerated"):
            run.fail(f"t{index}")
    return run.statuses()["last"]


@pytest.mark.parametrize(
    ("run_on", "ends", "expected"),
    [
        ("success", ["ok", "ok"], "RUNNING"),
        ("success", ["ok", "condition"], "RUNNING"),
        ("success", ["ok", "tolerated"], "RUNNING"),
        ("success", ["ok", "fail"], "SKIPPED:upstream"),
        ("any_success", ["ok", "fail"], "RUNNING"),
        ("any_success", ["fail", "condition"], "SKIPPED:upstream"),
        ("any_success", ["fail", "fail"], "SKIPPED:upstream"),
        ("failure", ["ok", "fail"], "RUNNING"),
        ("failure", ["ok", "tolerated"], "RUNNING"),
        ("failure", ["ok", "condition"], "SKIPPED:upstream"),
        ("failure", ["ok", "ok"], "SKIPPED:upstream"),
        ("always", ["fail", "condition"], "RUNNING"),
        ("always", ["ok", "ok"], "RUNNING"),
    ],
)
def test_run_on(run_on: str, ends: list[str], expected: str) -> None:
    assert ends_of(run_on, *ends) == expected


def test_failure_runs_behind_a_task_that_was_skipped_because_an_ancestor_failed() -> None:
    run = Run(definition(task("a"), task("b", "a"), task("c", "b"), task("page", "c", run_on="failure")))
    run.fail("a")
    assert run.statuses()["c"] == "SKIPPED:upstream"
    assert run.started() == ["page"]


def test_failure_does_not_run_behind_a_skip_that_no_failure_caused() -> None:
    run = Run(
        definition(
            task("a"), task("b", "a", run_on="failure"), task("c", "b"), task("page", "c", run_on="failure")
        )
    )
    run.complete("a")
    assert run.statuses() == {
        "a": "COMPLETED",
        "b": "SKIPPED:upstream",
        "c": "SKIPPED:upstream",
        "page": "SKIPPED:upstream",
    }


def test_a_task_skipped_by_its_own_when_counts_as_done_for_its_successors() -> None:
    run = Run(definition(task("a", when="${{ 1 > 2 }}"), task("b", "a")))
    assert run.statuses() == {"a": "SKIPPED:condition", "b": "RUNNING"}


def test_a_skip_by_dependencies_is_passed_on_to_success_tasks() -> None:
    run = Run(definition(task("a"), task("b", "a"), task("c", "b"), task("d", "c", run_on="always")))
    run.fail("a")
    assert run.statuses() == {"a": "FAILED", "b": "SKIPPED:upstream", "c": "SKIPPED:upstream", "d": "RUNNING"}


def test_a_chain_of_ten_thousand_skips_is_no_recursion() -> None:
    tasks = [task("t0")] + [task(f"t{i}", f"t{i - 1}") for i in range(1, 10_000)]
    run = Run(definition(*tasks))
    run.fail("t0")
    finish = run.finish()
    assert finish is not None
    assert finish.status == "FAILED"


def test_max_concurrency_holds_and_the_first_in_the_definition_goes_first() -> None:
    run = Run(definition(task("a"), task("d", "a"), task("b"), task("c"), max_concurrency=2))
    assert run.started() == ["a", "b"]
    run.complete("a")  # frees a slot for d (defined before c, though ready after it)
    assert run.started() == ["d"]
    run.complete("b")
    assert run.started() == ["c"]


def test_a_failed_start_leaves_its_slot_to_the_next() -> None:
    run = Run(definition(task("a", config="${{ run.error.type }}"), task("b"), max_concurrency=1))
    assert run.statuses() == {"a": "FAILED", "b": "RUNNING"}


def test_no_more_than_the_bound_are_in_flight_whatever_the_definition_says() -> None:
    run = Run(definition(*(task(f"t{i}") for i in range(10)), max_concurrency=8), in_flight=3)
    assert run.started() == ["t0", "t1", "t2"]


def test_what_only_waits_holds_no_slot() -> None:
    run = Run(definition(task("nap", type="wait", duration=5.0), task("a"), max_concurrency=1))
    assert run.statuses() == {"nap": "WAITING", "a": "RUNNING"}
