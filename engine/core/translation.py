"""Between the brain's words and Temporal's: calls and policies on their way out, errors, answers and signals on their way in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy as TemporalRetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    TimeoutError,
    TimeoutType,
    is_cancelled_exception,
)

from engine.core.contracts import (
    AcquireSlot,
    ActivityCall,
    ApprovalResolved,
    Json,
    Judgement,
    RetryPolicy,
    SlotGranted,
    SlotRefused,
    TaskError,
)
from engine.core.run_state import error_from_json
from engine.core.wire import ENVIRONMENT_PREPARING


def temporal_retry_policy(policy: RetryPolicy) -> TemporalRetryPolicy:
    """The same policy in Temporal's words."""
    return TemporalRetryPolicy(
        initial_interval=timedelta(seconds=policy.initial_interval),
        backoff_coefficient=policy.backoff_coefficient,
        maximum_interval=timedelta(seconds=policy.max_interval),
        maximum_attempts=policy.max_attempts,
        non_retryable_error_types=list(policy.non_retryable_errors) or None,
    )


def failure(error: BaseException, policy: RetryPolicy) -> tuple[TaskError, int]:
    """What an activity's final error says, and after how many attempts.

    An ordinary activity fails as `ActivityError` with a cause, a local one as the bare `ApplicationError`; a time-out
    is an `ActivityError` in both.
    """
    cause = error.cause if isinstance(error, ActivityError) and error.cause is not None else error
    if isinstance(cause, TimeoutError):
        which = cause.type.name.lower().replace("_", " ") if cause.type else "activity"
        attempts = 1 if cause.type == TimeoutType.SCHEDULE_TO_START else policy.max_attempts
        return TaskError("TIMEOUT", f"the {which} timeout passed"), attempts
    if isinstance(cause, ApplicationError):
        details, attempt = _details(cause)
        return TaskError(cause.type or "ApplicationError", cause.message, details=details), attempt
    return TaskError("INTERNAL", f"{type(cause).__name__}: {cause}"), 1


def resolution(body: Mapping[str, Any], at: float) -> ApprovalResolved:
    """The event in a signal's or a closing's JSON. Raises KeyError, TypeError or ValueError if it is none."""
    outcome = body["outcome"]
    if outcome not in ("APPROVED", "REJECTED", "TIMED_OUT", "CANCELLED", "PENDING"):
        raise ValueError(f"unknown outcome {outcome!r}")
    decisions = list(body.get("decisions") or ())
    if not all(isinstance(vote, dict) for vote in decisions):
        raise ValueError("a decision is an object")
    deadline = None if body.get("deadline") is None else float(body["deadline"])
    if deadline is not None and not math.isfinite(deadline):
        raise ValueError(f"{deadline} is no time")
    return ApprovalResolved(
        task=str(body["task"]),
        approval_id=str(body["approval_id"]),
        outcome=outcome,
        decisions=decisions,
        at=at,
        deadline=deadline,
    )


def call_to_json(call: ActivityCall) -> dict[str, Json]:
    """`ActivityCall` as JSON, without copying the config; what is not there is left out, as history keeps it all."""
    body: dict[str, Json] = {
        "execution_id": call.execution_id,
        "workflow": call.workflow,
        "commit_sha": call.commit_sha,
        "source": call.source,
        "bundle_digest": call.bundle_digest,
        "task": call.task,
        "activity_type": call.activity_type,
        "config": call.config,
        "idempotency_key": call.idempotency_key,
    }
    if call.success_when is not None:
        body["success_when"] = _judgement_to_json(call.success_when)
    if call.retry_when is not None:
        body["retry_when"] = _judgement_to_json(call.retry_when)
    if call.secrets:
        body["secrets"] = call.secrets
    if call.cache is not None:
        body["cache"] = call.cache
    return body


def slot_news(body: Mapping[str, Any], at: float) -> SlotGranted | SlotRefused:
    """The event in a `slot` signal. Raises KeyError or TypeError if it is none."""
    if body.get("granted"):
        return SlotGranted(str(body["task"]), at)
    error = error_from_json(body["error"])
    assert error is not None
    return SlotRefused(str(body["task"]), error, at)


def slot_refusal(standing: str, command: AcquireSlot) -> TaskError:
    group = f"the concurrency group {command.group!r}"
    if standing == "SKIPPED":
        return TaskError("CONCURRENCY_SKIPPED", f"{group} is full, and `on_conflict` is skip", command.task)
    if standing == "DEADLOCK":
        why = f"waiting for {group} would be a deadlock: who holds it waits for what this run holds"
        return TaskError("CONCURRENCY_DEADLOCK", why, command.task)
    return TaskError("RUN_IS_OVER", "the run has ended as far as its row says", command.task)


def _judgement_to_json(judgement: Judgement) -> dict[str, Json]:
    return {"expr": judgement.expr, "bindings": judgement.bindings}


def _details(error: ApplicationError) -> tuple[Json, int]:
    """The door's `{attempt, details}`; whatever else an activity type puts there by itself is passed on whole."""
    first = error.details[0] if error.details else None
    if isinstance(first, dict) and isinstance(first.get("attempt"), int):
        return first.get("details"), first["attempt"]
    return (first if len(error.details) == 1 else list(error.details) or None), 1


def error_of(handle: Any) -> BaseException | None:
    """How an activity failed, None if it did not."""
    try:
        error: BaseException | None = handle.exception()
    except BaseException as cancelled:  # a handle that was cancelled raises instead of telling
        if not is_cancelled_exception(cancelled):
            raise
        return cancelled
    return error


def worker_was_lost(error: BaseException) -> bool:
    """A missed heartbeat, or a worker that was stopped in the middle: Temporal's SDK says so by this type."""
    cause = error.cause if isinstance(error, ActivityError) else None
    if isinstance(cause, TimeoutError):
        return cause.type == TimeoutType.HEARTBEAT
    return isinstance(cause, ApplicationError) and cause.type == "WorkerShutdown"


def is_being_prepared(error: BaseException) -> bool:
    cause = error.cause if isinstance(error, ActivityError) and error.cause is not None else error
    return isinstance(cause, ApplicationError) and cause.type == ENVIRONMENT_PREPARING
