"""Runs that a run starts: children of tasks of type `workflow`, and slices of large maps."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from engine.core.contracts import (
    CancelChild,
    CancelRequested,
    CancelSlice,
    ChildEnded,
    Command,
    DrainSlice,
    FinishSlice,
    PauseRequested,
    RunStart,
    SliceDrained,
    SliceEnded,
    StartActivity,
    StartChild,
    StartSlice,
    TaskError,
    TellFamily,
)
from engine.core.ids import child_id
from tests.support.definitions import definition, many, retry, start, task, undo
from tests.support.driver import Run


def over(run: Run) -> Any:
    finish = run.finish()
    assert finish is not None, run.brain.snapshot()
    return finish


# --- children ---


def version(name: str, **calls: str) -> dict[str, Any]:
    return {
        "workflow": name,
        "source": "main",
        "commit_sha": "e" * 40,
        "revision_sha": "d" * 40,
        "digest": name * 2,
        "compiled_digest": name * 3,
        "bundle_digest": "",
        "dsl": "1",
        "size": 500,
        "calls": calls,
    }


def pinned(**more: Any) -> RunStart:
    begun = start()
    calls = {"smoke@same": "main/smoke@e", "deep@latest": "main/deep@e"}
    closure = {
        "main/smoke@e": version("smoke", **{"leaf@same": "main/leaf@e"}),
        "main/deep@e": version("deep"),
        "main/leaf@e": version("leaf"),
    }
    return dataclasses.replace(
        begun, pin=dataclasses.replace(begun.pin, calls=calls, closure=closure), **more
    )


def child(name: str, *after: str, **fields: Any) -> dict[str, Any]:
    return task(
        name, *after, **{"type": "workflow", "workflow": "smoke", "ref": "same", "timeout": None} | fields
    )


def ended(
    run: Run, name: str, status: Any, outputs: Any = None, attempt: int = 1, **error: Any
) -> list[Command]:
    told = TaskError(**error) if error else None
    return run.tell(ChildEnded(name, attempt, status, outputs, told, run.clock))


def test_a_child_is_started_on_the_version_that_the_pin_names_with_its_own_closure() -> None:
    callback = {"base": "https://x.test", "key": "k"}
    run = Run(
        definition(child("c", inputs={"n": "${{ 1 + 1 }}"})), pinned(callback=callback, groups=("release",))
    )
    (command,) = run.commands
    assert isinstance(command, StartChild)
    begun = command.start
    assert begun.execution_id == child_id("run-1", "c", 1)
    assert (begun.pin.workflow, begun.pin.digest) == ("smoke", "smokesmoke")
    assert begun.pin.calls == {"leaf@same": "main/leaf@e"}
    assert list(begun.pin.closure) == ["main/leaf@e"]
    assert begun.inputs == {"n": 2}
    assert begun.parent is not None
    assert (begun.parent.execution_id, begun.parent.task, begun.parent.root_id, begun.parent.depth) == (
        "run-1",
        "c",
        "run-1",
        1,
    )
    assert begun.groups == ("release",)
    assert begun.callback["base"] == "https://x.test"
    assert begun.callback["key"] not in ("", "k")
    assert (command.size, command.attempt) == (500, 1)


def test_the_outputs_of_a_child_are_those_of_its_task() -> None:
    run = Run(
        definition(child("c", outputs={"x": "${{ result.n }}"}), outputs="${{ tasks.c.outputs }}"), pinned()
    )
    ended(run, "c", "COMPLETED", {"n": 1})
    assert over(run).outputs == {"x": 1}
    assert run.task("c")["child_id"] == child_id("run-1", "c", 1)


def test_a_failed_child_fails_its_task_with_its_error() -> None:
    run = Run(definition(child("c")), pinned())
    ended(run, "c", "FAILED", type="HTTP_5XX", message="no", task="probe")
    assert over(run).error.type == "HTTP_5XX"
    assert over(run).error.task == "c"
    assert over(run).error.details == {"child_id": child_id("run-1", "c", 1), "task": "probe"}


def test_a_further_attempt_is_a_run_of_its_own_after_a_pause_that_holds_no_place() -> None:
    run = Run(
        definition(child("c", retry=retry(2, initial_interval=5.0)), task("a"), max_concurrency=1), pinned()
    )
    assert run.started() == []
    ended(run, "c", "FAILED", type="BOOM", message="no")
    assert run.timers() == {"retry:1:c": 5.0}
    assert run.started() == ["a"]
    run.complete("a")
    run.fire("retry:1:c")
    (command,) = run.commands
    assert isinstance(command, StartChild)
    assert command.start.execution_id == child_id("run-1", "c", 2)
    assert ended(run, "c", "COMPLETED", attempt=1) == []
    ended(run, "c", "COMPLETED", attempt=2)
    assert over(run).status == "COMPLETED"
    assert run.task("c")["attempts"] == 2


def test_a_child_whose_inputs_do_not_fit_is_not_tried_again() -> None:
    run = Run(definition(child("c", retry=retry(3))), pinned())
    ended(run, "c", "FAILED", type="INPUTS", message="no")
    assert over(run).error.type == "INPUTS"


def test_a_cancel_goes_through_to_the_child() -> None:
    run = Run(definition(child("c")), pinned())
    run.cancel(reason="enough")
    assert CancelChild("c", "enough") in run.commands
    ended(run, "c", "CANCELLED")
    assert over(run).status == "CANCELLED"
    assert run.task("c")["status"] == "CANCELLED"


def test_a_second_cancel_goes_through_to_the_child_too() -> None:
    run = Run(definition(child("c"), child("d", retry=retry(2))), pinned())
    ended(run, "d", "FAILED", type="BOOM", message="no")  # between two attempts: there is nobody to tell
    run.cancel()
    run.cancel(reason="now")
    assert run.commands == [CancelChild("c", "enough")]
    ended(run, "c", "CANCELLED")
    assert over(run).status == "CANCELLED"


def test_a_child_that_was_cancelled_by_somebody_else_fails_its_task() -> None:
    run = Run(definition(child("c", retry=retry(3))), pinned())
    ended(run, "c", "CANCELLED")
    assert over(run).error.type == "CANCELLED"


def test_the_whole_time_of_a_child_ends_it() -> None:
    run = Run(definition(child("c", timeout=60.0)), pinned())
    run.fire("timeout:c")
    assert CancelChild("c") in run.commands
    ended(run, "c", "CANCELLED")
    assert over(run).error.type == "TIMEOUT"


def test_a_child_chosen_by_an_expression_must_be_in_the_pin() -> None:
    chosen = child("c", workflow="${{ inputs.which }}", ref="latest", one_of=["deep"])
    inputs = {"type": "object", "properties": {"which": {"type": "string"}}}
    run = Run(definition(chosen, inputs=inputs), dataclasses.replace(pinned(), inputs={"which": "deep"}))
    assert isinstance(run.commands[0], StartChild)
    run = Run(definition(chosen, inputs=inputs), dataclasses.replace(pinned(), inputs={"which": "evil"}))
    assert over(run).error.type == "EXPRESSION"


def test_a_pause_is_handed_on_while_there_are_children() -> None:
    run = Run(definition(child("c"), task("a", "c")), pinned())
    assert run.tell(PauseRequested("bob", "lunch", run.clock, "p")) == [TellFamily("pause", "bob", "lunch")]
    ended(run, "c", "COMPLETED")
    assert run.started() == []


def test_a_child_is_started_again_under_its_own_id_after_a_restart() -> None:
    run = Run(definition(child("c", retry=retry(2))), pinned())
    ended(run, "c", "FAILED", type="BOOM", message="no")
    run.restore()
    run.fire("retry:1:c")
    run.restore()
    (command,) = run.commands
    assert isinstance(command, StartChild)
    assert (command.attempt, command.start.execution_id) == (2, child_id("run-1", "c", 2))


def test_a_completed_child_is_undone_by_its_tasks_own_compensation() -> None:
    run = Run(definition(child("c", compensate=undo()), task("a", "c")), pinned())
    ended(run, "c", "COMPLETED", 1)
    run.fail("a")
    assert run.started() == ["c~undo"]


# --- slices ---

INPUTS = {"type": "object", "properties": {"n": {"type": "integer"}, "by": {"type": "integer"}}}


def large(*body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A map over `inputs.n` items, cut into slices of 100."""
    tasks = list(body) or [task("a", config={"x": "${{ item * inputs.by }}"})]
    made = many("m", items="${{ range(inputs.n) }}", tasks=tasks, weight=40, **fields)
    return definition(made, task("after", "m"), inputs=INPUTS, outputs="${{ tasks.m.outputs }}")


class Family:
    """A run and its slices, each with a brain of its own."""

    def __init__(self, compiled: dict[str, Any], items: int, **options: Any) -> None:
        self.compiled = compiled
        self.slices: dict[int, Run] = {}
        self.most = 0
        self.root = Run(compiled, dataclasses.replace(start(n=items, by=10), **options))

    def begin(self) -> list[int]:
        """Begin the slices that the last event of the root asked for."""
        begun = [c for c in self.root.commands if isinstance(c, StartSlice)]
        for command in begun:
            part = command.start.slice
            assert part is not None
            self.slices[part.offset] = Run(self.compiled, command.start)
        self.most = max(self.most, len(self.slices))
        return [c.start.slice.offset for c in begun if c.start.slice is not None]

    def end(self, offset: int) -> list[Command]:
        """Tell the root how a slice ended."""
        last = self.slices.pop(offset).history[-1]
        assert isinstance(last, FinishSlice), last
        undo = json.loads(json.dumps(last.undo))
        return self.root.tell(
            SliceEnded(
                "m",
                offset,
                last.status,
                last.results,
                last.failures,
                last.error,
                undo,
                self.root.clock,
                last.ended,
            )
        )

    def work(self, offset: int, fails: tuple[int, ...] = ()) -> None:
        """Have every activity of a slice end."""
        run = self.slices[offset]
        waiting = run.started()
        while waiting:
            name = waiting.pop(0)
            index = int(name.partition("[")[2].partition("]")[0])
            if index in fails:
                run.fail(name)
            else:
                run.complete(name, run.command(name).call.config.get("x"))
            waiting += run.started()


def test_a_large_map_is_cut_into_slices_that_know_all_they_read() -> None:
    family = Family(large(), 1_050)
    offsets = family.begin()
    assert offsets == [0, 100, 200, 300, 400]
    command = family.root.commands[0]
    assert isinstance(command, StartSlice)
    part = command.start.slice
    assert part is not None
    assert (part.task, part.offset, part.items, part.bindings) == (
        "m",
        0,
        list(range(100)),
        {"inputs.by": 10},
    )
    assert command.start.inputs == {}
    assert 0 < part.limit <= 100
    while offsets:
        offset = offsets.pop(0)
        family.work(offset)
        family.end(offset)
        offsets += family.begin()
    assert family.root.started() == ["after"]
    family.root.complete("after")
    assert over(family.root).outputs == [10 * n for n in range(1_050)]
    assert family.most == 5


def test_a_slice_uses_the_addresses_of_the_whole_map() -> None:
    family = Family(large(), 600)
    family.begin()
    run = family.slices[100]
    assert run.started()[0] == "m[100].a"
    command = run.command("m[100].a")
    assert command.call.idempotency_key == "run-1/m[100].a"
    assert len(run.started()) <= 100


def test_failures_of_all_slices_count_together() -> None:
    family = Family(large(tolerated_failures={"count": 2}), 600)
    offsets = family.begin()
    while offsets:
        offset = offsets.pop(0)
        family.work(offset, fails=(5, 105, 205))
        family.end(offset)
        offsets += family.begin()
    error = over(family.root).error
    assert error.type == "ITEMS_FAILED"
    assert [f["index"] for f in error.details["failures"]] == [5, 105, 205]
    assert family.root.task("m")["items"] == {"total": 600, "completed": 597, "failed": 3}


def stop_at_the_first_failure(family: Family) -> None:
    """The first item of the first slice fails; whatever its slice has under way ends as it was asked to."""
    run = family.slices[0]
    begun = run.started()
    run.fail("m[0].a")
    ended = run.stopped()
    assert run.started() == []
    for name in begun[1:]:
        if name in ended:
            run.cancelled(name)
        else:
            run.complete(name, 1)


def test_under_drain_one_failure_too_many_ends_a_slice_with_what_it_has_under_way_and_drains_the_others() -> (
    None
):
    compiled = large(task("a"), max_concurrency=300) | {"on_task_failure": "drain", "max_concurrency": 80}
    family = Family(compiled, 600)
    assert family.begin() == [0, 100, 200]
    others = {offset: family.slices[offset].started() for offset in (100, 200)}
    stop_at_the_first_failure(family)
    family.end(0)
    assert family.root.commands == [DrainSlice("m", 100), DrainSlice("m", 200)]
    family.root.restore()
    assert [c for c in family.root.commands if isinstance(c, DrainSlice)] == [
        DrainSlice("m", 100),
        DrainSlice("m", 200),
    ]
    for offset, under_way in others.items():
        run = family.slices[offset]
        run.tell(SliceDrained(run.clock))
        assert run.commands == []  # what is under way goes on
        for name in under_way:
            run.complete(name, 1)
        family.end(offset)
    assert over(family.root).error.type == "ITEMS_FAILED"
    assert family.root.task("m")["items"] == {"total": 600, "completed": 59, "failed": 1}
    assert family.root.task("m")["outputs"].count(1) == 59


def test_under_cancel_one_failure_too_many_ends_a_slice_and_the_others_at_once() -> None:
    family = Family(large(task("a")) | {"on_task_failure": "cancel"}, 600)
    family.begin()
    stop_at_the_first_failure(family)
    family.end(0)
    assert [c.offset for c in family.root.commands if isinstance(c, CancelSlice)] == [100, 200, 300, 400]
    told = family.root.task("m")["items"]
    assert (told["completed"], told["failed"]) == (0, 1)


def test_a_slice_bears_the_failures_that_the_map_can_still_bear() -> None:
    family = Family(large(task("a"), tolerated_failures={"count": 3}) | {"on_task_failure": "drain"}, 600)
    family.begin()
    family.work(0, fails=(5, 6))
    family.end(0)
    assert family.begin() == [500]
    part = family.slices[500].start.slice
    assert part is not None
    assert part.tolerated == 1


def test_a_word_to_drain_reaches_nobody_but_a_slice_at_work() -> None:
    run = Run(definition(task("a")))
    assert run.tell(SliceDrained(run.clock)) == []
    assert run.task("a")["status"] == "RUNNING"


def test_a_small_limit_of_the_map_runs_one_slice_at_a_time() -> None:
    family = Family(large(max_concurrency=5), 600)
    assert family.begin() == [0]
    run = family.slices[0]
    assert len(run.started()) == 5


def test_the_limit_of_the_run_holds_over_all_slices() -> None:
    compiled = large() | {"max_concurrency": 60}
    family = Family(compiled, 600)
    family.begin()
    assert 1 <= sum(len(run.started()) for run in family.slices.values()) <= 60


def test_a_cancel_reaches_the_slices_and_keeps_what_they_did() -> None:
    family = Family(large(), 600)
    family.begin()
    family.root.cancel()
    assert [c.offset for c in family.root.commands if isinstance(c, CancelSlice)] == [0, 100, 200, 300, 400]
    for offset in sorted(family.slices):
        run = family.slices[offset]
        begun = [c.task for c in run.history if isinstance(c, StartActivity)]
        run.complete(begun[0], 1)
        run.tell(CancelRequested("bob", "", run.clock))
        for name in [
            t["id"] for t in run.brain.snapshot()["tasks"] if t["status"] == "RUNNING" and t["id"] != "m"
        ]:
            run.cancelled(name)
        family.end(offset)
    assert over(family.root).status == "CANCELLED"


def test_a_cut_map_is_undone_slice_by_slice() -> None:
    body = task("a", compensate=undo(config={"was": "${{ tasks.a.outputs }}", "of": "${{ item }}"}))
    family = Family(large(body), 150)
    offsets = family.begin()
    while offsets:
        offset = offsets.pop(0)
        family.work(offset)
        family.end(offset)
        offsets += family.begin()
    family.root.fail("after")
    offsets = family.begin()
    assert offsets == [0, 100]
    run = family.slices[100]
    assert len(run.started()) == 50
    assert run.command("m[149].a~undo").call.config == {"was": None, "of": 149}
    again = SliceEnded("m", 0, "COMPLETED", [1] * 100, [], None, None, family.root.clock)
    assert family.root.tell(again) == []  # the end of the slice that did the work, told once more
    while offsets:
        offset = offsets.pop(0)
        family.work(offset, fails=(149,))
        family.end(offset)
    assert over(family.root).status == "FAILED"
    assert family.root.task("m")["compensation"] == "FAILED"


def test_a_second_cancel_ends_the_undoing_of_a_cut_map() -> None:
    body = task("a", compensate=undo(config={"of": "${{ item }}"}))
    family = Family(large(body), 150)
    for offset in family.begin():
        family.work(offset)
        family.end(offset)
    family.root.fail("after")
    family.begin()
    family.root.cancel()
    assert family.root.commands == []  # one cancel lets the clean-up finish
    family.root.cancel()
    assert family.root.commands == [CancelSlice("m", offset) for offset in (0, 0, 100, 100)]
    for offset in (0, 100):
        part = family.slices[offset]
        under_way = part.started()
        part.cancel()
        part.cancel()
        assert part.stopped() == under_way
        for name in under_way:
            part.cancelled(name)
        family.end(offset)
    assert over(family.root).status == "FAILED"


def test_an_end_inside_of_a_slice_ends_the_run() -> None:
    body = task("stop", type="end", status="COMPLETED", outputs="${{ item }}", when="${{ item == 107 }}")
    family = Family(large(body), 600)
    family.begin()
    family.end(100)
    assert [c.offset for c in family.root.commands if isinstance(c, CancelSlice)] == [0, 200, 300, 400]
    for offset in sorted(family.slices):
        family.slices[offset].cancel()
        family.end(offset)
    assert (over(family.root).status, over(family.root).outputs) == ("COMPLETED", 107)


def test_a_slice_that_is_lost_fails_its_items() -> None:
    family = Family(large(), 150)
    family.begin()
    family.root.tell(SliceEnded("m", 0, "FAILED", [], [], TaskError("LOST", "no"), None, 1.0))
    family.work(100)
    family.end(100)
    assert over(family.root).error.type == "ITEMS_FAILED"
    assert family.root.task("m")["items"] == {"total": 150, "completed": 50, "failed": 100}


def test_repeated_ends_of_slices_change_nothing() -> None:
    family = Family(large(), 600)
    family.begin()
    family.work(100)
    again = SliceEnded("m", 100, "COMPLETED", [1] * 100, [], None, None, 1.0)
    family.end(100)
    before = family.root.brain.to_json()
    assert family.root.tell(again) == []
    assert family.root.tell(dataclasses.replace(again, offset=7)) == []
    assert family.root.tell(dataclasses.replace(again, task="after")) == []
    assert family.root.brain.to_json() == before


def test_slices_are_started_again_after_a_restart() -> None:
    family = Family(large(), 600)
    family.begin()
    before = family.root.commands
    assert family.root.restore() == before


def test_a_map_that_must_stay_whole_has_an_end() -> None:
    run = Run(definition(many("m", items="${{ range(1001) }}", tasks=[task("a")], whole=True)))
    assert over(run).error.type == "MAP_TOO_LARGE"


def test_a_slice_goes_on_from_its_json() -> None:
    family = Family(large(), 600)
    family.begin()
    run = family.slices[100]
    run.complete("m[100].a", 1)
    running = len([t for t in run.brain.snapshot()["tasks"] if t["status"] == "RUNNING"]) - 1
    run.restore()
    assert len(run.started()) == running
    family.work(100)
    assert isinstance(run.history[-1], FinishSlice)
