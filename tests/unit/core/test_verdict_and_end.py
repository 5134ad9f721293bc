"""Rules 4 to 8 of the language's meaning: verdict, `on_task_failure`, end, cancel, timeout, outputs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.definitions import approval, definition, start, task
from tests.support.driver import Run


def status_of(run: Run) -> str:
    finish = run.finish()
    assert finish is not None, run.brain.snapshot()
    return finish.status


def error_of(run: Run) -> tuple[str, str]:
    finish = run.finish()
    assert finish is not None
    assert finish.error is not None
    return finish.error.type, finish.error.task


# --- 4. verdict ---


def test_a_failed_task_makes_the_run_failed_even_if_a_handler_took_it() -> None:
    run = Run(definition(task("a"), task("handler", "a", run_on="failure")))
    run.fail("a", "HTTP_5XX")
    run.complete("handler")
    assert status_of(run) == "FAILED"
    assert error_of(run) == ("HTTP_5XX", "a")


def test_continue_on_failure_leaves_the_task_failed_and_the_run_completed() -> None:
    run = Run(
        definition(
            task("a", continue_on_failure=True),
            task("b", "a"),
            on_failure=[task("alert")],
            on_task_failure="drain",
        )
    )
    run.fail("a")
    assert run.started() == ["b"]
    run.complete("b")
    assert run.statuses() == {"a": "FAILED", "b": "COMPLETED", "alert": "SKIPPED:condition"}
    assert status_of(run) == "COMPLETED"


def test_the_first_failure_is_the_error_of_the_run() -> None:
    run = Run(definition(task("a"), task("b")))
    run.fail("b", "SECOND_IN_ORDER")
    run.fail("a", "LATER")
    assert error_of(run) == ("SECOND_IN_ORDER", "b")


# --- 5. on_task_failure ---


def test_finish_lets_everything_that_can_still_run_do_so() -> None:
    run = Run(definition(task("a"), task("b"), task("c", "b")))
    run.fail("a")
    assert run.finish() is None
    run.complete("b")
    assert run.started() == ["c"]
    run.complete("c")
    assert status_of(run) == "FAILED"


def test_drain_starts_nothing_new_but_failure_and_always() -> None:
    run = Run(
        definition(
            task("a"),
            task("b"),
            task("c", "b"),
            task("d", "c"),
            task("tidy", "c", run_on="always"),
            task("page", "a", run_on="failure"),
            task("page_c", "c", run_on="failure"),
            on_task_failure="drain",
        )
    )
    run.fail("a")
    assert run.started() == ["page"]
    assert run.stopped() == []
    run.complete("b")
    assert run.started() == ["tidy"]
    run.complete("page")
    run.complete("tidy")
    assert run.statuses() == {
        "a": "FAILED",
        "b": "COMPLETED",
        "c": "SKIPPED:ended",
        "d": "SKIPPED:upstream",
        "tidy": "COMPLETED",
        "page": "COMPLETED",
        "page_c": "SKIPPED:upstream",
    }
    assert status_of(run) == "FAILED"


def test_drain_also_takes_those_that_wait_for_a_slot() -> None:
    run = Run(definition(task("a"), task("b"), task("c"), max_concurrency=1, on_task_failure="drain"))
    run.fail("a")
    assert run.statuses() == {"a": "FAILED", "b": "SKIPPED:ended", "c": "SKIPPED:ended"}


def test_cancel_ends_what_runs_as_well() -> None:
    run = Run(
        definition(
            task("a"),
            task("b"),
            task("nap", type="wait", duration=9.0),
            task("after", "b", run_on="always"),
            task("never", "b", run_on="failure"),
            on_task_failure="cancel",
        )
    )
    run.fail("a")
    assert run.stopped() == ["b"]
    assert run.statuses()["nap"] == "CANCELLED"
    run.cancelled("b")
    assert run.started() == ["after"]
    run.complete("after")
    assert run.statuses()["never"] == "SKIPPED:upstream"
    assert status_of(run) == "FAILED"


def test_a_task_that_completes_although_it_was_asked_to_end_is_completed() -> None:
    run = Run(definition(task("a"), task("b"), on_task_failure="cancel"))
    run.fail("a")
    run.complete("b", {"x": 1})
    assert run.statuses()["b"] == "COMPLETED"


def test_an_activity_cancelled_by_somebody_else_fails() -> None:
    run = Run(definition(task("a")))
    run.cancelled("a")
    assert error_of(run) == ("CANCELLED", "a")


# --- 7. end ---


def cleanup(**fields: Any) -> dict[str, Any]:
    return definition(task("a"), on_failure=[task("alert")], finally_=[task("unlock")], **fields)


def test_on_failure_runs_only_if_the_run_failed_and_finally_always() -> None:
    run = Run(cleanup())
    run.complete("a")
    assert run.started() == ["unlock"]
    run.complete("unlock")
    assert run.statuses()["alert"] == "SKIPPED:condition"
    assert status_of(run) == "COMPLETED"

    run = Run(cleanup())
    run.fail("a")
    assert run.started() == ["alert"]
    run.complete("alert")
    assert run.started() == ["unlock"]
    run.complete("unlock")
    assert status_of(run) == "FAILED"


def test_clean_up_begins_when_nothing_can_move_any_more() -> None:
    run = Run(definition(task("a"), task("b"), on_failure=[task("alert")]))
    run.fail("a")
    assert run.started() == []
    run.complete("b")
    assert run.started() == ["alert"]


def test_clean_up_sees_status_error_failed_tasks_and_all_tasks() -> None:
    seen = {
        "status": "${{ run.status }}",
        "error": "${{ run.error }}",
        "failed": "${{ run.failed_tasks }}",
        "a": "${{ tasks.a.status }}",
        "b": "${{ tasks.b.outputs.x }}",
    }
    run = Run(definition(task("a"), task("b"), on_failure=[task("alert", config=seen)]))
    run.complete("b", {"x": 7})
    run.fail("a", "HTTP_5XX")
    assert run.command("alert").call.config == {
        "status": "FAILED",
        "error": {"type": "HTTP_5XX", "message": "a went wrong", "task": "a"},
        "failed": ["a"],
        "a": "FAILED",
        "b": 7,
    }


def test_clean_up_is_a_dag_of_its_own() -> None:
    run = Run(
        definition(
            task("a"), finally_=[task("one"), task("two", "one"), task("three", "one", run_on="failure")]
        )
    )
    run.complete("a")
    assert run.started() == ["one"]
    run.complete("one")
    assert run.started() == ["two"]
    run.complete("two")
    assert run.statuses()["three"] == "SKIPPED:upstream"
    assert status_of(run) == "COMPLETED"


def test_a_failing_finally_turns_completed_into_failed() -> None:
    run = Run(cleanup())
    run.complete("a")
    run.fail("unlock", "LOCKED")
    assert status_of(run) == "FAILED"
    assert error_of(run) == ("LOCKED", "unlock")


def test_a_failing_clean_up_never_hides_the_first_error() -> None:
    run = Run(cleanup())
    run.fail("a", "FIRST")
    run.fail("alert", "ALERT")
    assert run.started() == ["unlock"]
    run.fail("unlock", "LOCKED")
    assert error_of(run) == ("FIRST", "a")


def test_clean_up_has_a_time_of_its_own() -> None:
    run = Run(cleanup(cleanup_timeout=60.0))
    run.fail("a")
    (timer,) = run.timers()
    assert run.timers() == {timer: 60.0}
    run.fire(timer)
    assert run.stopped() == ["alert"]
    run.cancelled("alert")
    assert run.started() == ["unlock"], "finally has its chance even if on_failure used up its time"
    run.complete("unlock")
    assert error_of(run) == ("BOOM", "a")


def test_finally_that_is_not_done_in_time_fails_a_completed_run() -> None:
    run = Run(cleanup())
    run.complete("a")
    run.fire(next(iter(run.timers())))
    run.cancelled("unlock")
    assert status_of(run) == "FAILED"
    assert error_of(run) == ("CleanupTimedOut", "")


def test_the_timeout_of_the_run_ends_it_and_leaves_room_for_the_clean_up() -> None:
    run = Run(
        definition(
            task("a"), task("b", "a"), timeout=30.0, on_failure=[task("alert")], finally_=[task("unlock")]
        )
    )
    assert run.timers() == {"run": 30.0}
    run.fire("run")
    assert run.stopped() == ["a"]
    run.cancelled("a")
    assert run.started() == ["alert"]
    run.complete("alert")
    run.complete("unlock")
    assert run.statuses()["b"] == "SKIPPED:ended"
    assert status_of(run) == "TIMED_OUT"
    assert error_of(run) == ("RunTimedOut", "")


def test_a_run_that_was_cancelled_first_is_cancelled_though_its_time_passes_meanwhile() -> None:
    run = Run(definition(task("a"), timeout=30.0, on_failure=[task("alert")]))
    run.cancel()
    run.fire("run")
    run.cancelled("a")
    assert run.statuses()["alert"] == "SKIPPED:condition"
    assert status_of(run) == "CANCELLED"


def test_the_timer_of_the_run_is_forgotten_when_the_clean_up_begins() -> None:
    run = Run(definition(task("a"), timeout=30.0, finally_=[task("unlock")]))
    run.complete("a")
    run.fire("run")
    assert run.statuses()["unlock"] == "RUNNING"


# --- cancel ---


def test_a_cancelled_run_skips_what_has_not_started_and_runs_finally_only() -> None:
    run = Run(
        definition(
            task("a"), task("b", "a", run_on="always"), on_failure=[task("alert")], finally_=[task("unlock")]
        )
    )
    run.cancel("bob", "wrong region")
    assert run.stopped() == ["a"]
    run.cancelled("a")
    assert run.started() == ["unlock"]
    run.complete("unlock")
    assert run.statuses() == {
        "a": "CANCELLED",
        "b": "SKIPPED:ended",
        "alert": "SKIPPED:condition",
        "unlock": "COMPLETED",
    }
    finish = run.finish()
    assert finish is not None
    assert finish.error is not None
    assert (finish.status, finish.error.type, finish.error.message) == (
        "CANCELLED",
        "RunCancelled",
        "cancelled by bob: wrong region",
    )


def test_a_second_cancel_skips_the_clean_up() -> None:
    run = Run(definition(task("a"), finally_=[task("unlock"), task("more", "unlock")]))
    run.cancel()
    run.cancelled("a")
    run.cancel()
    assert run.stopped() == ["unlock"]
    run.cancelled("unlock")
    assert run.statuses()["more"] == "SKIPPED:ended"
    assert status_of(run) == "CANCELLED"


def test_a_second_cancel_before_the_clean_up_keeps_it_from_starting() -> None:
    run = Run(definition(task("a"), finally_=[task("unlock")]))
    run.cancel()
    run.cancel()
    run.cancelled("a")
    assert run.statuses()["unlock"] == "SKIPPED:ended"
    assert status_of(run) == "CANCELLED"


def test_the_same_cancel_told_twice_is_one() -> None:
    run = Run(definition(task("a"), finally_=[task("unlock")]))
    run.cancel(id="x")
    run.cancel(id="x")
    run.cancelled("a")
    assert run.started() == ["unlock"]


def test_a_first_cancel_during_the_clean_up_lets_it_finish() -> None:
    run = Run(cleanup())
    run.complete("a")
    run.cancel()
    assert run.stopped() == []
    run.complete("unlock")
    assert status_of(run) == "COMPLETED"


def test_a_clean_up_that_was_cut_by_a_cancel_leaves_the_first_error() -> None:
    run = Run(cleanup())
    run.fail("a", "FIRST")
    run.cancel()
    run.cancel()
    run.cancelled("alert")
    assert run.statuses()["unlock"] == "SKIPPED:ended"
    assert status_of(run) == "FAILED"
    assert error_of(run) == ("FIRST", "a")


def test_cancelling_a_waiting_run_ends_timers_and_closes_requests() -> None:
    run = Run(definition(task("nap", type="wait", duration=9.0), approval("gate")))
    run.requested("gate", deadline=run.clock + 60)
    run.cancel()
    assert run.closed() == {"gate": "cancelled"}
    assert run.finish() is None, "the row of the request says how it ended"
    run.resolved("gate", "CANCELLED")
    assert run.statuses() == {"nap": "CANCELLED", "gate": "CANCELLED"}
    assert status_of(run) == "CANCELLED"


# --- 8. outputs ---


def test_outputs_are_the_result_unless_they_are_mapped() -> None:
    run = Run(
        definition(
            task("a"),
            task("b", outputs={"image": "${{ result.body.image }}"}),
            outputs={"a": "${{ tasks.a.outputs }}", "b": "${{ tasks.b.outputs }}"},
        )
    )
    run.complete("a", [1, 2])
    run.complete("b", {"body": {"image": "web:1"}})
    finish = run.finish()
    assert finish is not None
    assert finish.outputs == {"a": [1, 2], "b": {"image": "web:1"}}


def test_a_failing_outputs_mapping_fails_the_task_which_still_acted() -> None:
    run = Run(definition(task("a", outputs="${{ result.nothing.here }}")))
    run.complete("a", {})
    assert error_of(run) == ("OUTPUTS", "a")
    assert run.brain.to_json()["tasks"]["a"]["acted"] is True


@pytest.mark.parametrize(("default", "expected"), [({"image": "none"}, {"image": "none"}), (None, {})])
def test_the_outputs_of_a_task_that_did_not_complete_are_its_default_outputs(
    default: Any, expected: Any
) -> None:
    run = Run(
        definition(
            task("a", default_outputs=default),
            task("b", "a", run_on="always", config="${{ tasks.a.outputs }}"),
        )
    )
    run.fail("a")
    assert run.command("b").call.config == expected


def test_a_run_that_did_not_complete_has_no_outputs() -> None:
    run = Run(definition(task("a"), task("b"), outputs={"b": "${{ tasks.b.status }}"}))
    run.complete("b")
    run.fail("a")
    finish = run.finish()
    assert finish is not None
    assert finish.outputs is None


def test_failing_outputs_of_the_run_fail_it_before_the_clean_up() -> None:
    run = Run(definition(task("a"), outputs="${{ tasks.a.outputs.no }}", on_failure=[task("alert")]))
    run.complete("a", {})
    assert run.started() == ["alert"]
    run.complete("alert")
    assert error_of(run) == ("OUTPUTS", "")


def test_the_title_may_use_inputs_and_their_defaults() -> None:
    schema = {"properties": {"service": {"type": "string", "default": "web"}}}
    run = Run(definition(task("a"), title="Release ${{ inputs.service }}", inputs=schema))
    assert run.brain.snapshot()["title"] == "Release web"
    run = Run(
        definition(task("a"), title="Release ${{ inputs.service }}", inputs=schema), start(service="db")
    )
    assert run.brain.snapshot()["title"] == "Release db"


def test_a_title_that_cannot_be_made_is_the_name() -> None:
    run = Run(definition(task("a"), title="${{ inputs.missing }}", inputs={"properties": {"missing": {}}}))
    assert run.brain.snapshot()["title"] == "under-test"


# --- set and wait ---


def test_set_computes_its_values_at_once() -> None:
    run = Run(
        definition(
            task("a", type="set", values={"n": "${{ 1 + 1 }}"}),
            task("b", "a", config="${{ tasks.a.outputs.n }}"),
        )
    )
    assert run.statuses() == {"a": "COMPLETED", "b": "RUNNING"}
    assert run.command("b").call.config == 2


def test_an_error_in_values_fails_the_set() -> None:
    run = Run(definition(task("a", type="set", values={"n": "${{ 1 / 0 }}"})))
    assert error_of(run) == ("EXPRESSION", "a")


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"duration": 900.0}, 900.0),
        ({"duration": "${{ '15m' }}"}, 900.0),
        ({"until": "1970-01-01T00:20:00Z"}, 200.0),
    ],
)
def test_wait_waits(fields: Any, seconds: float) -> None:
    run = Run(definition(task("nap", type="wait", **fields), task("a", "nap")))
    assert run.timers() == {"wait:nap": seconds}
    assert run.brain.snapshot()["status"] == "WAITING"
    run.clock += seconds
    run.fire("wait:nap")
    assert run.statuses() == {"nap": "COMPLETED", "a": "RUNNING"}


def test_a_wait_until_a_time_that_has_come_is_no_wait() -> None:
    run = Run(definition(task("nap", type="wait", until="1970-01-01T00:00:01+00:00")))
    assert status_of(run) == "COMPLETED"


@pytest.mark.parametrize(
    "fields",
    [
        {"duration": "${{ 'soon' }}"},
        {"duration": "${{ [] }}"},
        {"duration": "${{ -1 }}"},
        {"until": "${{ 'tomorrow' }}"},
        {"until": "${{ '2030-01-01T00:00:00' }}"},
        {"until": "9999-12-31T23:59:59-23:59"},
    ],
)
def test_a_wait_without_a_sensible_time_fails(fields: Any) -> None:
    run = Run(definition(task("nap", type="wait", **fields)))
    assert error_of(run) == ("EXPRESSION", "nap")


# --- states ---


def test_a_run_waits_while_nothing_runs() -> None:
    run = Run(definition(task("nap", type="wait", duration=9.0), task("a")))
    assert run.brain.snapshot()["status"] == "RUNNING"
    run.complete("a")
    assert run.brain.snapshot()["status"] == "WAITING"
    run.fire("wait:nap")
    assert run.brain.snapshot()["status"] == "COMPLETED"
