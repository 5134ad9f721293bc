"""Results that an earlier run has already: taken over if the task and what it is told are still the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.core.frames import Task

if TYPE_CHECKING:
    from engine.core.course import Course


def taken_over(course: Course, task: Task, call_digest: Callable[[], str]) -> bool:
    """Whether the task is COMPLETED at once with what an earlier run had of it."""
    start = course.run.start
    if start is None or not start.carried or task.undone is not None:
        return False
    carried = start.carried.get(task.address)
    if carried is None or carried.task_digest != course.plan.digest_of(task.plan.path):
        return False
    if carried.call_digest != call_digest():
        return False
    task.reused_from = carried.execution_id
    task.acted = True
    task.outputs = carried.outputs
    course.floor.end(task, "COMPLETED")
    return True
