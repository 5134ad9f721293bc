"""The task executor: commands of the brain become calls to Temporal, and what comes of them becomes events.

Retry policies and timeouts are handed to Temporal; children and slices are `family.py`'s.  Nothing here knows a
definition's meaning.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.common import RetryPolicy as TemporalRetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    TimeoutError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.workflow import ActivityCancellationType

from engine.core.contracts import (
    AcquireSlot,
    ActivityCall,
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityOutcome,
    ApprovalRequested,
    ApprovalResolved,
    CancelActivity,
    CancelChild,
    CancelSlice,
    CancelTimer,
    CloseApproval,
    Command,
    DrainSlice,
    Event,
    FinishRun,
    FinishSlice,
    Json,
    Judgement,
    ReleaseSlot,
    RequestApproval,
    RetryPolicy,
    RunStart,
    SlotGranted,
    SlotRefused,
    StartActivity,
    StartChild,
    StartSlice,
    StartTimer,
    TaskError,
    TellFamily,
    TimerFired,
)
from engine.core.family import Family
from engine.core.run_state import error_from_json
from engine.core.wire import (
    ACQUIRE_SLOT,
    CLOSE_APPROVAL,
    ENVIRONMENT_PREPARING,
    EXTERNAL,
    MARK,
    RELEASE_SLOT,
    REQUEST_APPROVAL,
)

LOCAL_BY_DEFAULT: Final = frozenset({"http_request", "python_function"})
"""Activity types that every worker has; one that a worker lacks would fail the workflow task again and again."""

LOCAL_TIMEOUT: Final = 1.0
"""Seconds one attempt may take at most to go local by itself."""
LOCAL_RETRY_INTERVAL: Final = 1.0
LOCAL_TOTAL: Final = 5.0
"""Seconds for all attempts and the pauses between them; an open workflow task must answer within eight."""
LOCAL_WORK: Final = 1.0
"""Seconds of local work in one workflow task, after which the next task goes out as an ordinary activity.

An open workflow task hides the run: queries, cancels and timers wait until it ends."""

HEARTBEAT: Final = 10.0
"""Seconds without a sign of life after which an ordinary activity's worker counts as lost."""
LOST_WORKERS: Final = 3
"""How often a task is started again because its worker was lost: that is no failure of the task, up to a point."""

PREPARATIONS: Final = 130
"""How often a task is started again because the environment of its function is still being made: half an hour."""
PREPARATION_PAUSE: Final = 15.0
"""Seconds between two looks at most; the first is after half a second."""

INLINE_BYTES: Final = 1_000_000
"""Arguments that one workflow task may carry itself. Temporal ends a run whose task answers with more than 4 MiB."""
SMALL: Final = 1_024
"""Bytes below which an argument stays where it is: a reference is hardly smaller."""
LOCAL_TASKS: Final = 128
"""Local activities begun in one workflow task, after which the next ones wait for a new one.

Their results go to Temporal together, in one message of 4 MiB at most, and the run is hidden until then. More of them
than a slow worker does in the ten seconds of a workflow task would all be done again, for ever."""
SHORT_BURSTS: Final = "short-bursts"
"""The patch that brought the limit: runs from before it go on as they began."""
CHECKPOINT: Final = "a new workflow task for more short tasks"

LONG: Final = 600.0
"""Seconds an activity may take at most to be waited for before a fresh history begins."""

_REQUEST_TIMEOUT: Final = timedelta(seconds=30)
_UNTIL_DONE: Final = TemporalRetryPolicy(
    initial_interval=timedelta(seconds=0.2), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=15)
)

News: TypeAlias = Callable[[], Event | None]
"""What has happened, worked out when it is read: an event, or None if the executor has dealt with it."""


class TaskExecutor:
    """Performs the commands of one run. `deliver` is called, inside the workflow, with each piece of news."""

    def __init__(self, start: RunStart, definition: RawValue, deliver: Callable[[News], None]) -> None:
        self._execution_id = start.execution_id
        self._deliver = deliver
        self._family = Family(start, definition, deliver, self.workflow_task_began)
        self._calls = 0
        self._long = 0
        self._asking: dict[str, workflow.ActivityHandle[Any]] = {}
        self._activities: dict[str, workflow.ActivityHandle[Any]] = {}
        self._unwanted: set[str] = set()
        self._preparing: dict[str, asyncio.Future[None]] = {}
        self._timers: dict[str, asyncio.Future[None]] = {}
        self._opened = workflow.time()
        self._inline = 0
        self._inline_at = 0
        self._local = 0
        self._local_at = 0
        self._begun = 0
        self._begun_at = 0
        self._postponed: dict[str, tuple[StartActivity, int]] = {}

    def workflow_task_began(self) -> None:
        """Anything but the end of a local activity reaches us in a new workflow task only: the clock starts again."""
        self._opened = workflow.time()

    @property
    def under_way(self) -> int:
        """What must be back before a fresh history begins; children and slices need not, nor timers."""
        return self._calls + len(self._postponed) + self._family.settling

    @property
    def unrecorded(self) -> int:
        """Events that the local activities of this workflow task will add to the history when it ends."""
        return self._local if self._local_at == workflow.info().get_current_history_length() else 0

    @property
    def long_work(self) -> bool:
        """Whether an activity is out that may take longer than anybody should wait for it."""
        return self._long > 0

    def perform(self, command: Command) -> None:
        """Have a command under way. `FinishRun` and `FinishSlice` are the driver's own."""
        match command:
            case StartActivity():
                self._start(command)
            case CancelActivity():
                self._cancel(command.task)
            case StartTimer():
                self._start_timer(command)
            case CancelTimer():
                timer = self._timers.pop(command.timer, None)
                if timer is not None:
                    timer.cancel()
            case RequestApproval():
                self._request(command)
            case CloseApproval():
                self._close(command)
            case StartChild():
                self._family.start_child(command)
            case CancelChild():
                self._family.cancel_child(command)
            case StartSlice():
                self._family.start_slice(command)
            case CancelSlice():
                self._family.cancel_slice(command)
            case DrainSlice():
                self._family.drain_slice(command)
            case TellFamily():
                self._family.tell(command)
            case AcquireSlot():
                self._acquire(command)
            case ReleaseSlot():
                self._release(command)
            case FinishRun() | FinishSlice():
                raise AssertionError("the end of a run is performed by its driver")

    def _count(self, handle: Any, *, long: bool = False) -> None:
        def back(_: Any) -> None:
            self._calls -= 1
            self._long -= long

        self._calls += 1
        self._long += long
        handle.add_done_callback(back)

    # --- activities -----------------------------------------------------------------------------------------------

    def _start(self, command: StartActivity, lost: int = 0, preparations: int = 0) -> None:
        local = lost == 0 and runs_locally(command) and workflow.time() - self._opened < LOCAL_WORK
        if local and self._is_busy():
            self._postpone(command, preparations)
            return
        handle = self._start_locally(command) if local else self._start_on_a_worker(command)
        self._activities[command.task] = handle
        self._count(handle, long=min(command.timeout or math.inf, command.total_timeout or math.inf) > LONG)
        handle.add_done_callback(partial(self._ended, command, local, lost, preparations))

    def _is_busy(self) -> bool:
        """Whether this workflow task has had its share of local work, counted in activities."""
        if self._postponed:
            return True
        begun = self._begun if self._begun_at == workflow.info().get_current_history_length() else 0
        return begun >= LOCAL_TASKS and workflow.patched(SHORT_BURSTS)

    def _postpone(self, command: StartActivity, preparations: int) -> None:
        if not self._postponed:
            timer = asyncio.ensure_future(workflow.sleep(0.001, summary=CHECKPOINT))
            timer.add_done_callback(lambda _: self._start_postponed())
        self._postponed[command.task] = (command, preparations)

    def _start_postponed(self) -> None:
        self.workflow_task_began()
        postponed, self._postponed = self._postponed, {}
        for command, preparations in postponed.values():
            self._start(command, preparations=preparations)

    def _cancel(self, task: str) -> None:
        timer = self._preparing.pop(task, None)
        if timer is not None:
            timer.cancel()
        if timer is not None or self._postponed.pop(task, None) is not None:
            self._deliver(lambda: ActivityCancelled(task, workflow.time()))
            return
        handle = self._activities.get(task)
        if handle is not None:
            self._unwanted.add(task)
            handle.cancel()

    def _start_locally(self, command: StartActivity) -> workflow.ActivityHandle[Any]:
        length = workflow.info().get_current_history_length()
        self._begun = self._begun + 1 if self._begun_at == length else 1
        self._begun_at = length
        return workflow.start_local_activity(
            command.call.activity_type,
            call_to_json(command.call),
            start_to_close_timeout=_seconds(command.timeout),
            schedule_to_close_timeout=_seconds(command.total_timeout),
            retry_policy=temporal_retry_policy(command.retry),
            activity_id=command.task,
            summary=command.summary or None,
        )

    def _start_on_a_worker(self, command: StartActivity) -> workflow.ActivityHandle[Any]:
        return workflow.start_activity(
            command.call.activity_type,
            self._argument(command.call),
            task_queue=command.task_queue or None,
            start_to_close_timeout=_seconds(command.timeout),
            schedule_to_close_timeout=_seconds(command.total_timeout),
            heartbeat_timeout=timedelta(seconds=HEARTBEAT),
            retry_policy=temporal_retry_policy(command.retry),
            # Clean-up may begin only when the work has really ended; the worker's heartbeat brings the word.
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            activity_id=command.task,
            summary=command.summary or None,
        )

    def _argument(self, call: ActivityCall) -> RawValue:
        """The call as a payload: a fan-out over a large value must not make one answer of it all."""
        data = json.dumps(call_to_json(call), ensure_ascii=False, separators=(",", ":")).encode()
        length = workflow.info().get_current_history_length()
        if length != self._inline_at:  # a new workflow task
            self._inline, self._inline_at = 0, length
        metadata = {"encoding": b"json/plain"}
        if len(data) > SMALL and self._inline + len(data) > INLINE_BYTES:
            metadata[MARK] = EXTERNAL
        else:
            self._inline += len(data)
        return RawValue(Payload(metadata=metadata, data=data))

    def _ended(self, command: StartActivity, local: bool, lost: int, preparations: int, handle: Any) -> None:
        if local:
            self._local = self.unrecorded + 1
            self._local_at = workflow.info().get_current_history_length()
        else:
            self.workflow_task_began()
        self._deliver(partial(self._outcome, command, lost, preparations, handle))

    def _outcome(self, command: StartActivity, lost: int, preparations: int, handle: Any) -> Event | None:
        if self._activities.get(command.task) is handle:
            del self._activities[command.task]
        at = workflow.time()
        error = error_of(handle)
        if error is None:
            said = handle.result()
            outcome = ActivityOutcome(said["result"], said["attempt"], said.get("cached_from") or "")
            return ActivityCompleted(command.task, outcome, at)
        if is_cancelled_exception(error):
            return ActivityCancelled(command.task, at)
        if _worker_was_lost(error):
            if command.task in self._unwanted:  # the worker was lost before it could say that it had stopped
                return ActivityCancelled(command.task, at)
            if lost < LOST_WORKERS:
                self._start(command, lost + 1, preparations)
                return None
            message = f"the worker was lost {lost + 1} times while it ran this task"
            return ActivityFailed(command.task, TaskError("WORKER_LOST", message, command.task), lost + 1, at)
        if _is_being_prepared(error):
            if command.task in self._unwanted:
                return ActivityCancelled(command.task, at)
            if preparations < PREPARATIONS:
                self._start_later(command, lost, preparations)
                return None
            message = "the environment of the function was not ready in half an hour"
            return ActivityFailed(command.task, TaskError("ENVIRONMENT", message, command.task), 1, at)
        told, attempts = failure(error, command.retry)
        return ActivityFailed(
            command.task, TaskError(told.type, told.message, command.task, told.details), attempts, at
        )

    def _start_later(self, command: StartActivity, lost: int, preparations: int) -> None:
        """Once more in a while: the worker makes the environment beside its work, on nobody's time."""
        seconds = min(0.5 * 2 ** min(preparations, 10), PREPARATION_PAUSE)
        pause = workflow.sleep(seconds, summary=f"{command.task}: its environment is being made")
        timer = asyncio.ensure_future(pause)
        self._preparing[command.task] = timer
        self._count(timer)

        def passed(_: Any) -> None:
            if timer.cancelled() or self._preparing.get(command.task) is not timer:
                return
            del self._preparing[command.task]
            self.workflow_task_began()
            self._start(command, lost, preparations + 1)

        timer.add_done_callback(passed)

    # --- approvals ------------------------------------------------------------------------------------------------

    def _request(self, command: RequestApproval) -> None:
        handle = workflow.start_activity(
            REQUEST_APPROVAL,
            self._argument(command.call),
            start_to_close_timeout=_REQUEST_TIMEOUT,
            retry_policy=_UNTIL_DONE,
            activity_id=command.task,
            summary=command.summary or None,
        )
        self._count(handle)
        handle.add_done_callback(partial(self._requested, command))

    def _requested(self, command: RequestApproval, handle: Any) -> None:
        self.workflow_task_began()

        def news() -> Event:
            at = workflow.time()
            error = error_of(handle)
            if error is None:
                made = handle.result()
                return ApprovalRequested(
                    command.task, made["approval_id"], made["requested_at"], at, made["deadline"]
                )
            if is_cancelled_exception(error):
                return ActivityCancelled(command.task, at)
            told, attempts = failure(error, RetryPolicy())
            return ActivityFailed(command.task, told, attempts, at)

        self._deliver(news)

    def _close(self, command: CloseApproval) -> None:
        body = {
            "execution_id": self._execution_id,
            "task": command.task,
            "approval_id": command.approval_id,
            "why": command.why,
        }
        handle = workflow.start_activity(
            CLOSE_APPROVAL,
            body,
            start_to_close_timeout=_REQUEST_TIMEOUT,
            retry_policy=_UNTIL_DONE,
            activity_id=f"{command.task}.close",
            summary=f"{command.task}: {command.why}",
        )
        self._count(handle)
        handle.add_done_callback(partial(self._closed, command))

    def _closed(self, command: CloseApproval, handle: Any) -> None:
        self.workflow_task_began()

        def news() -> Event:
            at = workflow.time()
            if error_of(handle) is not None:
                # Nothing but a bug gets here (it is tried for ever); the row is closed with the run at the latest.
                outcome: Any = "CANCELLED" if command.why == "cancelled" else "TIMED_OUT"
                return ApprovalResolved(command.task, command.approval_id, outcome, [], at)
            return resolution(
                handle.result() | {"task": command.task, "approval_id": command.approval_id}, at
            )

        self._deliver(news)

    # --- slots of concurrency groups ------------------------------------------------------------------------------

    def _acquire(self, command: AcquireSlot) -> None:
        body = {
            "execution_id": self._execution_id,
            "task": command.task,
            "group": command.group,
            "limit": command.limit,
            "on_conflict": command.on_conflict,
        }
        handle = workflow.start_activity(
            ACQUIRE_SLOT,
            body,
            start_to_close_timeout=_REQUEST_TIMEOUT,
            retry_policy=_UNTIL_DONE,
            activity_id=f"{command.task}#acquire",
            summary=f"a slot of {command.group}",
        )
        self._asking[command.task] = handle
        self._count(handle)
        handle.add_done_callback(partial(self._acquired, command))

    def _acquired(self, command: AcquireSlot, handle: Any) -> None:
        self.workflow_task_began()
        if self._asking.get(command.task) is handle:
            del self._asking[command.task]

        def news() -> Event | None:
            at = workflow.time()
            error = error_of(handle)
            if error is not None:
                return SlotRefused(command.task, failure(error, RetryPolicy())[0], at)
            standing = handle.result()["standing"]
            if standing == "WAITING":  # a signal says when
                return None
            if standing == "HELD":
                return SlotGranted(command.task, at)
            return SlotRefused(command.task, _slot_refusal(standing, command), at)

        self._deliver(news)

    def _release(self, command: ReleaseSlot) -> None:
        asking = self._asking.get(command.task)
        if asking is not None:  # what is still being asked for cannot be given back yet
            asking.add_done_callback(lambda _: self._release(command))
            return
        handle = workflow.start_activity(
            RELEASE_SLOT,
            {"execution_id": self._execution_id, "task": command.task},
            start_to_close_timeout=_REQUEST_TIMEOUT,
            retry_policy=_UNTIL_DONE,
            activity_id=f"{command.task}#release",
            summary=f"gives back its slot of {command.group}",
        )
        self._count(handle)
        handle.add_done_callback(lambda _: self.workflow_task_began())

    # --- timers ---------------------------------------------------------------------------------------------------

    def _start_timer(self, command: StartTimer) -> None:
        # A timer of no time at all is none to Temporal, and nothing would fire.
        seconds = max(command.seconds, 0.001)
        timer = asyncio.ensure_future(workflow.sleep(seconds, summary=command.timer))
        self._timers[command.timer] = timer
        timer.add_done_callback(partial(self._fired, command.timer))

    def _fired(self, name: str, timer: Any) -> None:
        if timer.cancelled() or self._timers.get(name) is not timer:
            return
        del self._timers[name]
        self.workflow_task_began()
        self._deliver(lambda: TimerFired(name, workflow.time()))


def runs_locally(command: StartActivity) -> bool:
    """Whether the task may run inside the workflow task: the same promises, several times faster."""
    if command.execution == "worker" or command.task_queue:
        return False
    if command.execution == "local":
        return True
    if command.call.activity_type not in LOCAL_BY_DEFAULT:
        return False
    limit = min(command.timeout or LOCAL_TOTAL * 2, command.total_timeout or LOCAL_TOTAL * 2)
    if limit > LOCAL_TIMEOUT:
        return False
    longest, pauses = _pauses(command.retry)
    return longest <= LOCAL_RETRY_INTERVAL and limit * command.retry.max_attempts + pauses <= LOCAL_TOTAL


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


def _slot_refusal(standing: str, command: AcquireSlot) -> TaskError:
    group = f"the concurrency group {command.group!r}"
    if standing == "SKIPPED":
        return TaskError("CONCURRENCY_SKIPPED", f"{group} is full, and `on_conflict` is skip", command.task)
    if standing == "DEADLOCK":
        why = f"waiting for {group} would be a deadlock: who holds it waits for what this run holds"
        return TaskError("CONCURRENCY_DEADLOCK", why, command.task)
    return TaskError("RUN_IS_OVER", "the run has ended as far as its row says", command.task)


def _judgement_to_json(judgement: Judgement) -> dict[str, Json]:
    return {"expr": judgement.expr, "bindings": judgement.bindings}


def _pauses(policy: RetryPolicy) -> tuple[float, float]:
    """The longest pause between two attempts, and all of them together."""
    longest = total = 0.0
    pause = policy.initial_interval
    for _ in range(min(policy.max_attempts - 1, 100)):
        longest = max(longest, min(pause, policy.max_interval))
        total += min(pause, policy.max_interval)
        pause *= policy.backoff_coefficient
    return longest, total


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


def _worker_was_lost(error: BaseException) -> bool:
    """A missed heartbeat, or a worker that was stopped in the middle: Temporal's SDK says so by this type."""
    cause = error.cause if isinstance(error, ActivityError) else None
    if isinstance(cause, TimeoutError):
        return cause.type == TimeoutType.HEARTBEAT
    return isinstance(cause, ApplicationError) and cause.type == "WorkerShutdown"


def _is_being_prepared(error: BaseException) -> bool:
    cause = error.cause if isinstance(error, ActivityError) and error.cause is not None else error
    return isinstance(cause, ApplicationError) and cause.type == ENVIRONMENT_PREPARING


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
