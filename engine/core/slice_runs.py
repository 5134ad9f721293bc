"""Runs that are a slice of a map: no phases, only the map, with the items that the slice was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core import unwinding
from engine.core.addresses import static_path
from engine.core.contracts import FinishSlice, Json, Slice
from engine.core.frames import Frame, Task
from engine.core.maps import MAP, brief
from engine.core.plan import Plan
from engine.core.state_json import frame_from_json, frame_to_json
from engine.core.work import MapWork

if TYPE_CHECKING:
    from engine.core.course import Course
    from engine.core.gates import Gate


def frame_of(plan: Plan, part: Slice, gate: Gate) -> Frame:
    """The frame of a slice's run: the map alone, at the address that it has in the run."""
    block = plan.slice_block(static_path(part.task))
    above = part.task.rpartition(".")[0]
    return Frame(block, gate, f"{above}." if above else "")


def begin(course: Course, part: Slice) -> None:
    """Begin to run the slice, or to undo it."""
    frame = course.run.frames[0]
    (task,) = frame.tasks
    if part.undo is None:
        course.look(task)
        return
    task.status, task.order = "COMPLETED", 1
    task.work = MapWork([])
    for index, body in part.undo.items():
        frame_from_json(task, int(index), body)
    frame.left = 0
    course.run.unwinding = unwinding.begin(course, frame)


def drain(course: Course) -> None:
    """Begin no further items. Nothing of it reaches a run that is no slice, or one that undoes."""
    start = course.run.start
    if start is None or start.slice is None or start.slice.undo is not None:
        return
    (task,) = course.run.frames[0].tasks
    if task.work is not None and task.status == "RUNNING":
        task.work.tolerated = -1
        MAP.item_counted(course, task)


def finish(course: Course) -> FinishSlice:
    """What a slice gives back."""
    start = course.run.start
    assert start is not None
    assert start.slice is not None
    (task,) = course.run.frames[0].tasks
    if start.slice.undo is not None:
        return _finish_undo(task)
    undo = {
        str(index): frame_to_json(frame) for index, frame in task.frames.items() if unwinding.has_steps(frame)
    }
    work: MapWork | None = task.work
    return FinishSlice(
        status="COMPLETED" if task.status == "COMPLETED" else "CANCELLED",
        results=task.outputs or [],
        failures=[] if work is None else work.failures,
        error=task.error,
        undo=undo or None,
        ended=course.run.ended,
    )


def _finish_undo(task: Task) -> FinishSlice:
    failures: list[Json] = [
        {"index": index, "error": brief(error)}
        for index, frame in sorted(task.frames.items())
        if (error := unwinding.first_failure(frame)) is not None
    ]
    return FinishSlice("COMPLETED", [], failures, None, None)
