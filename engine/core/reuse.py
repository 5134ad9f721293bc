"""Results that an earlier run has already: taken over if the task and what it is told are still the same.

A task is known by two digests: that of its definition, and that of its resolved call.  A map, a loop or a group without
compensations inside is taken over as a whole, and of a map that did not complete, the items that did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from engine.core.calls import digest_of
from engine.core.contracts import Carried, Json
from engine.core.frames import Task
from engine.core.plan import TASKS

if TYPE_CHECKING:
    from engine.core.course import Course


class Carrier:
    """Knows what may be taken over: what `RunStart.carried` says."""

    def look(self, course: Course, address: str, path: str, call_digest: Callable[[], str]) -> Carried | None:
        """What is there of the task (or item) at `address`, whose definition stands at the static path `path`."""
        start = course.run.start
        carried = None if start is None else start.carried.get(address)
        if carried is None or carried.task_digest != course.plan.digest_of(path):
            return None
        return carried if carried.call_digest == call_digest() else None

    def idle(self, course: Course) -> bool:
        """Whether there is nothing to take over at all."""
        return course.run.start is None or not course.run.start.carried


CARRIER: Final = Carrier()


def taken_over(course: Course, task: Task, call_digest: Callable[[], str]) -> bool:
    """Whether the task is COMPLETED at once with what an earlier run had of it. The clean-up is done by each run itself."""
    if course.carrier.idle(course) or task.undone is not None or task.plan.phase != TASKS:
        return False
    carried = course.carrier.look(course, task.address, task.plan.path, call_digest)
    if carried is None:
        return False
    task.reused_from = carried.execution_id
    task.acted = True
    task.outputs = carried.outputs
    course.floor.end(task, "COMPLETED")
    return True


def whole_taken_over(course: Course, task: Task) -> bool:
    """The same of a composite: what it reads from outside is all that it is told. One that may have to be undone is not."""
    if course.carrier.idle(course) or task.plan.body is None or task.plan.body.undoable:
        return False
    return taken_over(course, task, lambda: _outside(course, task))


def item_taken_over(course: Course, task: Task, index: int, item: Json) -> Carried | None:
    """What an earlier run has of one item of a map."""
    body = task.plan.body
    if course.carrier.idle(course) or body is None or body.undoable or task.plan.phase != TASKS:
        return None
    address = f"{task.address}[{index}]"
    return course.carrier.look(
        course, address, task.plan.path, lambda: digest_of([index, item, _outside(course, task)])
    )


def _outside(course: Course, task: Task) -> str:
    reads = course.plan.reads_of(task.plan.path)
    return digest_of(course.values.bindings(reads, task.frame))
