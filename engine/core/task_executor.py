"""The task executor: commands of the brain become calls to Temporal, and what comes of them becomes events.

Activities of tasks are `task_runner.py`'s, children and slices `family.py`'s; what is asked of rows and clocks stands
here.  Nothing here knows a definition's meaning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.common import RetryPolicy as TemporalRetryPolicy
from temporalio.exceptions import is_cancelled_exception

from engine.core.contracts import (
    AcquireSlot,
    ActivityCancelled,
    ActivityFailed,
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
    TellFamily,
    TimerFired,
)
from engine.core.family import Family
from engine.core.task_runner import News, TaskRunner
from engine.core.translation import error_of, failure, resolution, slot_refusal
from engine.core.wire import ACQUIRE_SLOT, CLOSE_APPROVAL, RELEASE_SLOT, REQUEST_APPROVAL

_REQUEST_TIMEOUT: Final = timedelta(seconds=30)
_UNTIL_DONE: Final = TemporalRetryPolicy(
    initial_interval=timedelta(seconds=0.2), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=15)
)


class TaskExecutor:
    """Performs the commands of one run. `deliver` is called, inside the workflow, with each piece of news."""

    def __init__(self, start: RunStart, definition: RawValue, deliver: Callable[[News], None]) -> None:
        self.runner = TaskRunner(deliver)
        self._execution_id = start.execution_id
        self._deliver = deliver
        self._began = self.runner.workflow_task_began
        self._family = Family(start, definition, deliver, self._began)
        self._calls = 0
        self._asking: dict[str, workflow.ActivityHandle[Any]] = {}
        self._timers: dict[str, asyncio.Future[None]] = {}

    @property
    def under_way(self) -> int:
        """What must be back before a fresh history begins; children and slices need not, nor timers."""
        return self._calls + self.runner.under_way + self._family.settling

    def perform(self, command: Command) -> None:
        """Have a command under way. `FinishRun` and `FinishSlice` are the driver's own."""
        match command:
            case StartActivity():
                self.runner.start(command)
            case CancelActivity():
                self.runner.cancel(command.task)
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

    def _count(self, handle: Any) -> None:
        def back(_: Any) -> None:
            self._calls -= 1

        self._calls += 1
        handle.add_done_callback(back)

    # --- approvals ------------------------------------------------------------------------------------------------

    def _request(self, command: RequestApproval) -> None:
        handle = workflow.start_activity(
            REQUEST_APPROVAL,
            self.runner.argument(command.call),
            start_to_close_timeout=_REQUEST_TIMEOUT,
            retry_policy=_UNTIL_DONE,
            activity_id=command.task,
            summary=command.summary or None,
        )
        self._count(handle)
        handle.add_done_callback(partial(self._requested, command))

    def _requested(self, command: RequestApproval, handle: Any) -> None:
        self._began()

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
        self._began()

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
        self._began()
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
            return SlotRefused(command.task, slot_refusal(standing, command), at)

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
        handle.add_done_callback(lambda _: self._began())

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
        self._began()
        self._deliver(lambda: TimerFired(name, workflow.time()))
