"""The whole state of a run as JSON, and back. What is as it was at the beginning is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from engine.core.contracts import Json
from engine.core.frames import Frame, Task, undo_of
from engine.core.run_state import RunState, error_from_json, error_to_json, start_to_json
from engine.core.work import LoopWork, MapWork

_ALWAYS: Final = (
    "started_at",
    "finished_at",
    "title",
    "phase",
    "status",
    "verdict",
    "cut",
    "cancelled_by",
    "cancel_reason",
    "skip_cleanup",
    "outputs",
    "order",
)
_IF_SET: Final = ("kept", "queued", "group", "ended", "unwinding", "paused")

_TASK: Final[tuple[tuple[str, Json], ...]] = (
    ("status", "PENDING"),
    ("skip_reason", None),
    ("failed_upstream", False),
    ("attempts", 0),
    ("started_at", None),
    ("finished_at", None),
    ("outputs", None),
    ("order", 0),
    ("acted", False),
    ("stopping", False),
    ("stage", ""),
    ("approval_id", ""),
    ("deadlines", 0),
    ("timer", ""),
    ("limit", ""),
    ("group", ""),
    ("cached_from", ""),
    ("reused_from", ""),
    ("child_id", ""),
    ("correlation", None),
    ("compensation", ""),
)
_TASK_ERRORS: Final = ("error", "doom")
_WORK: Final[dict[str, Callable[[dict[str, Any], Task], Any]]] = {
    "map": MapWork.from_json,
    "loop": LoopWork.from_json,
}


def run_to_json(run: RunState) -> dict[str, Json]:
    """The whole state."""
    state: dict[str, Json] = {name: getattr(run, name) for name in _ALWAYS}
    state |= {name: value for name in _IF_SET if (value := getattr(run, name))}
    tasks, cleanup = run.frames[0], run.frames[-1]
    state["start"] = None if run.start is None else start_to_json(run.start)
    state["draining"] = tasks.draining
    state["first_error"] = error_to_json(tasks.error)
    state["cleanup_error"] = error_to_json(cleanup.error)
    state["error"] = error_to_json(run.error)
    state["cancels"] = list(run.cancels)
    state["failed"] = list(run.failed)
    state["timers"] = dict(run.timers)
    if run.pauses:
        state["pauses"] = list(run.pauses)
    if run.signals:
        state["signals"] = list(run.signals)
    if run.heard:
        state["heard"] = list(run.heard)
    state["tasks"] = {
        task.plan.id: changed
        for frame in run.frames
        for task in frame.tasks
        if (changed := task_to_json(task))
    }
    return state


def restore_run(run: RunState, state: dict[str, Any]) -> None:
    """Put what `run_to_json` gave into a fresh state."""
    for name in _ALWAYS:
        setattr(run, name, state[name])
    for name in _IF_SET:
        if name in state:
            setattr(run, name, state[name])
    run.frames[0].draining = state["draining"]
    run.frames[0].error = error_from_json(state["first_error"])
    run.frames[-1].error = error_from_json(state["cleanup_error"])
    run.error = error_from_json(state["error"])
    run.cancels = list(state["cancels"])
    run.failed = list(state["failed"])
    run.timers = dict(state["timers"])
    run.pauses = list(state.get("pauses") or ())
    run.signals = list(state.get("signals") or ())
    run.heard = dict.fromkeys(state.get("heard") or ())
    for frame in run.frames:
        _restore_tasks(frame, state["tasks"])


def task_to_json(task: Task) -> dict[str, Json]:
    """What differs from a task that nothing has happened to yet."""
    changed: dict[str, Json] = {}
    for name, fresh in _TASK:
        value = getattr(task, name)
        if value != fresh:
            changed[name] = value
    for name in _TASK_ERRORS:
        error = getattr(task, name)
        if error is not None:
            changed[name] = error_to_json(error)
    if task.work is not None:
        changed["work"] = task.work.to_json()
    if task.frames:
        changed["frames"] = {str(index): frame_to_json(frame) for index, frame in task.frames.items()}
    if task.undo is not None and task.undo.status != "PENDING":
        changed["undo"] = task_to_json(task.undo)
    return changed


def frame_to_json(frame: Frame) -> dict[str, Json]:
    """A frame inside of a composite."""
    body: dict[str, Json] = {
        "tasks": {task.plan.id: changed for task in frame.tasks if (changed := task_to_json(task))}
    }
    if frame.locals:
        body["locals"] = frame.locals
    if frame.error is not None:
        body["error"] = error_to_json(frame.error)
    for name in ("draining", "stopping", "over"):
        if getattr(frame, name):
            body[name] = True
    if frame.unwinding is not None:
        body["unwinding"] = True
    return body


def frame_from_json(owner: Task, index: int, body: dict[str, Any]) -> Frame:
    """The inverse of `frame_to_json`; `unwinding` is left for whoever unwinds to take up again."""
    frame = Frame.inside(owner, index, body.get("locals") or {})
    frame.error = error_from_json(body.get("error"))
    frame.draining = bool(body.get("draining"))
    frame.stopping = bool(body.get("stopping"))
    frame.over = bool(body.get("over"))
    frame.unwinding = body.get("unwinding")
    _restore_tasks(frame, body["tasks"])
    return frame


def _restore_tasks(frame: Frame, tasks: dict[str, Any]) -> None:
    for task in frame.tasks:
        changed = tasks.get(task.plan.id)
        if changed is not None:
            _restore_task(task, changed)


def _restore_task(task: Task, changed: dict[str, Any]) -> None:
    for name, _ in _TASK:
        if name in changed:
            setattr(task, name, changed[name])
    for name in _TASK_ERRORS:
        if name in changed:
            setattr(task, name, error_from_json(changed[name]))
    if "work" in changed:
        task.work = _WORK[task.plan.kind](changed["work"], task)
    for index, body in (changed.get("frames") or {}).items():
        frame_from_json(task, int(index), body)
    if "undo" in changed:
        task.undo = undo_of(task)
        _restore_task(task.undo, changed["undo"])
