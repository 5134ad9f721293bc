"""Maps, loops, groups and `end`: blocks that are under way many times, each pass with its own tasks and names."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.state_machine import Brain
from tests.support.definitions import approval, definition, group, loop, many, start, task
from tests.support.driver import Run


def over(run: Run) -> Any:
    finish = run.finish()
    assert finish is not None, run.brain.snapshot()
    return finish


# --- group ---


def test_a_group_runs_its_tasks_in_their_own_order_and_gives_what_its_last_one_gave() -> None:
    inside = [task("a"), task("b", "a", config={"seen": "${{ tasks.a.outputs.n }}"})]
    run = Run(
        definition(group("g", tasks=inside), task("after", "g", config={"got": "${{ tasks.g.outputs }}"}))
    )
    assert run.started() == ["g.a"]
    run.complete("g.a", {"n": 1})
    assert run.started() == ["g.b"]
    assert run.command("g.b").call.config == {"seen": 1}
    assert run.command("g.b").call.idempotency_key == "run-1/g.b"
    run.complete("g.b", {"n": 2})
    assert run.started() == ["after"]
    assert run.command("after").call.config == {"got": {"n": 2}}
    assert run.statuses() == {"g": "COMPLETED", "g.a": "COMPLETED", "g.b": "COMPLETED", "after": "RUNNING"}


def test_a_group_with_several_last_tasks_gives_the_outputs_of_each() -> None:
    run = Run(definition(group("g", tasks=[task("a"), task("b")]), outputs="${{ tasks.g.outputs }}"))
    run.complete("g.b", 2)
    run.complete("g.a", 1)
    assert over(run).outputs == {"a": 1, "b": 2}


def test_a_group_maps_its_outputs_from_inside() -> None:
    inside = [task("a"), task("b", "a")]
    run = Run(
        definition(
            group("g", tasks=inside, outputs={"first": "${{ tasks.a.outputs }}"}),
            outputs="${{ tasks.g.outputs }}",
        )
    )
    run.complete("g.a", 1)
    run.complete("g.b", 2)
    assert over(run).outputs == {"first": 1}


def test_a_group_fails_with_the_error_inside_of_it_once_nothing_in_it_can_move() -> None:
    run = Run(definition(group("g", tasks=[task("a"), task("b")]), task("after", "g")))
    run.fail("g.a", "BOOM")
    assert run.task("g")["status"] == "RUNNING"
    run.complete("g.b")
    assert over(run).status == "FAILED"
    assert (over(run).error.type, over(run).error.task) == ("BOOM", "g.a")
    assert run.statuses()["after"] == "SKIPPED:upstream"


def test_a_group_skipped_by_its_when_runs_nothing_of_its_branch() -> None:
    run = Run(definition(group("g", tasks=[task("a")], when="${{ false }}"), task("after", "g")))
    assert run.started() == ["after"]
    assert run.statuses()["g"] == "SKIPPED:condition"


def test_a_group_has_a_limit_of_its_own() -> None:
    inside = [task("a"), task("b"), task("c")]
    run = Run(definition(group("g", tasks=inside, max_concurrency=1), task("z")))
    assert run.started() == ["g.a", "z"]
    run.complete("g.a")
    assert run.started() == ["g.b"]


def test_the_whole_time_of_a_group_ends_what_is_inside_and_fails_it() -> None:
    run = Run(definition(group("g", tasks=[task("a"), task("b", "a")], timeout=60.0)))
    assert run.timers() == {"timeout:g": 60.0}
    run.fire("timeout:g")
    assert run.stopped() == ["g.a"]
    run.cancelled("g.a")
    assert over(run).error.type == "TIMEOUT"
    assert run.statuses() == {"g": "FAILED", "g.a": "CANCELLED", "g.b": "SKIPPED:ended"}


def test_a_task_inside_reads_tasks_around_it() -> None:
    inside = [task("a", config={"image": "${{ tasks.build.outputs.image }}"})]
    run = Run(definition(task("build"), group("g", "build", tasks=[group("h", tasks=inside)])))
    run.complete("build", {"image": "web:1"})
    assert run.command("g.h.a").call.config == {"image": "web:1"}


# --- map ---


def test_a_map_runs_its_tasks_for_each_item_and_gives_results_in_item_order() -> None:
    body = [task("deploy", config={"to": "${{ region }}", "n": "${{ region_index }}"})]
    run = Run(
        definition(many("m", items=["eu", "us"], as_="region", tasks=body), outputs="${{ tasks.m.outputs }}")
    )
    assert run.started() == ["m[0].deploy", "m[1].deploy"]
    assert run.command("m[1].deploy").call.config == {"to": "us", "n": 1}
    run.complete("m[1].deploy", "second")
    run.complete("m[0].deploy", "first")
    assert over(run).outputs == ["first", "second"]


def test_a_map_has_so_many_items_under_way_at_a_time() -> None:
    body = [task("a"), task("b", "a")]
    run = Run(definition(many("m", items="${{ range(4) }}", tasks=body, max_concurrency=2)))
    assert run.started() == ["m[0].a", "m[1].a"]
    run.complete("m[1].a")
    assert run.started() == ["m[1].b"]
    run.complete("m[1].b")
    assert run.started() == ["m[2].a"]


def test_results_say_what_is_kept_of_each_item() -> None:
    body = [task("a"), task("b")]
    results = {"of": "${{ item }}", "a": "${{ tasks.a.outputs }}"}
    run = Run(definition(many("m", items=[7], tasks=body, results=results), outputs="${{ tasks.m.outputs }}"))
    run.complete("m[0].a", 1)
    run.complete("m[0].b", 2)
    assert over(run).outputs == [{"of": 7, "a": 1}]


def test_a_map_over_nothing_is_done_at_once() -> None:
    run = Run(definition(many("m", items=[], tasks=[task("a")]), outputs="${{ tasks.m.outputs }}"))
    assert over(run).outputs == []


def test_a_map_over_no_list_fails() -> None:
    run = Run(definition(many("m", items="${{ 'text' }}", tasks=[task("a")])))
    assert over(run).error.type == "EXPRESSION"
    assert "text instead of a list" in over(run).error.message


@pytest.mark.parametrize("tolerated", [{"count": 1}, {"percent": 50}])
def test_tolerated_failures_are_null_at_their_place_and_listed(tolerated: dict[str, Any]) -> None:
    outputs = {"all": "${{ tasks.m.outputs }}", "failed": "${{ tasks.m.failures.map(f, f.index) }}"}
    items = many("m", items=[1, 2, 3], tasks=[task("a")], tolerated_failures=tolerated)
    run = Run(definition(items, outputs=outputs))
    run.fail("m[1].a")
    run.complete("m[0].a", "x")
    run.complete("m[2].a", "z")
    assert over(run).status == "COMPLETED"
    assert over(run).outputs == {"all": ["x", None, "z"], "failed": [1]}


def test_percentages_of_tolerated_failures_are_rounded_down() -> None:
    items = many("m", items=[1, 2, 3], tasks=[task("a")], tolerated_failures={"percent": 33})
    run = Run(definition(items))
    run.fail("m[1].a", "BOOM")
    run.complete("m[0].a")
    run.complete("m[2].a")
    assert over(run).error.type == "ITEMS_FAILED"
    assert over(run).error.message == "1 of 3 items failed; item 1: BOOM: m[1].a went wrong"


def test_under_drain_a_map_that_failed_begins_no_more_items_and_lets_the_others_end() -> None:
    items = many("m", items=[1, 2, 3], tasks=[task("a"), task("b", "a")], max_concurrency=2)
    run = Run(definition(items, on_task_failure="drain"))
    run.fail("m[0].a")
    assert run.started() == []
    run.complete("m[1].a")
    assert run.started() == ["m[1].b"]
    run.complete("m[1].b")
    assert over(run).status == "FAILED"


def test_under_cancel_a_map_that_failed_cancels_its_other_items() -> None:
    run = Run(definition(many("m", items=[1, 2], tasks=[task("a")]), on_task_failure="cancel"))
    run.fail("m[0].a")
    assert run.stopped() == ["m[1].a"]
    run.cancelled("m[1].a")
    assert over(run).status == "FAILED"
    assert run.task("m")["items"] == {"total": 2, "completed": 0, "failed": 1}


def test_a_map_in_a_map_sees_the_items_of_both() -> None:
    inner = many("inner", items="${{ outer.hosts }}", as_="host", tasks=[
        task("ping", config={"to": "${{ outer.name + '/' + host }}"})
    ])  # fmt: skip
    items = [{"name": "eu", "hosts": ["a", "b"]}, {"name": "us", "hosts": ["c"]}]
    run = Run(
        definition(many("m", items=items, as_="outer", tasks=[inner]), outputs="${{ tasks.m.outputs }}")
    )
    assert run.started() == ["m[0].inner[0].ping", "m[0].inner[1].ping", "m[1].inner[0].ping"]
    assert run.command("m[0].inner[1].ping").call.config == {"to": "eu/b"}
    for index, name in enumerate(run.started()):
        run.complete(name, index)
    assert over(run).outputs == [[0, 1], [2]]


def test_people_may_be_asked_for_each_item() -> None:
    run = Run(definition(many("m", items=[1, 2], tasks=[approval("ok")])))
    run.requested("m[0].ok")
    run.requested("m[1].ok")
    assert [w["task"] for w in run.brain.snapshot()["waiting"]] == ["m[0].ok", "m[1].ok"]
    run.resolved("m[1].ok", "APPROVED")
    run.resolved("m[0].ok", "APPROVED")
    assert over(run).status == "COMPLETED"


def test_a_cancelled_map_ends_what_runs_and_begins_nothing() -> None:
    run = Run(definition(many("m", items=[1, 2, 3], tasks=[task("a")], max_concurrency=2)))
    run.cancel()
    assert run.stopped() == ["m[0].a", "m[1].a"]
    run.cancelled("m[0].a")
    run.cancelled("m[1].a")
    assert over(run).status == "CANCELLED"
    assert run.task("m")["status"] == "CANCELLED"


def test_a_map_that_is_under_way_forgets_what_finished_items_gave_beyond_their_results() -> None:
    body = [task("big"), task("small", "big", outputs={"n": "${{ 1 }}"})]
    run = Run(definition(many("m", items=["x" * 1000] * 3, tasks=body, max_concurrency=1)))
    run.complete("m[0].big", "y" * 1000)
    run.complete("m[0].small", "z" * 1000)
    state = str(run.brain.to_json()["tasks"]["m"])
    assert "yyy" not in state
    assert "zzz" not in state
    assert state.count("x" * 1000) == 2


# --- loop ---


def counting(**fields: Any) -> dict[str, Any]:
    made = {
        "state": {"seen": 0},
        "next_": {"seen": "${{ state.seen + 1 }}"},
        "until": "${{ tasks.probe.outputs.ok || state.seen >= 3 }}",
    }
    return loop("l", tasks=[task("probe", config={"n": "${{ iteration }}"})], **made | fields)


def test_a_loop_goes_on_with_what_the_iteration_before_left_until_its_condition_holds() -> None:
    run = Run(definition(counting(), outputs="${{ tasks.l.outputs }}"))
    run.complete("l[0].probe", {"ok": False})
    assert run.started() == ["l[1].probe"]
    assert run.command("l[1].probe").call.config == {"n": 1}
    run.complete("l[1].probe", {"ok": True})
    assert over(run).outputs == {"state": {"seen": 2}, "iterations": 2, "last": {"ok": True}}


def test_a_loop_is_judged_with_the_new_state() -> None:
    run = Run(definition(counting()))
    for index in range(3):
        run.complete(f"l[{index}].probe", {"ok": False})
    assert over(run).status == "COMPLETED"


def test_a_loop_pauses_between_iterations() -> None:
    run = Run(definition(counting(interval=30.0)))
    run.complete("l[0].probe", {"ok": False})
    assert run.timers() == {"next:1:l": 30.0}
    assert run.brain.snapshot()["status"] == "WAITING"
    run.fire("next:1:l")
    assert run.started() == ["l[1].probe"]
    assert run.fire("next:1:l") == []


def test_a_loop_that_is_never_satisfied_fails() -> None:
    run = Run(definition(counting(until="${{ false }}", max_iterations=2)))
    run.complete("l[0].probe", {"ok": False})
    run.complete("l[1].probe", {"ok": False})
    assert over(run).error.type == "LOOP_EXHAUSTED"


def test_a_failed_iteration_fails_the_loop() -> None:
    run = Run(definition(counting()))
    run.fail("l[0].probe", "HTTP_5XX")
    assert (over(run).error.type, over(run).error.task) == ("HTTP_5XX", "l[0].probe")


def test_a_loop_of_values_only_takes_breath_after_some_hundred_iterations() -> None:
    body = loop(
        "l",
        tasks=[task("s", type="set", values={"n": "${{ state.n }}"})],
        state={"n": 0},
        next_={"n": "${{ state.n + 1 }}"},
        until="${{ state.n >= 1200 }}",
        max_iterations=10_000,
    )
    run = Run(definition(body, outputs="${{ tasks.l.outputs.iterations }}"))
    events = 1
    while run.finish() is None:
        (timer,) = run.timers()
        run.fire(timer)
        events += 1
    assert over(run).outputs == 1200
    assert events == 3


def test_a_loop_cancelled_in_its_pause_ends_at_once() -> None:
    run = Run(definition(counting(interval=30.0)))
    run.complete("l[0].probe", {"ok": False})
    run.cancel()
    assert over(run).status == "CANCELLED"


# --- end ---


def test_end_cancels_what_runs_and_the_run_is_completed_with_its_outputs() -> None:
    run = Run(
        definition(
            task("a"),
            task("slow"),
            task("stop", "a", type="end", status="COMPLETED", outputs={"n": "${{ tasks.a.outputs }}"}),
            task("never", "slow"),
            finally_=[task("unlock")],
            on_failure=[task("alert")],
        )
    )
    run.complete("a", 7)
    assert run.stopped() == ["slow"]
    run.cancelled("slow")
    assert run.started() == ["unlock"]
    run.complete("unlock")
    assert over(run).status == "COMPLETED"
    assert over(run).outputs == {"n": 7}
    assert run.statuses() == {
        "a": "COMPLETED",
        "slow": "CANCELLED",
        "stop": "COMPLETED",
        "never": "SKIPPED:ended",
        "alert": "SKIPPED:condition",
        "unlock": "COMPLETED",
    }


def test_end_may_fail_the_run_with_a_message() -> None:
    run = Run(definition(task("stop", type="end", status="FAILED", message="no ${{ 1 + 1 }}")))
    assert (over(run).error.type, over(run).error.message) == ("ENDED", "no 2")


def test_end_inside_of_a_map_ends_the_run() -> None:
    body = [
        task("a"),
        task("stop", "a", type="end", status="COMPLETED", when="${{ tasks.a.outputs == 'found' }}"),
    ]
    run = Run(definition(many("m", items=[1, 2, 3], tasks=body), task("after", "m")))
    run.complete("m[0].a", "no")
    run.complete("m[1].a", "found")
    assert run.stopped() == ["m[2].a"]
    run.cancelled("m[2].a")
    assert over(run).status == "COMPLETED"
    assert run.statuses()["after"] == "SKIPPED:ended"


# --- targets ---


def test_targets_run_with_their_ancestors_and_nothing_else() -> None:
    import dataclasses

    compiled = definition(task("a"), task("b", "a"), task("c", "a"), task("d", "c"), finally_=[task("e")])
    run = Run(compiled, dataclasses.replace(start(), targets=("b",)))
    assert run.started() == ["a"]
    run.complete("a")
    assert run.started() == ["b"]
    run.complete("b")
    run.complete("e")
    assert over(run).status == "COMPLETED"
    assert run.statuses()["d"] == run.statuses()["c"] == "SKIPPED:untargeted"


# --- whatever happens ---


def nested() -> dict[str, Any]:
    body = [
        task("a", config={"i": "${{ item }}"}),
        group("g", "a", tasks=[task("b"), loop("l", "b", tasks=[task("c")], until="${{ iteration == 1 }}")]),
    ]
    return definition(
        many("m", items=[1, 2, 3], tasks=body, max_concurrency=2, tolerated_failures={"count": 1})
    )


def test_a_run_goes_on_from_its_json_at_every_step_as_if_nothing_had_been() -> None:
    run, other = Run(nested()), Run(nested())
    waiting = run.started()
    while waiting:
        name = waiting.pop(0)
        commands = run.fail(name) if name == "m[1].a" else run.complete(name, {"of": name})
        other.brain = Brain(nested(), other.brain.to_json())
        assert (other.fail(name) if name == "m[1].a" else other.complete(name, {"of": name})) == commands
        assert other.brain.to_json() == run.brain.to_json()
        waiting += run.started()
    assert over(run).status == "COMPLETED"


def test_a_restored_run_starts_again_what_was_under_way() -> None:
    run = Run(nested())
    run.complete("m[0].a")
    run.restore()
    assert run.started() == ["m[0].g.b", "m[1].a"]
    assert run.command("m[1].a").call.config == {"i": 2}


def test_late_and_unknown_events_change_nothing() -> None:
    run = Run(nested())
    run.complete("m[0].a")
    before = run.brain.to_json()
    for name in ("m[0].a", "m[9].a", "m[0].g", "m", "x", "m[0].g.l[0].c", "m[0].a~undo", "", "m[", "[0]"):
        assert run.complete(name) == []
        assert run.fail(name) == []
        assert run.cancelled(name) == []
    assert run.brain.to_json() == before
