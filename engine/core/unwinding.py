"""Undoing what was done, after a failure: compensations one at a time, in reverse order of completion.

What is unwound is a frame: that of the run's own tasks, or that of a map's item.  Groups and loops inside of it are
looked through; a map inside of it is one step, whose items are unwound beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.core import slices
from engine.core.contracts import TaskError
from engine.core.frames import Frame, Task, undo_of
from engine.core.states import TASK_ENDS

if TYPE_CHECKING:
    from engine.core.course import Course


class Unwinding:
    """The steps that are left in a frame, the next one last, and the one under way."""

    __slots__ = ("current", "steps")

    def __init__(self, steps: list[Task]) -> None:
        self.steps = steps
        self.current: Task | None = None


def begin(course: Course, frame: Frame) -> bool:
    """Begin to unwind a frame; False if there is nothing to undo in it."""
    if not frame.block.undoable or course.run.skip_cleanup:
        return False
    steps = _steps(frame)
    if not steps:
        return False
    frame.unwinding = Unwinding(steps)
    return _next(course, frame)


def settle(course: Course, undo: Task, error: TaskError | None) -> None:
    """A compensation is over; a failing one is recorded, and the others go on."""
    course.floor.end_undo(undo, "COMPLETED" if error is None else "FAILED")
    undo.error = error
    task = undo.undone
    assert task is not None
    task.compensation = "DONE" if error is None else "FAILED"
    step_over(course, task)


def step_over(course: Course, task: Task) -> None:
    """The step that undid `task` is over: on to the next of the frame that it belongs to."""
    frame: Frame | None = task.frame
    while frame is not None and (frame.unwinding is None or frame.unwinding.current is not task):
        frame = frame.around
    assert frame is not None
    if not _next(course, frame):
        _over(course, frame)


def item_over(course: Course, task: Task) -> None:
    """An item of a map, or a slice of it, is unwound. The step is over with the last of them."""
    if task.work.parts or any(frame.unwinding is not None for frame in task.frames.values()):
        return
    failed = task.work.undo_failed or any(first_failure(frame) for frame in task.frames.values())
    task.compensation = "FAILED" if failed else "DONE"
    step_over(course, task)


def abandon(course: Course, frame: Frame) -> None:
    """Skip what is left, here and inside; a compensation that runs is asked to end."""
    if frame.unwinding is not None and frame.unwinding.current is not None:
        _abandon_step(course, frame.unwinding.current)
        return
    for task in frame.tasks:
        for inner in list(task.frames.values()):
            abandon(course, inner)


def restore(course: Course, frame: Frame) -> None:
    """Take up again what a restored state says is being unwound."""
    frame.unwinding = unwinding = Unwinding(_steps(frame))
    task = unwinding.current = unwinding.steps.pop()
    if task.plan.kind == "map":
        course.floor.family += sum(part.holds for part in task.work.parts.values())
        for inner in task.frames.values():
            if inner.unwinding is not None:
                restore(course, inner)
    elif task.undo is None:
        _push(task)
    else:
        course.floor.open[task.undo.address] = task.undo
        task.gate.occupy(task.undo)


def maps_under_way(frame: Frame) -> Iterator[Task]:
    """The cut maps that are being undone, in a frame and inside of it."""
    if frame.unwinding is not None and frame.unwinding.current is not None:
        task: Task = frame.unwinding.current
        if task.plan.kind == "map":
            yield task
            for inner in task.frames.values():
                yield from maps_under_way(inner)
        return
    for task in frame.tasks:
        for inner in task.frames.values():
            yield from maps_under_way(inner)


def _next(course: Course, frame: Frame) -> bool:
    """Begin the next step of a frame; False if none is left."""
    unwinding: Unwinding = frame.unwinding
    while unwinding.steps and not course.run.skip_cleanup:
        task = unwinding.current = unwinding.steps.pop()
        if task.plan.kind != "map":
            _push(task)
            return True
        if _begin_map(course, task):
            return True
    frame.unwinding = None
    return False


def _begin_map(course: Course, task: Task) -> bool:
    under_way = [begin(course, frame) for frame in list(task.frames.values()) if frame.over]
    return slices.feed_undo(task) or any(under_way)


def _over(course: Course, frame: Frame) -> None:
    """A frame is unwound."""
    owner = frame.owner
    if owner is None:
        return  # the run goes on by itself
    if owner.status in TASK_ENDS:
        item_over(course, owner)
    else:
        course.kinds["map"].frame_unwound(course, owner, frame)


def _abandon_step(course: Course, task: Task) -> None:
    if task.plan.kind == "map":
        slices.stop(course, task)
        under_way = [frame for frame in task.frames.values() if frame.unwinding is not None]
        for frame in under_way:
            abandon(course, frame)
        if not under_way and not task.work.parts:
            step_over(course, task)
        return
    undo = task.undo
    assert undo is not None
    if undo.status == "PENDING":
        undo.gate.drop(undo)
        task.undo = None
        step_over(course, task)
    else:
        course.stop(undo)


def _push(task: Task) -> None:
    undo = task.undo = undo_of(task)
    undo.gate.push(undo)


def _steps(frame: Frame) -> list[Task]:
    return sorted(_undoable(frame), key=lambda task: task.order)


def _undoable(frame: Frame) -> Iterator[Task]:
    for task in frame.tasks:
        if task.compensation:
            continue
        if task.plan.kind == "map":
            if _has_items_to_undo(task):
                yield task
        elif task.plan.body is not None:
            for inner in task.frames.values():
                yield from _undoable(inner)
        elif task.plan.undo is not None and _took_effect(task):
            yield task


def _has_items_to_undo(task: Task) -> bool:
    if task.work is None:
        return False
    return bool(task.work.undo) or any(has_steps(frame) for frame in task.frames.values())


def _took_effect(task: Task) -> bool:
    if task.cached_from:
        return False
    return task.acted or (task.plan.undo_started and task.attempts > 0)


def has_steps(frame: Frame) -> bool:
    """Whether something in a frame is to be undone, should it come to that."""
    return frame.block.undoable and next(_undoable(frame), None) is not None


def first_failure(frame: Frame) -> TaskError | None:
    """The first compensation of a frame that failed, in the order of the definition."""
    for task in frame.tasks:
        if task.undo is not None and task.undo.error is not None:
            return task.undo.error
        for inner in task.frames.values():
            if (error := first_failure(inner)) is not None:
                return error
    return None
