"""The task runner: the activities of a run's tasks, each started where it runs best, and again if that was nobody's fault."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

from engine.core.contracts import (
    ActivityCall,
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityOutcome,
    Event,
    StartActivity,
    TaskError,
)
from engine.core.locality import runs_locally
from engine.core.translation import (
    call_to_json,
    error_of,
    failure,
    is_being_prepared,
    temporal_retry_policy,
    worker_was_lost,
)
from engine.core.wire import EXTERNAL, MARK

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

News: TypeAlias = Callable[[], Event | None]
"""What has happened, worked out when it is read: an event, or None if the executor has dealt with it."""


class TaskRunner:
    """Starts and cancels the activities of one run's tasks. `deliver` is called, inside the workflow, with what comes of it."""

    def __init__(self, deliver: Callable[[News], None]) -> None:
        self._deliver = deliver
        self._calls = 0
        self._long = 0
        self._activities: dict[str, workflow.ActivityHandle[Any]] = {}
        self._unwanted: set[str] = set()
        self._preparing: dict[str, asyncio.Future[None]] = {}
        self._postponed: dict[str, tuple[StartActivity, int]] = {}
        # Of the workflow task that is open: since when, and what it carries and has begun (with the history's length
        # then, by which a new one is known).
        self._opened = workflow.time()
        self._inline = 0
        self._inline_at = 0
        self._local = 0
        self._local_at = 0
        self._begun = 0
        self._begun_at = 0

    def workflow_task_began(self) -> None:
        """Anything but the end of a local activity reaches us in a new workflow task only: the clock starts again."""
        self._opened = workflow.time()

    @property
    def under_way(self) -> int:
        """Activities that must be back before a fresh history begins, those that only wait for their turn included."""
        return self._calls + len(self._postponed)

    @property
    def unrecorded(self) -> int:
        """Events that the local activities of this workflow task will add to the history when it ends."""
        return self._local if self._local_at == workflow.info().get_current_history_length() else 0

    @property
    def long_work(self) -> bool:
        """Whether an activity is out that may take longer than anybody should wait for it."""
        return self._long > 0

    def start(self, command: StartActivity, lost: int = 0, preparations: int = 0) -> None:
        """Have the activity of a task under way; `lost` and `preparations` count the starts that came to nothing."""
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
            self.start(command, preparations=preparations)

    def cancel(self, task: str) -> None:
        """Ask the activity of a task to end."""
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
            self.argument(command.call),
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

    def argument(self, call: ActivityCall) -> RawValue:
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
        if worker_was_lost(error):
            if command.task in self._unwanted:  # the worker was lost before it could say that it had stopped
                return ActivityCancelled(command.task, at)
            if lost < LOST_WORKERS:
                self.start(command, lost + 1, preparations)
                return None
            message = f"the worker was lost {lost + 1} times while it ran this task"
            return ActivityFailed(command.task, TaskError("WORKER_LOST", message, command.task), lost + 1, at)
        if is_being_prepared(error):
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
            self.start(command, lost, preparations + 1)

        timer.add_done_callback(passed)

    def _count(self, handle: Any, *, long: bool = False) -> None:
        def back(_: Any) -> None:
            self._calls -= 1
            self._long -= long

        self._calls += 1
        self._long += long
        handle.add_done_callback(back)


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
