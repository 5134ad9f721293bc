"""Concurrency groups of tasks: a slot is asked for when it is the task's turn, and given back when the task is over.

A task inside of something that holds a slot of the same group, in this run or in a run above it, enters again without
asking: waiting for oneself would never end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core.contracts import AcquireSlot, TaskError
from engine.core.error_types import EXPRESSION
from engine.core.frames import Frame, Task
from engine.core.values import UNFORESEEN, text

if TYPE_CHECKING:
    from engine.core.course import Course


def must_queue(course: Course, task: Task) -> bool:
    """Of a task whose turn it is: whether it asks for a slot first (or failed at it) instead of beginning."""
    slot = task.plan.slot
    assert slot is not None
    try:
        group = text(slot.group.render(course.names(task)), "concurrency.group")
    except UNFORESEEN as error:
        course.fail(task, TaskError(EXPRESSION, f"concurrency.group: {error}", task.address))
        return True
    if group in groups_around(course, task.frame):
        return False
    task.group = group
    task.stage = "queued"
    task.started_at = course.floor.now
    task.gate.free(task)
    course.floor.enter(task, "WAITING")
    course.floor.commands.append(AcquireSlot(task.address, group, slot.limit, slot.on_conflict))
    return True


def granted(task: Task) -> None:
    """The slot is there: the task waits for a place in the run again."""
    if task.stage == "queued":
        task.stage = "granted"
        task.gate.push(task)


def refused(course: Course, task: Task, error: TaskError) -> None:
    """There will be no slot."""
    if task.stage == "queued":
        task.group = ""
        course.fail(task, TaskError(error.type, error.message, task.address, error.details))


def reissue(course: Course, task: Task) -> None:
    """Ask again: the answer may have been lost with the history, and asking twice changes nothing."""
    slot = task.plan.slot
    assert slot is not None
    course.floor.commands.append(AcquireSlot(task.address, task.group, slot.limit, slot.on_conflict))


def groups_around(course: Course, frame: Frame | None) -> set[str]:
    """The groups that a task in `frame` may enter without asking."""
    start = course.run.start
    held = set(start.groups if start else ()) | ({course.run.group} if course.run.group else set())
    while frame is not None and frame.owner is not None:
        if frame.owner.group:
            held.add(frame.owner.group)
        frame = frame.owner.frame
    return held
