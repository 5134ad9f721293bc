"""Reruns: a result is taken over if the task's definition and what it is told are still the same, and never else."""

from __future__ import annotations

import dataclasses
from typing import Any

from engine.core.carrying import carried_of, explain
from engine.core.contracts import RunStart, StartSlice
from engine.core.plan import Plan
from tests.support.definitions import approval, definition, group, loop, many, start, task, undo
from tests.support.driver import Run

INPUTS = {"type": "object", "properties": {"n": {"type": "integer"}}}


def compiled(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return definition(*tasks, inputs=INPUTS, **fields)


def rerun(old: Run, new: dict[str, Any] | None = None, **changes: Any) -> tuple[Run, RunStart]:
    """A new run with what an old one has to give; `changes` of its start."""
    begun = old.start
    given = carried_of(Plan(old.compiled), begun, old.brain.snapshot()["tasks"])
    again = dataclasses.replace(begun, execution_id="run-2", carried=given, **changes)
    return Run(new or old.compiled, again), again


def begin(made: dict[str, Any], n: int = 1) -> Run:
    return Run(made, start(n=n))


def verdicts(made: dict[str, Any], begun: RunStart) -> dict[str, str]:
    return {each["task"]: each["verdict"] for each in explain(Plan(made), begun)}


def reasons(made: dict[str, Any], begun: RunStart) -> dict[str, str]:
    return {each["task"]: each["reason"] for each in explain(Plan(made), begun)}


CHAIN = [
    task("a", config={"n": "${{ inputs.n }}"}),
    task("b", "a", config={"x": "${{ tasks.a.outputs }}"}),
    task("c", "b"),
]


def test_what_completed_is_taken_over_and_what_failed_runs_again() -> None:
    old = begin(compiled(*CHAIN))
    old.complete("a", {"image": 1})
    old.complete("b", 2)
    old.fail("c")
    run, begun = rerun(old)
    assert run.started() == ["c"]
    assert run.task("a")["reused_from"] == "run-1"
    assert run.task("b")["outputs"] == 2
    assert verdicts(old.compiled, begun) == {"a": "reuse", "b": "reuse", "c": "run"}


def test_a_rerun_of_a_rerun_names_the_run_that_did_the_work() -> None:
    old = begin(compiled(*CHAIN))
    old.complete("a", 1)
    old.fail("b")
    again, _ = rerun(old)
    again.fail("b")
    third, _ = rerun(again)
    assert third.task("a")["reused_from"] == "run-1"


def test_a_task_whose_definition_has_changed_runs_again_and_so_does_what_it_tells_others() -> None:
    old = begin(compiled(*CHAIN))
    old.complete("a", 1)
    old.complete("b", 2)
    old.fail("c")
    changed = compiled(CHAIN[0] | {"config": {"n": "${{ inputs.n + 1 }}"}}, *CHAIN[1:])
    run, begun = rerun(old, changed)
    assert run.started() == ["a"]
    told = reasons(changed, begun)
    assert told["a"] == "its definition has changed"
    assert told["b"] == "it comes after a, which runs again"
    run.complete("a", 1)
    assert run.started() == ["c"]  # `b` is told the same as before


def test_a_task_that_is_told_something_else_runs_again() -> None:
    old = begin(compiled(*CHAIN))
    old.complete("a", 1)
    old.fail("b")
    run, begun = rerun(old, inputs={"n": 5})
    assert run.started() == ["a"]
    assert reasons(old.compiled, begun)["a"] == "what it is told has changed"


def test_labels_do_not_count() -> None:
    old = begin(compiled(*CHAIN))
    old.complete("a", 1)
    old.fail("b")
    run, _ = rerun(old, compiled(CHAIN[0] | {"name": "Build"}, *CHAIN[1:]))
    assert run.started() == ["b"]


def test_a_task_that_was_undone_runs_again() -> None:
    old = begin(compiled(task("a", compensate=undo()), task("b", "a")))
    old.complete("a", 1)
    old.fail("b")
    old.complete("a~undo")
    run, begun = rerun(old)
    assert run.started() == ["a"]
    assert reasons(old.compiled, begun)["a"] == "the earlier run has no result of it that can be taken over"


def test_what_came_after_a_failure_is_taken_over_too() -> None:
    old = begin(compiled(task("a"), task("page", "a", run_on="failure")))
    old.fail("a", "BOOM")
    old.complete("page", "paged")
    run, _ = rerun(old)
    assert run.started() == ["a"]
    run.fail("a", "BOOM")
    assert run.task("page")["reused_from"] == "run-1"


def test_clean_up_is_never_taken_over() -> None:
    old = begin(compiled(task("a"), finally_=[task("unlock")]))
    old.fail("a")
    old.complete("unlock")
    run, _ = rerun(old)
    run.complete("a")
    assert run.started() == ["unlock"]


def test_an_approval_is_taken_over_for_the_same_commit_only() -> None:
    old = begin(compiled(approval("ok"), task("b", "ok")))
    old.requested("ok")
    old.resolved("ok", "APPROVED")
    old.fail("b")
    run, _ = rerun(old)
    assert run.started() == ["b"]
    run, _ = rerun(old, pin=dataclasses.replace(start().pin, commit_sha="f" * 40))
    assert run.started() == ["ok"]


def test_a_composite_that_completed_is_taken_over_as_a_whole() -> None:
    inside = [task("x", config={"n": "${{ inputs.n }}"}), task("y", "x")]
    body = loop("l", tasks=[task("p")], until="${{ iteration == 1 }}")
    old = begin(compiled(group("g", tasks=inside), body, task("c", "g", "l")))
    for name in ("g.x", "g.y", "l[0].p", "l[1].p"):
        old.complete(name, name)
    old.fail("c")
    run, begun = rerun(old)
    assert run.started() == ["c"]
    assert run.task("g")["outputs"] == "g.y"
    run, _ = rerun(old, inputs={"n": 2})
    assert run.started() == ["g.x"]
    assert verdicts(old.compiled, begun)["g"] == "reuse"


def test_of_a_group_that_failed_the_tasks_that_completed_are_taken_over() -> None:
    old = begin(compiled(group("g", tasks=[task("x"), task("y", "x")])))
    old.complete("g.x", 1)
    old.fail("g.y")
    run, _ = rerun(old)
    assert run.started() == ["g.y"]


def test_of_a_map_that_failed_the_items_that_completed_are_taken_over() -> None:
    made = compiled(
        many("m", items="${{ range(4) }}", tasks=[task("x", config={"i": "${{ item }}"})]),
        task("c", "m"),
        outputs="${{ tasks.m.outputs }}",
    )
    old = begin(made)
    for index in (0, 1, 3):
        old.complete(f"m[{index}].x", index * 10)
    old.fail("m[2].x")
    run, begun = rerun(old)
    assert run.started() == ["m[2].x"]
    assert reasons(made, begun)["m"].endswith("; 3 of its items are reused")
    run.complete("m[2].x", 20)
    assert run.task("m")["outputs"] == [0, 10, 20, 30]


def test_items_of_a_cut_map_reach_their_slices() -> None:
    made = compiled(many("m", items="${{ range(600) }}", tasks=[task("x")], weight=40))
    first = begin(made)
    recorded = [
        {"id": "m", "status": "FAILED", "outputs": [7] * 150 + [None] * 450, "error": None, "attempts": 0}
    ]
    given = carried_of(Plan(made), first.start, recorded)
    assert len(given) == 150
    again = Run(made, dataclasses.replace(first.start, carried=given))
    slices = [c.start for c in again.commands if isinstance(c, StartSlice)]
    assert [len(each.carried) for each in slices] == [100, 50, 0, 0, 0]
    part = Run(made, slices[1])
    assert part.started()[0] == "m[150].x"


def test_nothing_is_carried_into_a_run_that_was_given_nothing() -> None:
    old = begin(compiled(task("a", type="set", values={"n": 1}), task("b", "a")))
    old.fail("b")
    run, begun = rerun(old)
    assert begun.carried == {}
    assert run.started() == ["b"]
    assert reasons(old.compiled, begun)["a"] == "it is worked out anew"
