"""Who waits for whom in a frame, and what the ends of the dependencies allow.

An end touches its successors only: counters, no scans.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.core.frames import Frame, Task
from engine.core.states import TASK_ENDS


def ended(task: Task) -> Iterator[Task]:
    """Tell the successors of a task that has ended; yields those that now wait for nobody. To be read to its end."""
    frame, plan = task.frame, task.plan
    frame.left -= 1
    completed = task.status == "COMPLETED"
    failed = task.status == "FAILED" or task.failed_upstream
    tolerated = task.status == "FAILED" and plan.continue_on_failure
    satisfies = completed or tolerated or task.skip_reason == "condition"
    for position in plan.successors:
        successor = frame.tasks[position]
        successor.missing -= 1
        successor.completed += completed
        successor.failed += failed
        if not satisfies:
            successor.blocked += 1
            successor.blocked_by_failure += failed
        if successor.missing == 0:
            yield successor


def recount(frame: Frame) -> list[Task]:
    """The counters as they stood when the frame was saved; gives the tasks that are free to start, in order."""
    for task in frame.tasks:
        if task.status in TASK_ENDS:
            for _ in ended(task):
                pass
    return [task for task in frame.tasks if task.status == "PENDING" and task.missing == 0]


def allows(task: Task) -> bool:
    """Whether the dependencies ended as `run_on` asks."""
    match task.plan.run_on:
        case "success":
            return task.blocked == 0
        case "any_success":
            return task.completed > 0 or not task.plan.predecessors
        case "failure":
            return task.failed > 0
        case _:
            return True


def failure_upstream(task: Task) -> bool:
    """Of a task that `allows` refused: whether it is skipped because an ancestor FAILED."""
    if task.plan.run_on == "success":
        return task.blocked_by_failure > 0
    return task.failed > 0
