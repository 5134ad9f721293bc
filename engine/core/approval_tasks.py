"""Tasks that wait for people. The row of the request is the judge; here stands what its word means for the task.

A request goes through these stages: `requesting` (its row is being made), `open` (people may decide), `expiring` (its
deadline is being applied) and `closing` (the run ends or another task failed, and the row is being closed).
"""

from __future__ import annotations

from engine.core.contracts import ApprovalResolved, CloseApproval, Json, TaskError
from engine.core.floor import Floor
from engine.core.frames import Task


def requested(floor: Floor, task: Task, approval_id: str, deadline: float | None) -> None:
    """The request can be seen: wait, with its deadline if it has one."""
    task.approval_id = approval_id
    task.gate.free(task)
    task.stage = "open"
    if task.stopping:
        close(floor, task)
    else:
        _await(floor, task, deadline)


def expire(floor: Floor, task: Task) -> None:
    """The deadline has passed: the row says whether somebody was quicker."""
    task.timer = ""
    task.stage = "expiring"
    floor.commands.append(CloseApproval(task.address, task.approval_id, "deadline"))


def close(floor: Floor, task: Task) -> None:
    """Nobody waits for the answer any more: close the row, unless it was decided already."""
    floor.stop_timer(task)
    task.stage = "closing"
    floor.commands.append(CloseApproval(task.address, task.approval_id, "cancelled"))


def escalated(floor: Floor, task: Task, deadline: float | None) -> None:
    """More people were asked: wait on, until the new deadline."""
    if task.stage in ("requesting", "closing"):
        return
    task.stage = "open"
    if task.stopping:  # asked to end while the deadline was being applied
        close(floor, task)
        return
    floor.stop_timer(task)
    # A deadline that is already past would spin; a second is long enough for nobody to notice.
    _await(floor, task, None if deadline is None else max(deadline, floor.now + 1.0))


def reissue(floor: Floor, task: Task) -> None:
    """Have under way again what a restored state says of an open request."""
    if task.stage == "closing":
        floor.commands.append(CloseApproval(task.address, task.approval_id, "cancelled"))
    elif task.stage == "expiring":
        floor.commands.append(CloseApproval(task.address, task.approval_id, "deadline"))


def verdict(task: Task, event: ApprovalResolved) -> Json | TaskError:
    """What a resolved request makes of its task: a result that completes it, or the error that fails it."""
    if event.outcome == "APPROVED":
        return {"decision": "approved", "decisions": event.decisions}
    if event.outcome == "CANCELLED":
        return TaskError("CANCELLED", "the request was closed from outside", task.address)
    if task.plan.continue_on_reject:
        return {"decision": "rejected", "decisions": event.decisions}
    if event.outcome == "REJECTED":
        return _rejection(task.address, event.decisions)
    message = "nobody decided before the deadline"
    return TaskError("ApprovalTimedOut", message, task.address, {"decisions": event.decisions})


def _await(floor: Floor, task: Task, deadline: float | None) -> None:
    if deadline is None:
        return
    # Numbered: a repeated firing of an earlier deadline must not be taken for the next one.
    task.deadlines += 1
    floor.start_timer(f"deadline:{task.deadlines}:{task.address}", max(deadline - floor.now, 0.0), task)


def _rejection(task: str, decisions: list[Json]) -> TaskError:
    against = next((vote for vote in reversed(decisions) if vote.get("decision") == "reject"), None)
    message = "rejected"
    if against:
        message += f" by {against.get('by')}"
        message += f": {against['comment']}" if against.get("comment") else ""
    return TaskError("ApprovalRejected", message, task, {"decisions": decisions})
