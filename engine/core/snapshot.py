"""How a run stands, for queries, for the last step that writes it to Postgres, and for Temporal's own pages.

Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.core.contracts import Json
from engine.core.frames import Frame, Task
from engine.core.ids import callback_url
from engine.core.plan import PHASES
from engine.core.run_state import RunState, error_to_json
from engine.core.task_plan import SignalPlan
from engine.core.work import MapWork


def take(run: RunState, open_tasks: Sequence[Task]) -> dict[str, Json]:
    """`{status, title, phase, error, outputs, started_at, finished_at, tasks: [...], waiting: [...]}`.

    `tasks` stand in definition order, those inside of a composite behind it, a compensation behind its task, each with
    its address as `id`. `waiting`
    names what is awaited: `{task, kind: approval | timer | signal | slot, since, until, approval_id}`, and what only a
    signal (`signal`, `correlation`, `callback_url`) or a slot (`group`) has.
    """
    return {
        "status": run.status,
        "title": run.title,
        "phase": _phase(run),
        "error": error_to_json(run.error or run.first_error),
        "outputs": run.outputs,
        "started_at": run.started_at if run.start is not None else None,
        "finished_at": run.finished_at,
        "tasks": [_task(task) for frame in run.frames for task in _all(frame)],
        "waiting": [
            *(
                [
                    {
                        "task": "",
                        "kind": "slot",
                        "since": None,
                        "until": None,
                        "approval_id": "",
                        "group": run.group,
                    }
                ]
                if run.queued
                else ()
            ),
            *(_awaited(task, run) for task in open_tasks if _waits(task)),
        ],
    }


def summary(run: RunState, open_tasks: Sequence[Task], open_count: int) -> str:
    """One line, made at the same cost for a run of ten tasks and of ten thousand."""
    if run.phase not in range(len(run.frames)):
        return run.status
    frame = run.frames[run.phase]
    total = len(frame.block)
    names = ", ".join(task.address for task in open_tasks)
    more = f" and {open_count - len(open_tasks)} more" if open_count > len(open_tasks) else ""
    under_way = f"; {run.status.lower()}: {names}{more}" if names else ""
    failed = f"; failed: {', '.join(run.failed[:5])}" if run.failed else ""
    return f"{_phase(run)}: {total - frame.left} of {total} done{under_way}{failed}"


def _phase(run: RunState) -> str:
    if run.unwinding:
        return "unwinding"
    return PHASES[run.phase] if 0 <= run.phase < len(PHASES) else ""


def _all(frame: Frame) -> Iterator[Task]:
    for task in frame.tasks:
        yield task
        if task.undo is not None and task.undo.status != "PENDING":
            yield task.undo
        for _, inner in sorted(task.frames.items()):
            yield from _all(inner)


def _task(task: Task) -> dict[str, Json]:
    told: dict[str, Json] = {
        "id": task.address,
        "phase": PHASES[task.plan.phase],
        "status": task.status,
        "skip_reason": task.skip_reason,
        "attempts": task.attempts,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "error": error_to_json(task.error),
        "outputs": task.outputs,
        "order": task.order,
    }
    for name in ("cached_from", "reused_from", "compensation", "child_id"):
        if value := getattr(task, name):
            told[name] = value
    if isinstance(work := task.work, MapWork):
        told["items"] = {"total": work.total, "completed": work.completed, "failed": work.failed}
    return told


def _waits(task: Task) -> bool:
    return task.status == "WAITING" or bool(task.timer and task.plan.kind in ("loop", "workflow"))


def _awaited(task: Task, run: RunState) -> dict[str, Json]:
    told: dict[str, Json] = {
        "task": task.address,
        "kind": "approval" if task.plan.kind == "approval" else "timer",
        "since": task.started_at,
        "until": run.timers.get(task.timer or task.limit),
        "approval_id": task.approval_id,
    }
    if task.stage in ("queued", "granted"):
        return told | {"kind": "slot", "group": task.group}
    if isinstance(plan := task.plan.special, SignalPlan):
        told |= {"kind": "signal", "signal": plan.name, "correlation": task.correlation or ""}
        start = run.start
        if start is not None and start.callback is not None:
            told["callback_url"] = callback_url(start.callback, start.execution_id, task.address)
    return told
