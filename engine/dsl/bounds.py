"""Static bounds: what the largest run of a definition could ask of Temporal, worked out before it is accepted.

Temporal ends a run whose history passes 51,200 events or 50 MB, and refuses more than 2,000 pending activities or
children.  A run begins a fresh history before it grows long, and a large map is cut into workflows of their own, so
neither is a fault.  What counts is what may still come while a run waits for its work in flight to end: all that is open
by then.  What a file of 256 KiB can say literally cannot pass the limits on payloads, what expressions make is bounded
where they are evaluated, and large values go by reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine.dsl import words
from engine.dsl.outline import OutlineTask

MAX_EVENTS = 50_000
FRESH_EVENTS = 4_000
"""A history of this length takes nothing new, and is followed by a fresh one when its work in flight has ended."""
SLICE_EVENTS = 4_000
"""A map that could write more than this is cut."""
MAX_UNCUT = 500
"""Items of a map that is not cut, at most."""
MAX_WHOLE = 1_000
"""Items of a map that must not be cut, at most."""
MAX_RUNS_OF_TASKS = 1_000_000
"""How often tasks may run in one run, as far as the definition says it: loops in loops, lists that are written out."""

# A workflow task is scheduled, started and completed; in the worst case each answer wakes the workflow alone.
_WORKFLOW_TASK = 3
_ACTIVITY = 3 + _WORKFLOW_TASK
_TIMER = 2 + _WORKFLOW_TASK
_SIGNAL = 1 + _WORKFLOW_TASK
_CHILD = 3 + 2 * _WORKFLOW_TASK
_APPROVAL = 3 * 2 + 2 * 2 + 2 + _WORKFLOW_TASK * 5
_SLOT = 2 * _ACTIVITY + _SIGNAL


LIKELY_PASSES = 10
"""Passes through an inner map or loop that a slice is measured by. Measured by the most that there could be, two items
with a small map in each would be cut; what really comes out longer begins a fresh history on its way."""


def weight(tasks: Iterable[OutlineTask]) -> int:
    """History events of tasks that stand together, those of one item of a map: how many of them a slice holds."""
    return max(sum(_events_of(task) for task in tasks), 1)


def _events_of(task: OutlineTask) -> int:
    """History events of one task. Retries of an activity write none: Temporal keeps them apart."""
    data = task.data
    extra = (_SLOT if "concurrency" in data else 0) + (_ACTIVITY if "compensate" in data else 0)
    extra += _TIMER if "timeout" in data and task.kind not in ("activity", "wait") else 0
    if task.body is not None:
        return extra + _events_of_composite(task, weight(task.body.tasks))
    match task.kind:
        case "wait":
            return _TIMER
        case "signal":
            return extra + _SIGNAL
        case "workflow":
            return extra + (_CHILD + _TIMER) * _attempts(data.get("retry"))
        case "activity":
            return extra + (_APPROVAL if data.get("activity_type") == "human_approval" else _ACTIVITY)
    return 0


def _events_of_composite(task: OutlineTask, one: int) -> int:
    if task.kind == "map":
        items = _literal_items(task)
        return min(one * (LIKELY_PASSES if items is None else items), SLICE_EVENTS)
    if task.kind == "loop":
        return (one + _TIMER) * min(_number(task.data.get("max_iterations"), 1), LIKELY_PASSES)
    return one


def is_whole(task: OutlineTask) -> bool:
    """Whether a map must not be cut: it waits for signals, which are sent to the run."""
    return task.body is not None and any(
        inner.kind == "signal" or is_whole(inner) for inner in task.body.tasks
    )


def excess(tasks: Sequence[OutlineTask], top: Sequence[OutlineTask]) -> list[tuple[str, OutlineTask, str]]:
    """What passes a limit: the fault, the task where it does, and what to do. `tasks` are all, `top` the outermost."""
    if len(tasks) > words.MAX_TASKS:
        message = f"{len(tasks)} tasks; a definition has {words.MAX_TASKS} at most"
        return [(message, tasks[words.MAX_TASKS], "split the workflow")]
    found = [
        (f"more than {words.MAX_NESTING} maps, loops and groups inside of each other", task, "split the workflow")
        for task in tasks
        if task.body is not None and _depth(task) == words.MAX_NESTING + 1
    ]  # fmt: skip
    if found:
        return found
    return [*_too_many_runs(top), *_too_much_open(tasks, top)]


def _too_many_runs(top: Sequence[OutlineTask]) -> list[tuple[str, OutlineTask, str]]:
    found = []
    for task in top:
        count = _runs(task)
        if count > MAX_RUNS_OF_TASKS:
            message = f"`{task.id}` could run {count:,} tasks; a run may have {MAX_RUNS_OF_TASKS:,}"
            found.append(
                (message, task, "lower `max_iterations`, or put the inner part into a workflow of its own")
            )
    return found


def _too_much_open(
    tasks: Sequence[OutlineTask], top: Sequence[OutlineTask]
) -> list[tuple[str, OutlineTask, str]]:
    """Waits, signals and approvals can all be open at once; what is in flight is limited."""
    starts = sum(1 for task in tasks if task.kind in ("activity", "workflow") and not _is_approval(task))
    has_map = any(task.kind == "map" for task in tasks)
    total = FRESH_EVENTS + _ACTIVITY * (words.MAX_IN_FLIGHT if has_map else min(starts, words.MAX_IN_FLIGHT))
    for task in top:
        total += _open(task)
        if total > MAX_EVENTS:
            all_ = total + sum(_open(other) for other in top[top.index(task) + 1 :])
            message = f"{all_} events could come at once, from all that may be open together; Temporal ends a run at 51,200"
            return [(message, task, "limit its map's `max_concurrency`, or split the workflow")]
    return []


def _open(task: OutlineTask) -> int:
    """Events that may still come, at most, of what is open at once and takes no place of `max_concurrency`."""
    if task.body is None:
        return _events_of(task) if task.kind in ("wait", "signal") or _is_approval(task) else 0
    one = sum(_open(inner) for inner in task.body.tasks)
    if task.kind != "map" or not one:
        return one
    items = _literal_items(task)
    most = MAX_WHOLE if is_whole(task) else MAX_UNCUT
    at_once = min(_number(task.data.get("max_concurrency"), most), most if items is None else items)
    return at_once * one if is_whole(task) else min(at_once * one, max(SLICE_EVENTS, one))


def _runs(task: OutlineTask) -> int:
    """How many tasks it runs, as far as the definition says it."""
    if task.body is None:
        return 1
    inner = sum(_runs(each) for each in task.body.tasks)
    if task.kind == "map":
        items = _literal_items(task)
        return inner * (1 if items is None else items)
    return inner * (_number(task.data.get("max_iterations"), 1) if task.kind == "loop" else 1)


def _depth(task: OutlineTask) -> int:
    return sum(1 for _ in task.scope.around())


def _is_approval(task: OutlineTask) -> bool:
    return task.kind == "activity" and task.data.get("activity_type") == "human_approval"


def _literal_items(task: OutlineTask) -> int | None:
    items = task.data.get("items")
    return len(items) if isinstance(items, list) else None


def _attempts(retry: Any) -> int:
    return _number(retry.get("max_attempts"), words.DEFAULT_MAX_ATTEMPTS) if isinstance(retry, dict) else 1


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise
