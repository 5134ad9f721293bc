"""Tasks that wait to be told something: by the name of a signal, or by a callback of their own.

A signal that comes before anybody waits for it is kept, and each one feeds one task, in order.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, TypeAlias

from engine.core import reuse
from engine.core.addresses import static_path
from engine.core.calls import digest_of
from engine.core.contracts import MOST_SIGNALS, Json, SignalReceived, TaskError
from engine.core.error_types import EXPRESSION
from engine.core.frames import Task
from engine.core.gates import Key
from engine.core.kind import TaskKind
from engine.core.states import TASK_ENDS
from engine.core.task_plan import SignalPlan
from engine.core.values import UNFORESEEN, text

if TYPE_CHECKING:
    from engine.core.course import Course

Queue: TypeAlias = list[tuple[float, Key, Task]]


class Listeners:
    """Who waits for which signal, first come first: by name, and correlation (None takes any)."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str | None], Queue] = {}

    def add(self, task: Task) -> None:
        """A task begins to wait."""
        queue = self._queues.setdefault((_plan(task).name, task.correlation), [])
        heappush(queue, (task.started_at or 0.0, task.key, task))

    def next(self, name: str, correlation: str) -> Task | None:
        """Who is to be given a signal: the one that has waited longest."""
        found: list[tuple[float, Key, Task]] = []
        for wanted in dict.fromkeys((correlation, None)):
            queue = self._queues.get((name, wanted), [])
            while queue and queue[0][2].status != "WAITING":
                heappop(queue)
            found += queue[:1]
        return min(found)[2] if found else None


class SignalKind(TaskKind):
    """Waits for one signal."""

    def launch(self, course: Course, task: Task) -> None:
        """Take a signal that is there already, or wait for the next."""
        plan = _plan(task)
        try:
            correlation = plan.correlation and plan.correlation.render(course.names(task))
            task.correlation = None if plan.correlation is None else text(correlation, "correlation")
        except UNFORESEEN as error:
            course.fail(task, TaskError(EXPRESSION, f"correlation: {error}", task.address))
            return
        if reuse.taken_over(course, task, lambda: digest_of([plan.name, task.correlation])):
            return
        course.floor.enter(task, "WAITING")
        kept = next((signal for signal in course.run.signals if _fits(task, signal)), None)
        if kept is not None:
            course.run.signals.remove(kept)
            _feed(course, task, kept["payload"])
            return
        course.listeners.add(task)
        if task.plan.timeout is not None:
            course.floor.start_limit(task, task.plan.timeout)


def received(course: Course, event: SignalReceived) -> None:
    """A signal has come: give it to whoever waits for it, or keep it."""
    run = course.run
    if event.id in run.heard:
        return
    task = _addressee(course, event)
    if task is not None and task.status in TASK_ENDS:
        return
    if task is None and not _wanted(course, event):
        return
    if len(run.heard) >= MOST_SIGNALS:
        return  # whoever sends through the API was refused before; others came by Temporal's own tools
    run.heard[event.id] = None
    if task is not None and task.status == "WAITING":
        _feed(course, task, event.payload)
    else:
        run.signals.append(
            {
                "name": event.name,
                "payload": event.payload,
                "correlation": event.correlation,
                "task": event.task,
            }
        )


def _addressee(course: Course, event: SignalReceived) -> Task | None:
    """The task that a signal is for; of one by name, the one that has waited longest."""
    if not event.task:
        return course.listeners.next(event.name, event.correlation)
    found = course.find(event.task)
    return found if found is not None and found.plan.kind == "signal" else None


def _wanted(course: Course, event: SignalReceived) -> bool:
    """Whether a task that is still to come may want a signal."""
    if not event.task:
        return event.name in course.plan.signals
    try:
        return course.plan.task_at(static_path(event.task)).kind == "signal"
    except KeyError:
        return False


def _fits(task: Task, signal: Json) -> bool:
    if signal["task"]:
        return bool(signal["task"] == task.address)
    named = signal["name"] == _plan(task).name
    return named and task.correlation in (None, signal["correlation"])


def _feed(course: Course, task: Task, payload: Json) -> None:
    task.acted = True
    course.complete(task, payload)


def _plan(task: Task) -> SignalPlan:
    plan: Json = task.plan.special
    assert isinstance(plan, SignalPlan)
    return plan
