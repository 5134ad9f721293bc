"""How a run stands, for queries, for the last step that writes it to Postgres, and for Temporal's own pages.

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.contracts import Json
from engine.core.plan import PHASES, Plan, TaskPlan
from engine.core.run_state import RunState, TaskRecord, error_to_json


def take(plan: Plan, run: RunState, open_tasks: Sequence[int]) -> dict[str, Json]:
    """`{status, title, phase, error, outputs, started_at, finished_at, tasks: [...], waiting: [...]}`.

    `tasks` stand in definition order. `waiting` names what is awaited: `{task, kind: approval | timer, since, until,
    approval_id}`.
    """
    return {
        "status": run.status,
        "title": run.title,
        "phase": PHASES[run.phase] if 0 <= run.phase < len(PHASES) else "",
        "error": error_to_json(run.error or run.first_error),
        "outputs": run.outputs,
        "started_at": run.started_at if run.start is not None else None,
        "finished_at": run.finished_at,
        "tasks": [_task(task, run.records[task.position]) for task in plan.tasks],
        "waiting": [
            _awaited(plan.tasks[position], run.records[position], run)
            for position in open_tasks
            if run.records[position].status == "WAITING"
        ],
    }


def summary(plan: Plan, run: RunState, open_tasks: Sequence[int], open_count: int, left: int) -> str:
    """One line, made at the same cost for a run of ten tasks and of ten thousand."""
    if run.phase not in range(len(PHASES)):
        return run.status
    total = len(plan.phase(run.phase))
    names = ", ".join(plan.tasks[position].id for position in open_tasks)
    more = f" and {open_count - len(open_tasks)} more" if open_count > len(open_tasks) else ""
    under_way = f"; {run.status.lower()}: {names}{more}" if names else ""
    failed = f"; failed: {', '.join(run.failed[:5])}" if run.failed else ""
    return f"{PHASES[run.phase]}: {total - left} of {total} done{under_way}{failed}"


def _task(task: TaskPlan, record: TaskRecord) -> dict[str, Json]:
    return {
        "id": task.id,
        "phase": PHASES[task.phase],
        "status": record.status,
        "skip_reason": record.skip_reason,
        "attempts": record.attempts,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "error": error_to_json(record.error),
        "outputs": record.outputs,
        "order": record.order,
    }


def _awaited(task: TaskPlan, record: TaskRecord, run: RunState) -> dict[str, Json]:
    return {
        "task": task.id,
        "kind": "approval" if task.kind == "approval" else "timer",
        "since": record.started_at,
        "until": run.timers.get(record.timer),
        "approval_id": record.approval_id,
    }
