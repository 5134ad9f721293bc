"""Tasks that wait for people. The row of the request is the judge; here stands what its word means for the task.

A request goes through these stages: `requesting` (its row is being made), `open` (people may decide), `expiring` (its
deadline is being applied) and `closing` (the run ends or another task failed, and the row is being closed).
"""

from __future__ import annotations

from engine.core.contracts import ApprovalResolved, CloseApproval, Json, TaskError
from engine.core.floor import Floor
from engine.core.plan import TaskPlan
from engine.core.run_state import TaskRecord


def requested(
    floor: Floor, task: TaskPlan, record: TaskRecord, approval_id: str, deadline: float | None
) -> None:
    """The request can be seen: wait, with its deadline if it has one."""
    record.approval_id = approval_id
    floor.slots -= 1
    record.stage = "open"
    if record.stopping:
        close(floor, task, record)
    else:
        _await(floor, task, record, deadline)


def expire(floor: Floor, task: TaskPlan, record: TaskRecord) -> None:
    """The deadline has passed: the row says whether somebody was quicker."""
    record.timer = ""
    record.stage = "expiring"
    floor.commands.append(CloseApproval(task.id, record.approval_id, "deadline"))


def close(floor: Floor, task: TaskPlan, record: TaskRecord) -> None:
    """Nobody waits for the answer any more: close the row, unless it was decided already."""
    floor.stop_timer(record)
    record.stage = "closing"
    floor.commands.append(CloseApproval(task.id, record.approval_id, "cancelled"))


def escalated(floor: Floor, task: TaskPlan, record: TaskRecord, deadline: float | None) -> None:
    """More people were asked: wait on, until the new deadline."""
    if record.stage in ("requesting", "closing"):
        return
    record.stage = "open"
    if record.stopping:  # asked to end while the deadline was being applied
        close(floor, task, record)
        return
    floor.stop_timer(record)
    # A deadline that is already past would spin; a second is long enough for nobody to notice.
    _await(floor, task, record, None if deadline is None else max(deadline, floor.now + 1.0))


def reissue(floor: Floor, task: TaskPlan, record: TaskRecord) -> None:
    """Have under way again what a restored state says of an open request."""
    if record.stage == "closing":
        floor.commands.append(CloseApproval(task.id, record.approval_id, "cancelled"))
    elif record.stage == "expiring":
        floor.commands.append(CloseApproval(task.id, record.approval_id, "deadline"))


def verdict(task: TaskPlan, event: ApprovalResolved) -> Json | TaskError:
    """What a resolved request makes of its task: a result that completes it, or the error that fails it."""
    if event.outcome == "APPROVED":
        return {"decision": "approved", "decisions": event.decisions}
    if event.outcome == "CANCELLED":
        return TaskError("CANCELLED", "the request was closed from outside", task.id)
    if task.continue_on_reject:
        return {"decision": "rejected", "decisions": event.decisions}
    if event.outcome == "REJECTED":
        return _rejection(task.id, event.decisions)
    message = "nobody decided before the deadline"
    return TaskError("ApprovalTimedOut", message, task.id, {"decisions": event.decisions})


def _await(floor: Floor, task: TaskPlan, record: TaskRecord, deadline: float | None) -> None:
    if deadline is None:
        return
    # Numbered: a repeated firing of an earlier deadline must not be taken for the next one.
    record.deadlines += 1
    floor.start_timer(f"deadline:{record.deadlines}:{task.id}", max(deadline - floor.now, 0.0), record)


def _rejection(task: str, decisions: list[Json]) -> TaskError:
    against = next((vote for vote in reversed(decisions) if vote.get("decision") == "reject"), None)
    message = "rejected"
    if against:
        message += f" by {against.get('by')}"
        message += f": {against['comment']}" if against.get("comment") else ""
    return TaskError("ApprovalRejected", message, task, {"decisions": decisions})
