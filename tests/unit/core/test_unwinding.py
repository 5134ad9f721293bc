"""Rule 6 of the language's meaning: what was done is undone after a failure, in reverse order of completion."""

from __future__ import annotations

from typing import Any

from engine.core.contracts import ActivityCompleted, ActivityOutcome
from tests.support.definitions import definition, group, loop, many, task, undo
from tests.support.driver import Run


def over(run: Run) -> Any:
    finish = run.finish()
    assert finish is not None, run.brain.snapshot()
    return finish


def undone(run: Run) -> dict[str, str]:
    return {t["id"]: t["compensation"] for t in run.brain.snapshot()["tasks"] if "compensation" in t}


def step(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    return task(name, *after, compensate=undo(), **fields)


def test_completed_tasks_are_undone_one_at_a_time_in_reverse_order_of_completion() -> None:
    run = Run(definition(step("a"), step("b"), task("c", "a", "b"), on_failure=[task("alert")]))
    run.complete("b")
    run.complete("a")
    run.fail("c")
    assert run.started() == ["a~undo"]
    assert run.brain.snapshot()["phase"] == "unwinding"
    run.complete("a~undo")
    assert run.started() == ["b~undo"]
    run.complete("b~undo")
    assert run.started() == ["alert"]
    run.complete("alert")
    assert over(run).status == "FAILED"
    assert undone(run) == {"a": "DONE", "b": "DONE"}


def test_a_compensation_sees_what_its_task_gave_and_why_the_run_failed() -> None:
    config = {"image": "${{ tasks.a.outputs.image }}", "why": "${{ run.error.type }}"}
    run = Run(definition(task("a", compensate=undo(config=config)), task("b", "a")))
    run.complete("a", {"image": "web:1"})
    run.fail("b", "BOOM")
    command = run.command("a~undo")
    assert command.call.config == {"image": "web:1", "why": "BOOM"}
    assert command.call.idempotency_key == "run-1/a~undo"
    assert command.call.activity_type == "undo"


def test_a_failing_compensation_is_recorded_while_the_others_go_on() -> None:
    run = Run(definition(step("a"), step("b", "a"), task("c", "b")))
    run.complete("a")
    run.complete("b")
    run.fail("c", "FIRST")
    run.fail("b~undo", "UNDO")
    assert run.started() == ["a~undo"]
    run.complete("a~undo")
    assert over(run).error.type == "FIRST"
    assert undone(run) == {"a": "DONE", "b": "FAILED"}
    assert run.task("b~undo")["error"]["type"] == "UNDO"
    assert [name for name in run.statuses() if name.startswith("b")] == ["b", "b~undo"]


def test_a_compensation_that_cannot_be_worked_out_is_recorded_too() -> None:
    broken = undo(config={"x": "${{ tasks.a.outputs.missing }}"})
    run = Run(definition(step("z"), task("a", "z", compensate=broken), task("b", "a")))
    run.complete("z")
    run.complete("a", {})
    run.fail("b")
    assert run.started() == ["z~undo"]
    run.complete("z~undo")
    assert undone(run) == {"z": "DONE", "a": "FAILED"}


def test_a_failed_task_is_undone_only_if_its_start_is_enough() -> None:
    run = Run(definition(step("a"), task("b", compensate=undo(on="started")), task("c")))
    run.complete("c")
    run.fail("a")
    run.fail("b")
    assert run.started() == ["b~undo"]
    run.complete("b~undo")
    assert over(run).status == "FAILED"


def test_a_task_whose_outputs_could_not_be_mapped_has_done_its_work_and_is_undone() -> None:
    run = Run(definition(step("a", outputs={"x": "${{ result.missing }}"})))
    run.complete("a", {})
    assert run.started() == ["a~undo"]


def test_a_result_from_the_cache_is_not_undone() -> None:
    run = Run(definition(step("a"), task("b", "a")))
    run.tell(ActivityCompleted("a", ActivityOutcome(1, 1, cached_from="run-0"), run.clock))
    assert run.task("a")["cached_from"] == "run-0"
    run.fail("b")
    assert over(run).status == "FAILED"


def test_a_run_that_is_completed_undoes_nothing() -> None:
    run = Run(definition(step("a"), task("b", "a", continue_on_failure=True)))
    run.complete("a")
    run.fail("b")
    assert over(run).status == "COMPLETED"


def test_a_cancelled_and_a_timed_out_run_are_unwound() -> None:
    run = Run(definition(step("a"), task("b", "a")))
    run.complete("a")
    run.cancel()
    run.cancelled("b")
    assert run.started() == ["a~undo"]
    run = Run(definition(step("a"), task("b", "a"), timeout=60.0))
    run.complete("a")
    run.fire("run")
    run.cancelled("b")
    assert run.started() == ["a~undo"]
    run.complete("a~undo")
    assert over(run).status == "TIMED_OUT"


def test_a_second_cancel_skips_the_rest_of_the_unwinding() -> None:
    run = Run(definition(step("a"), step("b", "a"), task("c", "b"), finally_=[task("unlock")]))
    run.complete("a")
    run.complete("b")
    run.cancel(id="1")
    run.cancelled("c")
    assert run.started() == ["b~undo"]
    run.cancel(id="2")
    assert run.stopped() == ["b~undo"]
    run.cancelled("b~undo")
    assert over(run).status == "CANCELLED"
    assert undone(run) == {"b": "FAILED"}
    assert run.statuses()["unlock"] == "SKIPPED:ended"


def test_groups_and_loops_are_looked_through() -> None:
    body = loop("l", tasks=[step("x", config={"i": "${{ iteration }}"})], until="${{ iteration == 1 }}")
    inside = group("g", "a", tasks=[step("b"), body])
    run = Run(definition(step("a"), inside, task("c", "g")))
    run.complete("a")
    run.complete("g.l[0].x")
    run.complete("g.b")
    run.complete("g.l[1].x")
    run.fail("c")
    order = []
    while run.finish() is None:
        (name,) = run.started()
        order.append(name)
        run.complete(name)
    assert order == ["g.l[1].x~undo", "g.b~undo", "g.l[0].x~undo", "a~undo"]


def test_a_map_is_one_step_with_its_items_beside_each_other() -> None:
    config = {"to": "${{ item }}", "got": "${{ tasks.x.outputs }}"}
    body = [task("x", compensate=undo(config=config)), step("y", "x")]
    run = Run(definition(step("a"), many("m", "a", items=["eu", "us"], tasks=body), task("b", "m")))
    run.complete("a")
    for name in ("m[1].x", "m[0].x", "m[0].y", "m[1].y"):
        run.complete(name, name)
    run.fail("b")
    assert run.started() == ["m[0].y~undo", "m[1].y~undo"]
    run.complete("m[1].y~undo")
    assert run.started() == ["m[1].x~undo"]
    assert run.command("m[1].x~undo").call.config == {"to": "us", "got": "m[1].x"}
    run.complete("m[1].x~undo")
    run.complete("m[0].y~undo")
    run.fail("m[0].x~undo")
    assert run.started() == ["a~undo"]
    run.complete("a~undo")
    assert over(run).status == "FAILED"
    assert undone(run)["m"] == "FAILED"
    assert undone(run)["m[1].y"] == "DONE"


def test_a_failed_item_unwinds_itself_at_once_and_is_not_undone_again() -> None:
    body = [step("x"), task("y", "x")]
    run = Run(definition(many("m", items=[1, 2], tasks=body), task("b")))
    run.complete("m[0].x")
    run.complete("m[1].x")
    run.fail("m[0].y", "BOOM")
    assert run.started() == ["m[0].x~undo"]
    run.complete("m[1].y")
    run.complete("m[0].x~undo")
    run.complete("b")
    assert run.started() == ["m[1].x~undo"]
    run.complete("m[1].x~undo")
    assert over(run).error.type == "ITEMS_FAILED"


def test_an_unwinding_goes_on_from_its_json() -> None:
    body = [step("x"), step("y", "x")]
    compiled = definition(step("a"), many("m", "a", items=[1, 2], tasks=body), task("b", "m"))
    run = Run(compiled)
    run.complete("a")
    for name in ("m[0].x", "m[1].x", "m[0].y", "m[1].y"):
        run.complete(name)
    run.fail("b")
    run.complete("m[1].y~undo")
    run.restore()
    assert run.started() == ["m[0].y~undo", "m[1].x~undo"]
    run.complete("m[0].y~undo")
    run.complete("m[1].x~undo")
    run.complete("m[0].x~undo")
    assert run.started() == ["a~undo"]
    run.restore()
    assert run.started() == ["a~undo"]
    run.complete("a~undo")
    assert over(run).status == "FAILED"


def test_late_ends_of_a_compensation_change_nothing() -> None:
    run = Run(definition(step("a"), step("b", "a"), task("c", "b")))
    run.complete("a")
    run.complete("b")
    run.fail("c")
    run.complete("b~undo")
    assert run.complete("b~undo") == []
    assert run.fail("b~undo") == []
    assert run.complete("a") == []
