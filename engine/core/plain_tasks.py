"""Tasks that need nothing but the brain and a clock: `set`, `wait` and `end`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.core import reuse
from engine.core.calls import digest_of
from engine.core.contracts import TaskError
from engine.core.error_types import EXPRESSION
from engine.core.frames import Task
from engine.core.kind import TaskKind
from engine.core.task_plan import EndPlan
from engine.core.values import UNFORESEEN, moment, seconds, text, time_left

if TYPE_CHECKING:
    from engine.core.course import Course


class SetKind(TaskKind):
    """Values worked out here and now."""

    def launch(self, course: Course, task: Task) -> None:
        """Its outputs are its values."""
        try:
            values = task.plan.values.render(course.names(task))
        except UNFORESEEN as error:
            course.fail(task, TaskError(EXPRESSION, f"values: {error}", task.address))
        else:
            course.complete(task, values)


class WaitKind(TaskKind):
    """Until a time, or for a while."""

    def launch(self, course: Course, task: Task) -> None:
        """Start its timer, unless its time has come already."""
        plan, floor = task.plan, course.floor
        try:
            if plan.until is not None:
                left = time_left(moment(plan.until.render(course.names(task))), floor.now)
            else:
                left = seconds(plan.duration.render(course.names(task)) if plan.duration else 0)
        except UNFORESEEN as error:
            course.fail(task, TaskError(EXPRESSION, str(error), task.address))
            return
        told = plan.until if plan.until is not None else plan.duration
        if reuse.taken_over(course, task, lambda: digest_of(told and told.render(course.names(task)))):
            return
        if left <= 0:
            course.complete(task, {})
            return
        floor.enter(task, "WAITING")
        floor.start_timer(f"wait:{task.address}", left, task)

    def fired(self, course: Course, task: Task) -> None:
        """Its time has come."""
        course.complete(task, {})


class EndKind(TaskKind):
    """The run ends here, whatever else is under way."""

    def launch(self, course: Course, task: Task) -> None:
        """Say how, and have everything else end."""
        plan = task.plan.special
        assert isinstance(plan, EndPlan)
        lookup = course.names(task)
        try:
            outputs = None if plan.outputs is None else plan.outputs.render(lookup)
            message = "" if plan.message is None else text(plan.message.render(lookup), "message")
        except UNFORESEEN as error:
            course.fail(task, TaskError(EXPRESSION, str(error), task.address))
            return
        said: dict[str, Any] = {"status": plan.status, "outputs": outputs, "message": message}
        course.complete(task, outputs if outputs is not None else {})
        course.end_run(said | {"task": task.address})
