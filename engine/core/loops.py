"""Loops: one frame after another, each with the state that the one before has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core import reuse
from engine.core.composites import CompositeKind, block_result, retire
from engine.core.contracts import Json, TaskError
from engine.core.error_types import EXPRESSION, LOOP_EXHAUSTED
from engine.core.frames import Frame, Task
from engine.core.task_plan import LoopPlan
from engine.core.values import UNFORESEEN, boolean, mapping, seconds
from engine.core.work import LoopWork

if TYPE_CHECKING:
    from engine.core.course import Course


class LoopKind(CompositeKind):
    """Its tasks, until a condition holds."""

    def launch(self, course: Course, task: Task) -> None:
        """Work out the first state, and open the first iteration."""
        if reuse.whole_taken_over(course, task):
            return
        loop = _loop(task)
        try:
            state = mapping(loop.state.render(course.names(task)), "state")
        except UNFORESEEN as error:
            course.fail(task, TaskError(EXPRESSION, f"state: {error}", task.address))
            return
        task.work = LoopWork(state)
        self.enter(course, task)
        self.fired(course, task)

    def fired(self, course: Course, task: Task) -> None:
        """The pause between two iterations is over."""
        work: LoopWork = task.work
        if course.run.paused:
            course.floor.held[task.address] = task
        elif course.breathless:
            self._pause(course, task, 0.0)
        else:
            course.open(task, work.iteration, {"state": work.state, "iteration": work.iteration})

    def frame_ended(self, course: Course, task: Task, frame: Frame) -> None:
        """An iteration is over: is it enough?"""
        if task.stopping:
            course.cancelled(task)
        elif frame.error is not None:
            course.fail(task, frame.error)
        else:
            before = frame.locals
            try:
                self._judge(course, task, frame)
            except UNFORESEEN as error:
                course.fail(task, TaskError(EXPRESSION, str(error), task.address))
            frame.locals = before
        retire(course, frame)

    def _judge(self, course: Course, task: Task, frame: Frame) -> None:
        loop, work = _loop(task), task.work
        lookup = course.values.of(frame)
        work.state = {**work.state, **mapping(loop.next.render(lookup), "next")}
        frame.locals = {"state": work.state, "iteration": work.iteration}
        if loop.until is not None and boolean(loop.until.render(lookup), "until"):
            result = {"state": work.state, "iterations": work.iteration + 1, "last": block_result(frame)}
            course.complete(task, result, frame=frame)
        elif work.iteration + 1 >= loop.max_iterations:
            times = "once" if work.iteration == 0 else f"in {work.iteration + 1} iterations"
            course.fail(task, TaskError(LOOP_EXHAUSTED, f"until was not met {times}", task.address))
        else:
            pause = 0.0 if loop.interval is None else seconds(loop.interval.render(lookup))
            work.iteration += 1
            if pause > 0:
                self._pause(course, task, pause)
            else:
                self.fired(course, task)

    def _pause(self, course: Course, task: Task, after: float) -> None:
        work: LoopWork = task.work
        work.pauses += 1
        # Numbered: a repeated firing of an earlier pause must not be taken for this one.
        course.floor.start_timer(f"next:{work.pauses}:{task.address}", after, task)


def _loop(task: Task) -> LoopPlan:
    loop: Json = task.plan.special
    assert isinstance(loop, LoopPlan)
    return loop
