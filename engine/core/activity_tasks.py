"""Tasks whose work is an activity: ordinary ones, and those that wait for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core import approval_tasks, reuse
from engine.core.calls import call_digest, call_of, start_command
from engine.core.contracts import CancelActivity, TaskError
from engine.core.error_types import EXPRESSION
from engine.core.frames import Task
from engine.core.kind import TaskKind
from engine.core.values import UNFORESEEN

if TYPE_CHECKING:
    from engine.core.course import Course


class ActivityKind(TaskKind):
    """An activity; a compensation is one as well."""

    queued = True

    def launch(self, course: Course, task: Task) -> None:
        """Resolve its config and start it, unless an earlier run has its result already."""
        assert course.run.start is not None
        try:
            call = call_of(course.plan, course.run.start, task, course.values)
        except UNFORESEEN as error:
            course.fail(task, TaskError(EXPRESSION, f"config: {error}", task.address))
            return
        if reuse.taken_over(course, task, lambda: call_digest(call)):
            return
        task.attempts = 1
        self._enter(course, task)
        course.floor.commands.append(start_command(task, call))

    def _enter(self, course: Course, task: Task) -> None:
        course.floor.enter(task, "RUNNING")

    def stop(self, course: Course, task: Task) -> None:
        """Its end will be told."""
        course.floor.commands.append(CancelActivity(task.address))

    def reissue(self, course: Course, task: Task) -> None:
        """Start it again: the attempts it had are lost, its idempotency key is the same."""
        assert course.run.start is not None
        call = call_of(course.plan, course.run.start, task, course.values)
        course.floor.commands.append(start_command(task, call))
        if task.stopping and task.status == "RUNNING":
            course.floor.commands.append(CancelActivity(task.address))


class ApprovalKind(ActivityKind):
    """A request to people, made by an activity; then nothing runs until they have decided."""

    def _enter(self, course: Course, task: Task) -> None:
        task.stage = "requesting"
        course.floor.enter(task, "WAITING")

    def stop(self, course: Course, task: Task) -> None:
        """A request that is being made or closed is waited for: only its row knows how it stands."""
        if task.stage == "open":
            approval_tasks.close(course.floor, task)

    def reissue(self, course: Course, task: Task) -> None:
        """Make the request, or close it."""
        if task.stage == "requesting":
            super().reissue(course, task)
        else:
            approval_tasks.reissue(course.floor, task)

    def fired(self, course: Course, task: Task) -> None:
        """The deadline has passed."""
        approval_tasks.expire(course.floor, task)
