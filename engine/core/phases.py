"""The phases of a run: its tasks, their undoing if they failed, `on_failure`, `finally`; and how it stands meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from engine.core import slice_runs, unwinding
from engine.core.contracts import FinishRun, SkipReason, TaskError
from engine.core.plan import FINALLY, ON_FAILURE, TASKS
from engine.core.run_state import OVER, UNSTARTED
from engine.core.states import check_run
from engine.core.verdict import decide_cleanup, decide_refused, decide_tasks

if TYPE_CHECKING:
    from engine.core.course import Course

RUN_TIMER: Final = "run"
CLEANUP_TIMER: Final = "cleanup"
"""Names of timers: the whole time of the run, and that of a phase of its clean-up (with its number behind it)."""


def begin_run(course: Course) -> None:
    """The run begins, and its time counts."""
    course.run.started_at = course.floor.now
    if course.plan.timeout is not None:
        course.floor.start_timer(RUN_TIMER, course.plan.timeout)
    _leave_out_untargeted(course)
    _begin(course, TASKS)


def begin_slice(course: Course) -> None:
    """A slice of a map begins: it has no phases but the tasks, and no time of its own."""
    start = course.run.start
    assert start is not None
    assert start.slice is not None
    course.run.started_at = course.floor.now
    course.run.phase = TASKS
    slice_runs.begin(course, start.slice)


def refuse(course: Course, error: TaskError, verdict: str) -> None:
    """The run ends before it began: nothing was done, so there is nothing to clean up."""
    decide_refused(course.run, error, verdict)
    course.run.queued = False
    for phase in range(TASKS, FINALLY + 1):
        _skip(course, phase, "ended")
    _finish(course)


def advance(course: Course) -> None:
    """Follow everything that an event has set in motion, to its end."""
    run = course.run
    while run.phase not in (UNSTARTED, OVER):
        course.follow()
        if run.frames[run.phase].left > 0:
            break
        if run.unwinding:
            if run.frames[TASKS].unwinding is not None:
                break
            run.unwinding = False
            _after(course, TASKS)
        else:
            _ended(course)
    _show_status(course)


def _leave_out_untargeted(course: Course) -> None:
    start = course.run.start
    if start is None or not start.targets:
        return
    frame = course.run.frames[TASKS]
    left = [frame.block.positions[name] for name in start.targets if name in frame.block.positions]
    wanted: set[int] = set()
    while left:
        position = left.pop()
        if position not in wanted:
            wanted.add(position)
            left += frame.block.tasks[position].predecessors
    for task in frame.tasks:
        if task.plan.position not in wanted:
            course.skip(task, "untargeted")


def _begin(course: Course, phase: int) -> None:
    course.run.phase = phase
    course.run.cut = ""
    frame = course.run.frames[phase]
    for plan in frame.block.free:
        course.look(frame.tasks[plan.position])


def _ended(course: Course) -> None:
    """The phase under way has ended: judge it, unwind what it did if it failed, and go on."""
    run = course.run
    if run.is_slice:
        _finish(course)
    elif run.phase == TASKS:
        course.floor.forget_timer(RUN_TIMER)
        decide_tasks(course.plan, run, course.values)
        if run.verdict != "COMPLETED" and unwinding.begin(course, run.frames[TASKS]):
            run.unwinding = True
        else:
            _after(course, TASKS)
    else:
        course.floor.forget_timer(_cleanup_timer(run.phase))
        decide_cleanup(course.plan, run)
        _after(course, run.phase)


def _after(course: Course, ended: int) -> None:
    """Go on with the next phase that has something to do."""
    run = course.run
    if run.is_slice:
        _finish(course)
        return
    for phase in range(ended + 1, FINALLY + 1):
        if not len(course.plan.blocks[phase]):
            continue
        if run.skip_cleanup:
            _skip(course, phase, "ended")
        elif phase == ON_FAILURE and run.verdict not in ("FAILED", "TIMED_OUT"):
            _skip(course, phase, "condition")
        else:
            if course.plan.cleanup_timeout is not None:
                course.floor.start_timer(_cleanup_timer(phase), course.plan.cleanup_timeout)
            _begin(course, phase)
            return
    _finish(course)


def _skip(course: Course, phase: int, reason: SkipReason) -> None:
    for task in course.run.frames[phase].tasks:
        if task.status == "PENDING":
            course.floor.move(task, "SKIPPED")
            task.skip_reason = reason
            task.finished_at = course.floor.now


def _finish(course: Course) -> None:
    run = course.run
    run.phase = OVER
    run.finished_at = course.floor.now
    if run.is_slice:
        ended = slice_runs.finish(course)
        run.verdict = ended.status
        course.floor.commands.append(ended)
        return
    status: Any = run.verdict
    course.floor.commands.append(FinishRun(status, run.outputs, run.error))


def _show_status(course: Course) -> None:
    run, floor = course.run, course.floor
    if run.phase == OVER:
        status = run.verdict
    elif run.paused:
        status = "PAUSED"
    elif run.queued:
        status = "QUEUED"
    elif run.phase == UNSTARTED:
        return
    else:
        status = "WAITING" if floor.open and floor.gate.used == 0 else "RUNNING"
    if status != run.status:
        direct = status in ("QUEUED", "RUNNING", "PAUSED", "CANCELLED")
        if run.status in ("PENDING", "QUEUED") and not direct:
            _step(course, "RUNNING")
        _step(course, status)


def _step(course: Course, status: str) -> None:
    check_run(course.run.status, status)
    course.run.status = status


def _cleanup_timer(phase: int) -> str:
    return f"{CLEANUP_TIMER}:{phase}"
