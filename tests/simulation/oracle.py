"""The rules of order, skips and verdict once more, worked out the slow way from how a run ended."""

from __future__ import annotations

from typing import Any

from engine.core.contracts import FinishRun
from engine.core.plan import FINALLY, ON_FAILURE, TASKS, Plan


def judge(plan: Plan, snapshot: dict[str, Any], finish: FinishRun, *, cut: bool) -> None:
    """Raise AssertionError if the ends of the tasks do not follow from each other, or the verdict not from them."""
    ends = snapshot["tasks"]
    failed = {t["id"] for t in ends if t["status"] == "FAILED"}
    fatal = [task.phase for task in plan.tasks if task.id in failed and not task.continue_on_failure]
    disturbed = cut or finish.status in ("TIMED_OUT", "CANCELLED")
    for task in plan.tasks:
        _judge_task(plan, ends, plan.positions[task.id], disturbed)
    match finish.status:
        case "COMPLETED":
            assert TASKS not in fatal
            assert FINALLY not in fatal
            assert finish.error is None
        case "FAILED":
            assert finish.error is not None
            assert fatal or finish.error.type in ("OUTPUTS", "CleanupTimedOut")
            if TASKS in fatal:
                assert finish.error.task in failed
                assert plan.tasks[plan.positions[finish.error.task]].phase == TASKS
        case "TIMED_OUT":
            assert finish.error is not None
            assert finish.error.type == "RunTimedOut"
        case "CANCELLED":
            assert cut
    if finish.status in ("COMPLETED", "CANCELLED"):
        assert all(ends[position]["status"] == "SKIPPED" for position in plan.phase(ON_FAILURE)) or cut
    if not cut:
        for position in plan.phase(FINALLY):
            assert ends[position]["skip_reason"] != "ended" or finish.error is not None


def _judge_task(plan: Plan, ends: list[dict[str, Any]], position: int, disturbed: bool) -> None:
    task, end = plan.tasks[position], ends[position]
    ran = end["started_at"] is not None or end["status"] == "FAILED" or end["skip_reason"] == "condition"
    wanted = _wanted(plan, ends, position)
    if end["skip_reason"] == "upstream":
        assert not wanted, f"{task.id} was skipped although its dependencies allow it"
    elif ran and not _skipped_whole(plan, ends, position):
        assert wanted, f"{task.id} ran although its dependencies do not allow it"
    if end["skip_reason"] == "ended" and not disturbed:
        early = plan.on_task_failure != "finish" and task.run_on not in ("failure", "always")
        assert early or task.phase != TASKS, f"{task.id} was skipped although the run took new tasks"


def _skipped_whole(plan: Plan, ends: list[dict[str, Any]], position: int) -> bool:
    return plan.tasks[position].phase == ON_FAILURE and ends[position]["skip_reason"] == "condition"


def _wanted(plan: Plan, ends: list[dict[str, Any]], position: int) -> bool:
    before = _before(plan, position)
    match plan.tasks[position].run_on:
        case "success":
            return all(_satisfies_success(plan, ends, other) for other in before)
        case "any_success":
            return not before or any(ends[other]["status"] == "COMPLETED" for other in before)
        case "failure":
            return any(_comes_from_failure(plan, ends, other) for other in before)
        case _:
            return True


def _before(plan: Plan, position: int) -> tuple[int, ...]:
    task = plan.tasks[position]
    return tuple(plan.phase(task.phase).start + other for other in task.predecessors)


def _satisfies_success(plan: Plan, ends: list[dict[str, Any]], position: int) -> bool:
    end = ends[position]
    tolerated = end["status"] == "FAILED" and plan.tasks[position].continue_on_failure
    return end["status"] == "COMPLETED" or tolerated or end["skip_reason"] == "condition"


def _comes_from_failure(plan: Plan, ends: list[dict[str, Any]], position: int) -> bool:
    """FAILED, or skipped because an ancestor FAILED (and that one's failure was not what `success` lets pass)."""
    end, task = ends[position], plan.tasks[position]
    if end["status"] == "FAILED":
        return True
    if end["skip_reason"] != "upstream":
        return False
    blocking = _before(plan, position)
    if task.run_on == "success":
        blocking = tuple(other for other in blocking if not _satisfies_success(plan, ends, other))
    return any(_comes_from_failure(plan, ends, other) for other in blocking)
