"""The door between Temporal and activity types: a call comes in, an outcome or an `ApplicationError` goes out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import structlog
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from engine import faults
from engine.activities import approval_requests, children, results, slot_desk
from engine.activities.configs import parse_config
from engine.activities.context import ActivityContext, Workbench
from engine.activities.failures import ActivityFailure
from engine.activities.registry import ActivityRegistry, ActivityType
from engine.activities.secrets import SecretMissing
from engine.core import wire
from engine.core.attempts import EXPRESSION, judge_error, judge_result
from engine.core.contracts import ActivityCall, Judgement, TaskError
from engine.core.wire import ENVIRONMENT_PREPARING
from engine.errors import PinflowError, Unavailable
from engine.executor.dispatcher import Dispatcher
from engine.executor.payloads import EXTERNAL, MARK
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.masking import Masker
from engine.storage import run_records, task_states
from engine.storage.cache import Cached
from engine.storage.database import Database

_log = structlog.get_logger(__name__)

_NOTHING = Masker()
_LOCAL_INLINE = 2048
"""Bytes of a local activity's result that stand in the history itself."""


def task_activities(registry: ActivityRegistry, workbench: Workbench) -> list[Callable[..., Any]]:
    """One Temporal activity per type, under the type's name, and one for every name that this worker does not know."""
    return [
        *(_task_activity(each, workbench) for each in registry if each.run is not None),
        _unknown(registry),
    ]


def engine_activities(database: Database) -> list[Callable[..., Any]]:
    """What the engine itself needs done: rows of runs and tasks, approvals, slots."""
    desk = children.ChildDesk(database)

    @activity.defn(name=wire.REQUEST_APPROVAL)
    async def request_approval(raw: dict[str, Any]) -> dict[str, Any]:
        call = read_call(raw)
        with _translated(None), _logged(call.execution_id, call.commit_sha, call.task):
            return await approval_requests.request(database, call, told=_other_than(call.execution_id))

    @activity.defn(name=wire.CLOSE_APPROVAL)
    async def close_approval(raw: dict[str, Any]) -> dict[str, Any]:
        with _translated(None):
            return await approval_requests.close(database, raw["execution_id"], raw["task"], raw["why"])

    @activity.defn(name=wire.RECORD_RUN)
    async def record_run(raw: dict[str, Any]) -> None:
        with _translated(None):
            record = run_records.RunRecord(
                execution_id=raw["execution_id"],
                status=raw["status"],
                outputs=raw["outputs"],
                error=raw["error"],
                tasks=raw["tasks"],
                finished_at=raw["finished_at"],
            )
            await faults.point("record.before_commit")
            commit_sha, told = await run_records.finish(database, record, actor="worker")
            await faults.point("record.after_commit")
            await _tell(database, told)
            _log.info(
                "run ended",
                execution_id=record.execution_id,
                commit_sha=commit_sha,
                status=record.status,
                repeated=not commit_sha,
            )

    @activity.defn(name=wire.RECORD_TASKS)
    async def record_tasks(raw: dict[str, Any]) -> None:
        with _translated(None):
            rows = task_states.as_json(raw["tasks"], first=task_states.SLICED + raw["offset"])
            async with database.begin() as connection:
                await task_states.note(connection, raw["execution_id"], rows)
            await faults.point("slice.after_record")

    @activity.defn(name=wire.OPEN_RUN)
    async def open_run(raw: dict[str, Any]) -> dict[str, Any]:
        with _translated(None):
            return await desk.open(raw)

    @activity.defn(name=wire.AWAIT_WORKFLOW)
    async def await_workflow(raw: dict[str, Any]) -> dict[str, Any]:
        # Not translated: "still open" is no failure that anybody should read of, and Temporal asks again after any.
        return await children.look(_executor(), raw["workflow_id"])

    @activity.defn(name=wire.ACQUIRE_SLOT)
    async def acquire_slot(raw: dict[str, Any]) -> dict[str, str]:
        with _translated(None):
            return await slot_desk.acquire(database, raw, holder=activity.info().workflow_id or "")

    @activity.defn(name=wire.RELEASE_SLOT)
    async def release_slot(raw: dict[str, Any]) -> None:
        with _translated(None):
            await _tell(database, await slot_desk.release(database, raw))

    return [
        request_approval,
        close_approval,
        record_run,
        record_tasks,
        open_run,
        await_workflow,
        acquire_slot,
        release_slot,
    ]


def _executor() -> TemporalWorkflowExecutor:
    return TemporalWorkflowExecutor(activity.client(), task_queue=activity.info().task_queue)


def _other_than(execution_id: str) -> str:
    """The workflow that asks, if it is not the run's own: a slice of a map, which waits for the answer itself."""
    workflow_id = activity.info().workflow_id or execution_id
    return "" if workflow_id == execution_id else workflow_id


async def _tell(database: Database, runs: Sequence[str]) -> None:
    """Tell them what they wait for, now; the dispatcher would do it within a second."""
    if runs:
        dispatcher = Dispatcher(database, _executor())
        await asyncio.gather(*(dispatcher.dispatch_now(run) for run in dict.fromkeys(runs)))


def read_call(raw: Mapping[str, Any]) -> ActivityCall:
    """The call as it stands in the history."""
    judgements = {
        name: Judgement(**raw[name]) if raw.get(name) is not None else None
        for name in ("success_when", "retry_when")
    }
    return ActivityCall(**{**raw, **judgements})


def _task_activity(type: ActivityType, workbench: Workbench) -> Callable[..., Any]:
    run = type.run
    assert run is not None

    @activity.defn(name=type.name)
    async def perform(raw: dict[str, Any]) -> RawValue:
        call = read_call(raw)
        info = activity.info()
        limit = _time_limit(info)
        masker = Masker()
        with (
            _logged(call.execution_id, call.commit_sha, call.task),
            _translated(call.retry_when, masker),
            _heartbeats(info),
        ):
            cached = await workbench.cache.find(call)
            if cached is not None:
                return _from_cache(cached, info)
            config = parse_config(type.config, await _with_secrets(call, workbench, masker))
            ours = limit and _a_little_less(limit)
            context = _context(call, info, ours, workbench)
            result = await _within(ours, limit, run(config, context))
            plain, data = results.encode(result, info.attempt, masker)
            problem = judge_result(call.success_when, plain, info.attempt)
            if problem is not None:
                raise ActivityFailure(problem.type, problem.message, retryable=problem.type != EXPRESSION)
            await workbench.cache.keep(call, plain, len(data))
            return RawValue(Payload(metadata=_metadata(data, info), data=data))

    return perform


def _from_cache(cached: Cached, info: activity.Info) -> RawValue:
    _log.info("result from the cache", made_by=cached.execution_id)
    outcome = {"result": cached.result, "attempt": info.attempt, "cached_from": cached.execution_id}
    data = json.dumps(outcome, ensure_ascii=False, separators=(",", ":")).encode()
    return RawValue(Payload(metadata=_metadata(data, info), data=data))


async def _with_secrets(call: ActivityCall, workbench: Workbench, masker: Masker) -> Any:
    """The config with the values of its secrets, which are nowhere but in this attempt and hidden in all that leaves it."""
    if not call.secrets:
        return call.config
    try:
        return await workbench.secrets.placed(
            call.config, call.secrets, source=call.source, workflow=call.workflow, masker=masker
        )
    except SecretMissing as error:
        # The operator can mend it while the task is retried, and another worker may have it.
        raise ActivityFailure(error.code, str(error)) from None


def _metadata(data: bytes, info: activity.Info) -> dict[str, bytes]:
    """Results of local activities go to Temporal together, in one message of 4 MiB at most: larger ones stand outside."""
    plain = {"encoding": b"json/plain"}
    return plain | {MARK: EXTERNAL} if info.is_local and len(data) > _LOCAL_INLINE else plain


def _unknown(registry: ActivityRegistry) -> Callable[..., Any]:
    # Without it a local activity of an unknown type would fail the workflow task again and again, for ever.
    @activity.defn(dynamic=True)
    async def unknown(_: Sequence[RawValue]) -> NoReturn:
        name = activity.info().activity_type
        raise ApplicationError(
            f"this worker has no activity type {name!r}; it has {', '.join(registry.names())}",
            {"attempt": activity.info().attempt, "details": None},
            type="UNKNOWN_ACTIVITY",
            non_retryable=True,
        )

    return unknown


def _context(
    call: ActivityCall, info: activity.Info, limit: float | None, workbench: Workbench
) -> ActivityContext:
    return ActivityContext(
        execution_id=call.execution_id,
        workflow=call.workflow,
        source=call.source,
        commit_sha=call.commit_sha,
        bundle_digest=call.bundle_digest,
        task=call.task,
        attempt=info.attempt,
        idempotency_key=call.idempotency_key,
        timeout=limit,
        workbench=workbench,
        log=_log.bind(),
        heartbeat=activity.heartbeat,
    )


def _time_limit(info: activity.Info) -> float | None:
    """Seconds that Temporal gives to this attempt."""
    limits = []
    if info.start_to_close_timeout:
        limits.append(info.start_to_close_timeout.total_seconds())
    if info.schedule_to_close_timeout:
        past = (datetime.now(UTC) - info.scheduled_time).total_seconds()
        limits.append(max(info.schedule_to_close_timeout.total_seconds() - max(past, 0.0), 0.05))
    return min(limits, default=None)


def _a_little_less(limit: float) -> float:
    """Seconds that we give, so that our word on a late attempt is the one that counts.

    (An activity that Temporal times out is judged by no `retry.when`, and its child processes would live on.)
    """
    return limit - min(0.25, 0.05 * limit)


async def _within(ours: float | None, limit: float | None, work: Awaitable[Any]) -> Any:
    """The work's result. The error of a late one names the `limit` that its author wrote."""
    try:
        async with asyncio.timeout(ours) as scope:
            return await work
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise ActivityFailure("TIMEOUT", f"the attempt was not done within {limit:.4g} s") from error


@contextmanager
def _heartbeats(info: activity.Info) -> Iterator[None]:
    """Tell Temporal that we are alive; the answer is how an ordinary activity learns that it is cancelled."""
    if not info.heartbeat_timeout or info.is_local:
        yield
        return
    loop = asyncio.get_running_loop()
    interval = min(info.heartbeat_timeout.total_seconds() / 3, 1.0)
    timer: asyncio.TimerHandle

    def beat() -> None:
        nonlocal timer
        activity.heartbeat()
        timer = loop.call_later(interval, beat)

    timer = loop.call_later(interval, beat)
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _logged(execution_id: str, commit_sha: str, task: str) -> Iterator[None]:
    with structlog.contextvars.bound_contextvars(execution_id=execution_id, commit_sha=commit_sha, task=task):
        yield


@contextmanager
def _translated(retry_when: Judgement | None, masker: Masker = _NOTHING) -> Iterator[None]:
    """One of the three doors at which errors are translated. Cancellation passes."""
    try:
        yield
    except ActivityFailure as failure:
        raise _application_error(failure, retry_when, masker) from _cause(failure.__cause__, masker)
    except ApplicationError as error:
        # Temporal's own word, which an activity type of somebody else may use instead of ours.
        details = error.details[0] if len(error.details) == 1 else list(error.details)
        told = ActivityFailure(
            error.type or "ApplicationError",
            error.message,
            details=details,
            retryable=not error.non_retryable,
        )
        raise _application_error(told, retry_when, masker) from _cause(error, masker)
    except Unavailable as error:
        told = ActivityFailure(error.code, str(error))
        raise _application_error(told, retry_when, masker) from _cause(error, masker)
    except PinflowError as error:
        told = ActivityFailure(error.code, str(error), retryable=False)
        raise _application_error(told, retry_when, masker) from _cause(error, masker)
    except Exception as error:
        # A bug of an activity type (ours or not). Its name is what authors can match in `non_retryable_errors`.
        _log.exception("activity raised")
        told = ActivityFailure(type(error).__name__, str(error))
        raise _application_error(told, retry_when, masker) from _cause(error, masker)


def _cause(error: BaseException | None, masker: Masker) -> BaseException | None:
    """What Temporal shows behind our error, with its own words: nothing, once there is something to hide."""
    return None if masker else error


def _application_error(
    failure: ActivityFailure, retry_when: Judgement | None, masker: Masker
) -> ApplicationError:
    info = activity.info()
    attempt = info.attempt
    details = results.bounded_details(failure.details, masker)
    message = results.bounded_message(masker.text(failure.message))
    error = TaskError(masker.text(failure.type), message, details=details)
    final = judge_error(retry_when, error, attempt) if failure.retryable else error
    told = final or error
    policy = info.retry_policy
    last = final is not None or (policy is not None and 0 < policy.maximum_attempts <= attempt)
    if told.type == ENVIRONMENT_PREPARING:
        _log.info("attempt waits", reason=told.message)
    else:
        _log.warning("attempt failed", type=told.type, reason=told.message, attempt=attempt, final=last)
    return ApplicationError(
        told.message,
        {"attempt": attempt, "details": details},
        type=results.bounded_message(told.type)[:100],
        non_retryable=final is not None,
    )
