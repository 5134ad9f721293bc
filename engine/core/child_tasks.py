"""Tasks that are runs of their own: children, pinned by the root's start, a new run for each attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.core import reuse
from engine.core.attempts import judge_error
from engine.core.calls import digest_of
from engine.core.contracts import (
    CancelChild,
    ChildEnded,
    Json,
    Parent,
    Pin,
    RunStart,
    StartChild,
    TaskError,
)
from engine.core.error_types import CANCELLED, EXPRESSION
from engine.core.frames import Task
from engine.core.ids import child_id, childs_key
from engine.core.kind import TaskKind
from engine.core.slots import groups_around
from engine.core.task_plan import ChildPlan
from engine.core.values import UNFORESEEN, ValueProblem, mapping, own_names, rfc3339, text

if TYPE_CHECKING:
    from engine.core.course import Course

NEVER_RETRIED = frozenset({"INPUTS", EXPRESSION})
"""What a further attempt with the same inputs cannot mend."""


class ChildKind(TaskKind):
    """A child run. It holds a place, and an attempt that failed waits without one for the next."""

    queued = True

    def launch(self, course: Course, task: Task) -> None:
        """Start the next attempt."""
        try:
            key, inputs = _called(course, task)
        except UNFORESEEN as error:
            course.fail(task, TaskError(EXPRESSION, str(error), task.address))
            return
        if task.attempts == 0:
            if reuse.taken_over(course, task, lambda: _digest(course, key, inputs)):
                return
            course.floor.enter(task, "RUNNING")
            if task.plan.timeout is not None:
                course.floor.start_limit(task, task.plan.timeout)
        task.stage = ""
        task.attempts += 1
        course.floor.family += 1
        course.floor.commands.append(_start(course, task, key, inputs))

    def stop(self, course: Course, task: Task) -> None:
        """Its end will be told, unless it is between two attempts."""
        if task.stage == "pausing":
            course.cancelled(task)
        else:
            course.floor.commands.append(CancelChild(task.address, course.run.cancel_reason))

    def reissue(self, course: Course, task: Task) -> None:
        """Start the same attempt again: it has the same id, so it is started once."""
        if task.stage == "pausing":
            return
        key, inputs = _called(course, task)
        course.floor.commands.append(_start(course, task, key, inputs))
        if task.stopping:
            course.floor.commands.append(CancelChild(task.address, course.run.cancel_reason))

    def fired(self, course: Course, task: Task) -> None:
        """The pause before the next attempt is over."""
        task.gate.push(task)


def stop_again(course: Course) -> None:
    """A second cancel: every child leaves out its clean-up as well."""
    for task in sorted(course.floor.open.values(), key=lambda task: task.key):
        if task.plan.kind == "workflow" and task.in_flight:
            course.floor.commands.append(CancelChild(task.address, course.run.cancel_reason))


def ended(course: Course, task: Task, event: ChildEnded) -> None:
    """A child run is over."""
    if task.status != "RUNNING" or task.stage == "pausing" or event.attempt != task.attempts:
        return
    course.floor.family -= 1
    if event.status == "COMPLETED":
        task.acted = True
        course.complete(task, event.outputs, {"attempt": task.attempts, "task.attempt": task.attempts})
    elif task.stopping:
        course.cancelled(task)
    elif event.status == "CANCELLED":
        course.fail(task, TaskError(CANCELLED, "its run was cancelled", task.address))
    else:
        _failed(course, task, event.error or TaskError(event.status, "its run did not say why"))


def _failed(course: Course, task: Task, told: TaskError) -> None:
    retry = task.plan.retry
    details: Json = {"child_id": task.child_id, "task": told.task}
    error = TaskError(told.type, told.message, task.address, details)
    final = told.type in NEVER_RETRIED or told.type in retry.non_retryable_errors
    if final or task.attempts >= retry.max_attempts:
        course.fail(task, error)
        return
    judgement = course.values.judgement(task.plan.retry_when, task.frame, own_names(task))
    refused = judge_error(judgement, error, task.attempts)
    if refused is not None:
        course.fail(task, TaskError(refused.type, refused.message, task.address, details))
        return
    task.stage = "pausing"
    task.gate.free(task)
    pause = min(
        retry.initial_interval * retry.backoff_coefficient ** min(task.attempts - 1, 100), retry.max_interval
    )
    course.floor.start_timer(f"retry:{task.attempts}:{task.address}", pause, task)


def _called(course: Course, task: Task) -> tuple[str, dict[str, Json]]:
    """Which version is started, as a key of the closure, and with what inputs."""
    plan, start = task.plan.special, course.run.start
    assert isinstance(plan, ChildPlan)
    assert start is not None
    lookup = course.names(task)
    name = text(plan.workflow.render(lookup), "workflow")
    key = start.pin.calls.get(f"{name}@{plan.ref}")
    if key is None or key not in start.pin.closure:
        raise ValueProblem(f"workflow {name[:64]!r} is none of those that this run may start")
    return key, mapping(plan.inputs.render(lookup), "inputs")


def _start(course: Course, task: Task, key: str, inputs: dict[str, Json]) -> StartChild:
    start = course.run.start
    assert start is not None
    entry = start.pin.closure[key]
    task.child_id = child_id(start.execution_id, task.address, task.attempts)
    above = start.parent
    root = above.root_id if above else start.execution_id
    callback = start.callback
    child = RunStart(
        execution_id=task.child_id,
        pin=_pin(start.pin, entry),
        inputs=inputs,
        started_by=start.started_by,
        started_at=rfc3339(course.floor.now),
        trigger={"type": "workflow", "id": task.address},
        parent=Parent(start.execution_id, task.address, root, (above.depth if above else 0) + 1),
        callback=None if callback is None else callback | {"key": childs_key(callback["key"], task.child_id)},
        groups=tuple(sorted(groups_around(course, task.frame))),
    )
    return StartChild(task.address, task.attempts, child, int(entry["size"]), task.plan.name)


def _pin(parent: Pin, entry: dict[str, Any]) -> Pin:
    """The child's pin: its own version, and of the closure what it and its descendants may start."""
    closure: dict[str, Json] = {}
    left = sorted(entry["calls"].values(), reverse=True)
    while left:
        key = left.pop()
        if key not in closure and key in parent.closure:
            closure[key] = parent.closure[key]
            left += sorted(parent.closure[key]["calls"].values(), reverse=True)
    return Pin(
        workflow=entry["workflow"],
        source=entry["source"],
        commit_sha=entry["commit_sha"],
        revision_sha=entry["revision_sha"],
        digest=entry["digest"],
        compiled_digest=entry["compiled_digest"],
        bundle_digest=entry["bundle_digest"],
        dsl=entry["dsl"],
        calls=dict(entry["calls"]),
        closure=closure,
    )


def _digest(course: Course, key: str, inputs: dict[str, Json]) -> str:
    """What two calls have in common: the definitions of the child and its descendants, their code, and the inputs."""
    start = course.run.start
    assert start is not None
    pin = _pin(start.pin, start.pin.closure[key])
    versions = [[pin.digest, pin.bundle_digest]]
    versions += [[entry["digest"], entry["bundle_digest"]] for _, entry in sorted(pin.closure.items())]
    return digest_of([pin.workflow, versions, inputs])
