"""How one kind of task behaves: what every kind may have to do, and does not unless it says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core.frames import Frame, Task

if TYPE_CHECKING:
    from engine.core.course import Course


class TaskKind:
    """`queued`: it waits for a place in the run before it is launched."""

    queued = False

    def launch(self, course: Course, task: Task) -> None:
        """Begin it."""
        raise NotImplementedError

    def stop(self, course: Course, task: Task) -> None:
        """Ask it to end, being RUNNING or WAITING. Here: nobody has to be told."""
        course.cancelled(task)

    def reissue(self, course: Course, task: Task) -> None:
        """Have under way again what a restored state says is under way; timers come back by themselves."""

    def fired(self, course: Course, task: Task) -> None:
        """The timer of its next step has fired, or a pause of the run is over that kept it from going on."""

    def frame_ended(self, course: Course, task: Task, frame: Frame) -> None:
        """All tasks of one of its frames have ended."""

    def frame_unwound(self, course: Course, task: Task, frame: Frame) -> None:
        """What one of its frames did is undone, while the task itself is still under way."""
