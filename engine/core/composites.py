"""What map, loop and group have in common: frames inside of a task, what becomes of them, and the `group` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engine.core import reuse
from engine.core.contracts import Json
from engine.core.frames import Frame, Task
from engine.core.kind import TaskKind
from engine.core.values import outputs_of

if TYPE_CHECKING:
    from engine.core.course import Course

KEPT_TASKS: Final = 2_000
"""Tasks of items and iterations that are over, whose states a run keeps to be shown and recorded."""


class CompositeKind(TaskKind):
    """A task that has frames. It runs as long as one of them does."""

    def enter(self, course: Course, task: Task) -> None:
        """It runs from now on, and its time counts."""
        course.floor.enter(task, "RUNNING")
        if task.plan.timeout is not None:
            course.floor.start_limit(task, task.plan.timeout)

    def stop(self, course: Course, task: Task) -> None:
        """End what is inside; the task ends with the last of it."""
        under_way = [frame for frame in task.frames.values() if not frame.over]
        for frame in under_way:
            course.cut(frame)
        if not under_way:
            course.cancelled(task)


class GroupKind(CompositeKind):
    """A DAG in a task."""

    def launch(self, course: Course, task: Task) -> None:
        """Open its one frame."""
        if reuse.whole_taken_over(course, task):
            return
        self.enter(course, task)
        course.open(task, 0, {})

    def frame_ended(self, course: Course, task: Task, frame: Frame) -> None:
        """The group ends as its frame did."""
        frame.over = True
        result = block_result(frame)
        if task.stopping:
            course.cancelled(task)
        elif frame.error is not None:
            course.fail(task, frame.error)
        else:
            course.complete(task, result, frame=frame)
            thin_out(frame)


def block_result(frame: Frame) -> Json:
    """What a pass through a block gives if nothing else is said: what its only last task gives, else that of each last one."""
    last = [frame.tasks[plan.position] for plan in frame.block.last]
    if len(last) == 1:
        return outputs_of(last[0])
    return {task.plan.id: outputs_of(task) for task in last}


def retire(course: Course, frame: Frame) -> None:
    """An item or an iteration is over: keep what a compensation may want, and states to be shown while they are few."""
    owner = frame.owner
    assert owner is not None
    frame.over = True
    run = course.run
    if not frame.block.undoable and run.kept + len(frame.tasks) > KEPT_TASKS:
        del owner.frames[frame.index]
        frame.tasks = []  # they know the frame: without them nothing has to be searched for as garbage
        return
    run.kept += len(frame.tasks)
    thin_out(frame)


def thin_out(frame: Frame) -> None:
    """Nobody reads the outputs of its tasks any more, unless compensations do."""
    wanted = frame.block.undo_reads
    for task in frame.tasks:
        if task.plan.id not in wanted:
            task.outputs = None
    if not frame.block.undoable:
        frame.locals = {}
