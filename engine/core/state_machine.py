"""The brain: `(state, event) → (state, commands)`, and nothing else.

No clock, no I/O, no Temporal.  The same state and event give the same commands, in the same order, in every process.
A late, repeated or unknown event changes nothing and is never an error.  Each event costs time in proportion to what
it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from engine.core import (
    approval_tasks,
    child_tasks,
    maps,
    phases,
    restoring,
    signal_tasks,
    slice_runs,
    slices,
    slots,
    snapshot,
    unwinding,
)
from engine.core.contracts import (
    AcquireSlot,
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ApprovalRequested,
    ApprovalResolved,
    CancelRequested,
    ChildEnded,
    Command,
    Event,
    Json,
    PauseRequested,
    ResumeRequested,
    RunStart,
    SignalReceived,
    SliceDrained,
    SliceEnded,
    SlotGranted,
    SlotRefused,
    Started,
    TaskError,
    TellFamily,
    TimerFired,
)
from engine.core.course import Course
from engine.core.error_types import EXPRESSION
from engine.core.frames import Task
from engine.core.gates import Gate
from engine.core.kinds import KINDS
from engine.core.plan import TASKS, Plan
from engine.core.reuse import CARRIER, Carrier
from engine.core.run_state import OVER, UNSTARTED, RunState, start_from_json
from engine.core.state_json import run_to_json
from engine.core.values import UNFORESEEN, text
from engine.core.verdict import cancelled

IN_FLIGHT: Final = 500
"""Activities of one run at a time, whatever `max_concurrency` says: Temporal refuses more than 2,000 pending ones."""


class Brain:
    """One run of a compiled definition (or of its `Plan`, which may be shared between runs).

    `state` is what `to_json` gave; without it the run has not started.
    """

    def __init__(
        self,
        compiled: dict[str, Any] | Plan,
        state: dict[str, Any] | None = None,
        *,
        in_flight: int = IN_FLIGHT,
        carrier: Carrier = CARRIER,
    ) -> None:
        self._plan = compiled if isinstance(compiled, Plan) else Plan(compiled)
        self._carrier = carrier
        self._limit = min(self._plan.max_concurrency or in_flight, in_flight)
        start = None if state is None or state["start"] is None else start_from_json(state["start"])
        self._set_up(start)
        if state is not None:
            restoring.restore(self._course, state)

    def _set_up(self, start: RunStart | None) -> None:
        gate = Gate(self._limit)
        run = RunState(self._plan.blocks, gate)
        if start is not None and start.slice is not None:
            gate.limit = min(self._limit, start.slice.limit)
            run.frames = [slice_runs.frame_of(self._plan, start.slice, gate)]
        run.start = start
        self._run = run
        self._course = Course(self._plan, run, gate, KINDS, self._carrier)
        self._floor = self._course.floor

    # --- the outside ----------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> list[Command]:
        """Take one event; the commands are to be performed in their order."""
        run = self._run
        self._floor.begin(event.at)
        if run.phase != OVER and (run.phase != UNSTARTED or run.queued or isinstance(event, Started)):
            _HANDLERS[type(event)](self, event)
            phases.advance(self._course)
        return self._floor.commands

    def resume(self, at: float) -> list[Command]:
        """The commands that have under way again what a restored state says is under way, and start what is free."""
        self._floor.begin(at)
        if self._run.queued:
            self._ask_for_slot()
        if self._run.phase in (UNSTARTED, OVER):
            return self._floor.commands
        restoring.reissue(self._course)
        phases.advance(self._course)
        return self._floor.commands

    def hold(self) -> None:
        """Start no more activities in this instance; a brain restored from its state starts what is free."""
        self._course.hold = True

    @property
    def over(self) -> bool:
        """Whether `FinishRun` or `FinishSlice` was given."""
        return self._run.phase == OVER

    def to_json(self) -> dict[str, Json]:
        """The whole state as JSON."""
        return run_to_json(self._run)

    def snapshot(self) -> dict[str, Json]:
        """How the run stands, for people: see `snapshot.py`."""
        return snapshot.take(self._run, sorted(self._floor.open.values(), key=lambda task: task.key))

    def summary(self) -> str:
        """One line on how the run stands."""
        return snapshot.summary(self._run, list(islice(self._floor.open.values(), 5)), len(self._floor.open))

    # --- the run --------------------------------------------------------------------------------------------------

    def _on_started(self, event: Started) -> None:
        if self._run.start is not None:
            return
        self._set_up(event.start)
        self._floor.begin(event.at)
        run, slot = self._run, self._plan.slot
        run.title = self._title()
        if event.start.slice is not None:
            phases.begin_slice(self._course)
            return
        if slot is not None:
            try:
                run.group = text(slot.group.render(self._course.values.lookup), "concurrency.group")
            except UNFORESEEN as error:
                phases.refuse(self._course, TaskError(EXPRESSION, f"concurrency.group: {error}"), "FAILED")
                return
            if run.group not in event.start.groups:
                run.queued = True
                self._ask_for_slot()
                return
        phases.begin_run(self._course)

    def _ask_for_slot(self) -> None:
        slot = self._plan.slot
        assert slot is not None
        self._floor.commands.append(AcquireSlot("", self._run.group, slot.limit, slot.on_conflict))

    def _on_slot_granted(self, event: SlotGranted) -> None:
        if self._run.queued:
            if not event.task:
                self._run.queued = False
                phases.begin_run(self._course)
        elif (task := self._floor.open.get(event.task)) is not None:
            slots.granted(task)

    def _on_slot_refused(self, event: SlotRefused) -> None:
        if self._run.queued:
            if not event.task:
                phases.refuse(self._course, event.error, "CANCELLED")
        elif (task := self._floor.open.get(event.task)) is not None:
            slots.refused(self._course, task, event.error)

    def _on_cancel_requested(self, event: CancelRequested) -> None:
        run = self._run
        if event.id and event.id in run.cancels:
            return
        run.cancels.append(event.id)
        if len(run.cancels) == 1:
            run.cancelled_by = event.by
            run.cancel_reason = event.reason
            if run.paused:
                run.paused = False
                self._tell_family("resume", event.by, event.reason)
            if run.queued:
                phases.refuse(self._course, cancelled(run), "CANCELLED")
            elif run.phase == TASKS and not run.unwinding:
                self._course.end_phase("cancelled")
            self._course.go_on()
            return
        if run.queued or run.phase == OVER:
            return
        run.skip_cleanup = True
        if run.phase != TASKS:
            self._course.end_phase("skipped")
        for frame in run.frames:
            unwinding.abandon(self._course, frame)
        child_tasks.stop_again(self._course)
        slices.stop_again(self._course)

    def _on_pause_requested(self, event: PauseRequested) -> None:
        run = self._run
        if self._heard(event.id) or run.paused or run.cancels:
            return
        run.paused = True
        self._tell_family("pause", event.by, event.reason)

    def _on_resume_requested(self, event: ResumeRequested) -> None:
        run = self._run
        if self._heard(event.id) or not run.paused:
            return
        run.paused = False
        self._tell_family("resume", event.by, "")
        self._course.go_on()

    def _heard(self, id: str) -> bool:
        """Whether a pause or its end was asked for before, even if it changed nothing then."""
        if id in self._run.pauses:
            return True
        if id:
            self._run.pauses.append(id)
        return False

    def _tell_family(self, what: Any, by: str, reason: str) -> None:
        if self._floor.family:
            self._floor.commands.append(TellFamily(what, by, reason))

    # --- tasks ----------------------------------------------------------------------------------------------------

    def _on_activity_completed(self, event: ActivityCompleted) -> None:
        task = self._floor.open.get(event.task)
        if task is None or task.status != "RUNNING" or task.plan.kind != "activity":
            return
        task.attempts = event.outcome.attempt
        task.acted = True
        task.cached_from = event.outcome.cached_from
        names = {"attempt": task.attempts, "task.attempt": task.attempts}
        self._course.complete(task, event.outcome.result, names)

    def _on_activity_failed(self, event: ActivityFailed) -> None:
        task = self._activity(event.task)
        if task is None:
            return
        task.attempts = event.attempts
        error = event.error
        self._course.fail(task, TaskError(error.type, error.message, task.address, error.details))

    def _on_activity_cancelled(self, event: ActivityCancelled) -> None:
        task = self._activity(event.task)
        if task is None:
            return
        if task.stopping:
            self._course.cancelled(task)
        else:
            error = TaskError("CANCELLED", "its activity was cancelled from outside", task.address)
            self._course.fail(task, error)

    def _activity(self, address: str) -> Task | None:
        """The task whose activity, or whose request, is under way."""
        task = self._floor.open.get(address)
        if task is None or task.plan.kind not in ("activity", "approval") or not task.in_flight:
            return None
        return task

    def _on_timer_fired(self, event: TimerFired) -> None:
        if self._run.timers.pop(event.timer, None) is None:
            return
        kind, _, _ = event.timer.partition(":")
        if kind == phases.RUN_TIMER:
            self._course.end_phase("timed_out")
        elif kind == phases.CLEANUP_TIMER:
            self._course.end_phase("cleanup_timed_out")
        else:
            task = self._floor.open[event.timer.rpartition(":")[2]]
            if kind == "timeout":
                self._course.time_out(task)
            else:
                task.timer = ""
                self._course.kinds[task.plan.kind].fired(self._course, task)

    def _on_approval_requested(self, event: ApprovalRequested) -> None:
        task = self._floor.open.get(event.task)
        if task is not None and task.stage == "requesting":
            approval_tasks.requested(self._floor, task, event.approval_id, event.deadline)

    def _on_approval_resolved(self, event: ApprovalResolved) -> None:
        task = self._floor.open.get(event.task)
        if task is None or task.plan.kind != "approval" or task.stage in ("", "queued", "granted"):
            return
        if task.approval_id and task.approval_id != event.approval_id:
            return
        if event.outcome == "PENDING":
            approval_tasks.escalated(self._floor, task, event.deadline)
        elif event.outcome == "CANCELLED" and task.stopping:
            self._course.cancelled(task)
        elif isinstance(verdict := approval_tasks.verdict(task, event), TaskError):
            self._course.fail(task, verdict)
        else:
            task.acted = True
            self._course.complete(task, verdict)

    def _on_signal_received(self, event: SignalReceived) -> None:
        signal_tasks.received(self._course, event)

    def _on_child_ended(self, event: ChildEnded) -> None:
        task = self._floor.open.get(event.task)
        if task is not None and task.plan.kind == "workflow":
            child_tasks.ended(self._course, task, event)

    def _on_slice_drained(self, event: SliceDrained) -> None:
        slice_runs.drain(self._course)

    def _on_slice_ended(self, event: SliceEnded) -> None:
        task = self._course.find(event.task)
        if task is not None and task.plan.kind == "map":
            maps.slice_ended(self._course, task, event)

    def _title(self) -> str:
        try:
            title = self._plan.title.render(self._course.values.lookup)
        except UNFORESEEN:
            return self._plan.name  # A title is for people: it may not keep a run from going.
        return title if isinstance(title, str) and title else self._plan.name


_HANDLERS: Final[dict[type, Callable[[Brain, Any], None]]] = {
    Started: Brain._on_started,
    ActivityCompleted: Brain._on_activity_completed,
    ActivityFailed: Brain._on_activity_failed,
    ActivityCancelled: Brain._on_activity_cancelled,
    TimerFired: Brain._on_timer_fired,
    ApprovalRequested: Brain._on_approval_requested,
    ApprovalResolved: Brain._on_approval_resolved,
    CancelRequested: Brain._on_cancel_requested,
    PauseRequested: Brain._on_pause_requested,
    ResumeRequested: Brain._on_resume_requested,
    SignalReceived: Brain._on_signal_received,
    SlotGranted: Brain._on_slot_granted,
    SlotRefused: Brain._on_slot_refused,
    ChildEnded: Brain._on_child_ended,
    SliceDrained: Brain._on_slice_drained,
    SliceEnded: Brain._on_slice_ended,
}
