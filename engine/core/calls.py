"""What a task's activity is told: its resolved config, and the judgements that go along with it."""

from __future__ import annotations

from engine.core.contracts import ActivityCall, Json, RequestApproval, RunStart, StartActivity
from engine.core.plan import TaskPlan
from engine.core.values import Values


def start_command(start: RunStart, task: TaskPlan, values: Values) -> StartActivity | RequestApproval:
    """The command that starts a task. The same whenever it is made: all that a config may read has ended before.

    Raises ExpressionError.
    """
    names = own_names(task)
    pin = start.pin
    call = ActivityCall(
        execution_id=start.execution_id,
        workflow=pin.workflow,
        commit_sha=pin.commit_sha,
        source=pin.source,
        bundle_digest=pin.bundle_digest,
        task=task.id,
        activity_type=task.activity_type,
        config=task.config.render(values.scope(names)),
        idempotency_key=f"{start.execution_id}/{task.id}",
        success_when=values.judgement(task.success_when, names),
        retry_when=values.judgement(task.retry_when, names),
    )
    if task.kind == "approval":
        return RequestApproval(task.id, call, task.name)
    return StartActivity(
        task=task.id,
        call=call,
        retry=task.retry,
        timeout=task.timeout,
        total_timeout=task.total_timeout,
        execution=task.execution,
        task_queue=task.task_queue,
        summary=task.name,
    )


def own_names(task: TaskPlan) -> dict[str, Json]:
    """What a task's expressions read of the task itself. A config is resolved once, hence the first attempt."""
    return {"task.id": task.id, "task.attempt": 1, "task": {"id": task.id, "attempt": 1}}
