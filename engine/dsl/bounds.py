"""Static bounds: what the largest run of a definition could ask of Temporal, worked out before it is accepted.

Temporal ends a run whose history passes 51,200 events or 50 MB, and refuses more than 2,000 pending
activities.  What a file of 256 KiB can say literally cannot pass the limits on payloads, and what
expressions make is bounded where they are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.dsl import words

MAX_EVENTS = 50_000

# A workflow task is scheduled, started and completed; in the worst case each answer wakes the workflow alone.
_WORKFLOW_TASK = 3
_ACTIVITY = 3
_TIMER = 2
_RUN = 2 + _WORKFLOW_TASK
_APPROVAL = _ACTIVITY * 2 + _TIMER * 2 + 2 + _WORKFLOW_TASK * 5


def events_of(task: Mapping[str, Any]) -> int:
    """History events of one task at most. Retries of an activity write none: Temporal keeps them apart."""
    kind = task.get("type", "activity")
    if kind == "set":
        return 0
    if kind == "wait":
        return _TIMER + _WORKFLOW_TASK
    if task.get("activity_type") == "human_approval":
        return _APPROVAL
    return _ACTIVITY + _WORKFLOW_TASK


def events(tasks: list[Mapping[str, Any]]) -> int:
    """History events of a run at most."""
    return _RUN + sum(events_of(task) for task in tasks)


def excess(tasks: list[Mapping[str, Any]]) -> tuple[str, int] | None:
    """What passes a limit, and the index of the first task that does; None if nothing can."""
    if len(tasks) > words.MAX_TASKS:
        return f"{len(tasks)} tasks; a definition has {words.MAX_TASKS} at most", words.MAX_TASKS
    total = _RUN
    for index, task in enumerate(tasks):
        total += events_of(task)
        if total > MAX_EVENTS:
            return f"a run could write {events(tasks)} events; Temporal ends it at 51,200", index
    return None
