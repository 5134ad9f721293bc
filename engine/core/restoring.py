"""A run taken up again from its JSON: everything that is not written there follows from what is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.core import scope, slices, slots, unwinding
from engine.core.frames import Frame, Task
from engine.core.plan import TASKS
from engine.core.run_state import OVER, UNSTARTED
from engine.core.state_json import restore_run
from engine.core.states import TASK_ENDS

if TYPE_CHECKING:
    from engine.core.course import Course


def restore(course: Course, state: dict[str, Any]) -> None:
    """Put `state` into the fresh run of `course`."""
    run = course.run
    restore_run(run, state)
    if run.phase in (UNSTARTED, OVER):
        return
    frame = run.frames[run.phase]
    frame.stopping = bool(run.cut)
    _restore_frame(course, frame)
    if run.unwinding:
        unwinding.restore(course, run.frames[TASKS])


def reissue(course: Course) -> None:
    """Have under way again what the restored state says is under way."""
    course.rearm()
    for task in sorted(course.floor.open.values(), key=lambda task: task.key):
        if task.stage == "queued":
            slots.reissue(course, task)
        elif task.stage != "granted":
            course.kinds[task.plan.kind].reissue(course, task)
    for frame in course.run.frames:
        for task in unwinding.maps_under_way(frame):
            slices.reissue(course, task)


def _restore_frame(course: Course, frame: Frame) -> None:
    free = scope.recount(frame)
    for task in frame.tasks:
        if task.status in ("RUNNING", "WAITING"):
            _restore_open(course, task)
    for task in free:
        if course.run.paused:
            course.floor.held[task.address] = task
        else:
            task.gate.push(task)


def _restore_open(course: Course, task: Task) -> None:
    floor, kind = course.floor, task.plan.kind
    floor.open[task.address] = task
    task.frame.open[task.plan.position] = None
    if task.in_flight:
        task.gate.occupy(task)
        floor.family += kind == "workflow"
    elif task.stage == "granted" or (task.stage == "pausing" and not task.timer):
        task.gate.push(task)
    if kind == "signal" and task.stage == "":
        course.listeners.add(task)
    if kind == "map" and task.work is not None:
        floor.family += sum(part.holds for part in task.work.parts.values())
    for frame in list(task.frames.values()):
        if frame.unwinding:
            unwinding.restore(course, frame)
        elif not frame.over:
            _restore_frame(course, frame)
    if course.run.paused and _stands_still(task):
        floor.held[task.address] = task


def _stands_still(task: Task) -> bool:
    """Of a map or a loop: whether a pause may be all that keeps it from opening its next frame."""
    if task.stage or task.timer or task.status in TASK_ENDS:
        return False
    if task.plan.kind == "loop":
        return all(frame.over for frame in task.frames.values())
    return task.plan.kind == "map"
