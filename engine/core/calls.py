"""What a task's activity is told: its resolved config, where secrets belong in it, and the judgements that go along."""

from __future__ import annotations

import hashlib

from engine.core.contracts import ActivityCall, Json, RequestApproval, RunStart, StartActivity
from engine.core.frames import Task
from engine.core.plan import Plan
from engine.core.task_plan import Lookup
from engine.core.values import Values, own_names, text
from engine.dsl.cel_values import dump

PYTHON_FUNCTION = "python_function"


def call_of(plan: Plan, start: RunStart, task: Task, values: Values) -> ActivityCall:
    """The call of a task's activity. The same whenever it is made: all that a config may read has ended before.

    Raises what `UNFORESEEN` names.
    """
    names = own_names(task)
    lookup = values.of(task.frame, names)
    pin, here = start.pin, task.plan
    return ActivityCall(
        execution_id=start.execution_id,
        workflow=pin.workflow,
        commit_sha=pin.commit_sha,
        source=pin.source,
        bundle_digest=pin.bundle_digest,
        task=task.address,
        activity_type=here.activity_type,
        config=here.config.render(lookup),
        idempotency_key=f"{start.execution_id}/{task.address}",
        success_when=values.judgement(here.success_when, task.frame, names),
        retry_when=values.judgement(here.retry_when, task.frame, names),
        secrets=_secrets(task, lookup),
        cache=_cache(plan, start, task, lookup),
    )


def start_command(task: Task, call: ActivityCall) -> StartActivity | RequestApproval:
    """The command that starts a task with its call."""
    plan = task.plan
    if plan.kind == "approval":
        return RequestApproval(task.address, call, plan.name)
    return StartActivity(
        task=task.address,
        call=call,
        retry=plan.retry,
        timeout=plan.timeout,
        total_timeout=plan.total_timeout,
        execution=plan.execution,
        task_queue=plan.task_queue,
        summary=plan.name,
    )


def call_digest(call: ActivityCall) -> str:
    """What two calls of one definition have in common if their attempts would do the same.

    The commit does not count, but the code of functions does; an approval was given for one commit only.
    """
    code = call.bundle_digest if call.activity_type == PYTHON_FUNCTION else ""
    commit = call.commit_sha if call.activity_type == "human_approval" else ""
    judged = [
        None if judgement is None else judgement.bindings
        for judgement in (call.success_when, call.retry_when)
    ]
    return digest_of([call.config, call.secrets, code, commit, judged])


def digest_of(value: Json) -> str:
    """The sha256 of a JSON value."""
    return hashlib.sha256(dump(value).encode()).hexdigest()


def _secrets(task: Task, lookup: Lookup) -> list[Json]:
    return [
        {
            "path": secret.path,
            "parts": [
                {"secret": part}
                if isinstance(part, str)
                else text(part.render(lookup), "a text with a secret")
                for part in secret.parts
            ],
        }
        for secret in task.plan.secrets
    ]


def _cache(plan: Plan, start: RunStart, task: Task, lookup: Lookup) -> Json:
    cache = task.plan.cache
    if cache is None:
        return None
    digest = plan.digest_of(task.plan.path)
    code = f"{start.pin.bundle_digest}/" if task.plan.activity_type == PYTHON_FUNCTION else ""
    key = text(cache.key.render(lookup), "cache.key")
    return {"key": f"{start.pin.workflow}/{task.plan.path}/{digest}/{code}{key}", "max_age": cache.max_age}
