"""The brain: `(state, event) → (state, commands)`, and nothing else.

No clock, no I/O, no Temporal.  The same state and event give the same commands, in the same order, in every process.
A late, repeated or unknown event changes nothing and is never an error.  Each event costs time in proportion to what
it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

from engine.core import approval_tasks, snapshot
from engine.core.calls import own_names, start_command
from engine.core.contracts import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ApprovalRequested,
    ApprovalResolved,
    CancelActivity,
    CancelRequested,
    Command,
    Event,
    FinishRun,
    Json,
    RequestApproval,
    SkipReason,
    StartActivity,
    Started,
    StartTimer,
    TaskError,
    TimerFired,
)
from engine.core.floor import Floor, in_flight
from engine.core.plan import FINALLY, ON_FAILURE, TASKS, Plan, TaskPlan
from engine.core.run_state import OVER, UNSTARTED, Cut, RunState, TaskRecord
from engine.core.scope import Scope
from engine.core.states import check_run
from engine.core.values import UNFORESEEN, Values, boolean, moment, seconds
from engine.core.verdict import OUTPUTS, decide_cleanup, decide_tasks

IN_FLIGHT: Final = 500
"""Activities of one run at a time, whatever `max_concurrency` says: Temporal refuses more than 2,000 pending ones."""

EXPRESSION: Final = "EXPRESSION"
RUN_TIMER: Final = "run"


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
    ) -> None:
        plan = compiled if isinstance(compiled, Plan) else Plan(compiled)
        self._plan = plan
        self._run = RunState(len(plan.tasks)) if state is None else RunState.from_json(state, plan.positions)
        self._values = Values(plan, self._run)
        self._limit = min(plan.max_concurrency or in_flight, in_flight)
        self._floor = Floor(self._run)
        self._held = False
        self._scope = Scope(plan.tasks, range(0), self._run.records)
        if self._run.phase not in (UNSTARTED, OVER):
            self._restore()

    # --- the outside ----------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> list[Command]:
        """Take one event; the commands are to be performed in their order."""
        self._floor.begin(event.at)
        if self._run.phase != OVER and (self._run.phase != UNSTARTED or isinstance(event, Started)):
            _HANDLERS[type(event)](self, event)
            self._advance()
        return self._floor.commands

    def resume(self, at: float) -> list[Command]:
        """The commands that have under way again what a restored state says is under way, and start what is free."""
        self._floor.begin(at)
        if self._run.phase in (UNSTARTED, OVER):
            return []
        for name, due in sorted(self._run.timers.items()):
            self._floor.commands.append(StartTimer(name, max(due - at, 0.0)))
        for position in sorted(self._floor.open):
            self._reissue(self._plan.tasks[position], self._run.records[position])
        self._advance()
        return self._floor.commands

    def hold(self) -> None:
        """Start no more activities in this instance; a brain restored from its state starts what is free."""
        self._held = True

    @property
    def in_flight(self) -> int:
        """Activities and requests under way; timers and approvals that people are looking at do not count."""
        records = self._run.records
        return self._floor.slots + sum(
            records[position].stage in ("expiring", "closing") for position in self._floor.open
        )

    @property
    def over(self) -> bool:
        """Whether `FinishRun` was given."""
        return self._run.phase == OVER

    def to_json(self) -> dict[str, Json]:
        """The whole state as JSON."""
        return self._run.to_json([task.id for task in self._plan.tasks])

    def snapshot(self) -> dict[str, Json]:
        """How the run stands, for people: see `snapshot.py`."""
        return snapshot.take(self._plan, self._run, sorted(self._floor.open))

    def summary(self) -> str:
        """One line on how the run stands."""
        return snapshot.summary(
            self._plan, self._run, list(islice(self._floor.open, 5)), len(self._floor.open), self._scope.left
        )

    # --- events ---------------------------------------------------------------------------------------------------

    def _on_started(self, event: Started) -> None:
        run = self._run
        if run.phase != UNSTARTED:
            return
        run.start = event.start
        run.started_at = event.at
        run.title = self._title()
        if self._plan.timeout is not None:
            self._floor.start_timer(RUN_TIMER, self._plan.timeout)
        self._begin(TASKS)

    def _on_activity_completed(self, event: ActivityCompleted) -> None:
        task, record = self._task(event.task)
        if task is None or record is None or record.status != "RUNNING":
            return
        record.attempts = event.outcome.attempt
        record.acted = True
        self._complete(
            task, event.outcome.result, {"attempt": record.attempts, "task.attempt": record.attempts}
        )

    def _on_activity_failed(self, event: ActivityFailed) -> None:
        task, record = self._task(event.task)
        if task is None or record is None or not in_flight(record):
            return
        record.attempts = event.attempts
        error = event.error
        self._fail(task, TaskError(error.type, error.message, task.id, error.details))

    def _on_activity_cancelled(self, event: ActivityCancelled) -> None:
        task, record = self._task(event.task)
        if task is None or record is None or not in_flight(record):
            return
        if record.stopping:
            self._floor.end(task, "CANCELLED")
        else:
            self._fail(task, TaskError("CANCELLED", "its activity was cancelled from outside", task.id))

    def _on_timer_fired(self, event: TimerFired) -> None:
        if self._run.timers.pop(event.timer, None) is None:
            return
        kind, _, rest = event.timer.partition(":")
        if kind == RUN_TIMER:
            self._cut("timed_out")
        elif kind == "cleanup":
            self._cut("cleanup_timed_out")
        elif kind == "wait":
            task = self._plan.tasks[self._plan.positions[rest]]
            self._run.records[task.position].timer = ""
            self._complete(task, {})
        else:
            task = self._plan.tasks[self._plan.positions[rest.partition(":")[2]]]
            approval_tasks.expire(self._floor, task, self._run.records[task.position])

    def _on_approval_requested(self, event: ApprovalRequested) -> None:
        task, record = self._task(event.task)
        if task is not None and record is not None and record.stage == "requesting":
            approval_tasks.requested(self._floor, task, record, event.approval_id, event.deadline)

    def _on_approval_resolved(self, event: ApprovalResolved) -> None:
        task, record = self._task(event.task)
        if task is None or record is None or not record.stage:
            return
        if record.approval_id and record.approval_id != event.approval_id:
            return
        if event.outcome == "PENDING":
            approval_tasks.escalated(self._floor, task, record, event.deadline)
        elif event.outcome == "CANCELLED" and record.stopping:
            self._floor.end(task, "CANCELLED")
        elif isinstance(verdict := approval_tasks.verdict(task, event), TaskError):
            self._fail(task, verdict)
        else:
            self._complete(task, verdict)

    def _on_cancel_requested(self, event: CancelRequested) -> None:
        run = self._run
        if event.id and event.id in run.cancels:
            return
        run.cancels.append(event.id)
        if len(run.cancels) == 1:
            run.cancelled_by = event.by
            run.cancel_reason = event.reason
            if run.phase == TASKS:
                self._cut("cancelled")
            return
        run.skip_cleanup = True
        if run.phase != TASKS:
            self._cut("skipped")

    # --- how the run goes on --------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Follow everything that the event has set in motion, to its end."""
        while True:
            if self._floor.ended:
                for position in self._scope.ended(self._floor.ended.popleft()):
                    self._look(position)
            elif (
                self._floor.slots < self._limit
                and not self._held
                and (ready := self._scope.next_ready()) is not None
            ):
                self._launch(self._plan.tasks[ready])
            elif self._scope.left == 0 and self._run.phase != OVER:
                self._next_phase()
            else:
                break
        self._show_status()

    def _look(self, position: int) -> None:
        """Every dependency has ended: judge `run_on`, then `when`; start it, or let it wait for a slot."""
        task = self._plan.tasks[position]
        record = self._run.records[position]
        if record.status != "PENDING":
            return
        if not self._scope.allows(position):
            record.failed_upstream = self._scope.failure_upstream(position)
            self._skip(task, "upstream")
            return
        if self._run.draining and not _runs_in_a_failed_run(task):
            self._skip(task, "ended")
            return
        try:
            wanted = task.when is None or boolean(task.when.render(self._names(task)), "when")
        except UNFORESEEN as error:
            self._fail(task, TaskError(EXPRESSION, f"when: {error}", task.id))
            return
        if not wanted:
            self._skip(task, "condition")
        elif task.kind == "set":
            self._set(task, record)
        elif task.kind == "wait":
            self._wait(task, record)
        else:
            self._scope.make_ready(position)

    def _set(self, task: TaskPlan, record: TaskRecord) -> None:
        record.started_at = self._floor.now
        try:
            values = task.values.render(self._names(task))
        except UNFORESEEN as error:
            self._fail(task, TaskError(EXPRESSION, f"values: {error}", task.id))
        else:
            self._complete(task, values)

    def _wait(self, task: TaskPlan, record: TaskRecord) -> None:
        record.started_at = self._floor.now
        try:
            if task.until is not None:
                left = moment(task.until.render(self._names(task))) - self._floor.now
            else:
                left = seconds(task.duration.render(self._names(task)) if task.duration else 0)
        except UNFORESEEN as error:
            self._fail(task, TaskError(EXPRESSION, str(error), task.id))
            return
        if left <= 0:
            self._complete(task, {})
            return
        self._floor.enter(task, "WAITING")
        self._floor.start_timer(f"wait:{task.id}", left, record)

    def _launch(self, task: TaskPlan) -> None:
        record = self._run.records[task.position]
        record.started_at = self._floor.now
        try:
            command = self._start_command(task)
        except UNFORESEEN as error:
            self._fail(task, TaskError(EXPRESSION, f"config: {error}", task.id))
            return
        record.attempts = 1
        if task.kind == "approval":
            record.stage = "requesting"
            self._floor.enter(task, "WAITING")
        else:
            self._floor.enter(task, "RUNNING")
        self._floor.commands.append(command)

    def _start_command(self, task: TaskPlan) -> StartActivity | RequestApproval:
        assert self._run.start is not None
        return start_command(self._run.start, task, self._values)

    # --- how a task ends ------------------------------------------------------------------------------------------

    def _complete(self, task: TaskPlan, result: Json, names: dict[str, Json] | None = None) -> None:
        record = self._run.records[task.position]
        outputs = result
        if task.outputs is not None:
            known = {**own_names(task), **(names or {}), "result": result}
            try:
                outputs = task.outputs.render(self._values.scope(known))
            except UNFORESEEN as error:
                self._fail(task, TaskError(OUTPUTS, f"outputs: {error}", task.id))
                return
        record.outputs = outputs
        self._floor.end(task, "COMPLETED")

    def _skip(self, task: TaskPlan, reason: SkipReason) -> None:
        self._run.records[task.position].skip_reason = reason
        self._floor.end(task, "SKIPPED")

    def _fail(self, task: TaskPlan, error: TaskError) -> None:
        run = self._run
        run.records[task.position].error = error
        self._floor.end(task, "FAILED")
        run.failed.append(task.id)
        if task.continue_on_failure:
            return
        if run.phase == TASKS:
            run.first_error = run.first_error or error
            if self._plan.on_task_failure != "finish" and not run.draining and not run.cut:
                self._drain()
        elif run.phase == FINALLY:
            run.cleanup_error = run.cleanup_error or error

    # --- ending what runs -----------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """A task failed under `drain` or `cancel`: nothing new but what runs in a failed run."""
        self._run.draining = True
        for position in self._scope.take_ready():
            task = self._plan.tasks[position]
            if _runs_in_a_failed_run(task):
                self._scope.make_ready(position)
            else:
                self._skip(task, "ended")
        if self._plan.on_task_failure == "cancel":
            self._stop(sorted(self._floor.open))

    def _cut(self, why: Cut) -> None:
        """End the phase under way: nothing new at all, and what runs is asked to end. The first reason is the one that counts."""
        run = self._run
        if run.cut:
            return
        run.cut = why
        for position in self._scope.positions:
            if run.records[position].status == "PENDING":
                self._skip(self._plan.tasks[position], "ended")
        self._stop(sorted(self._floor.open))

    def _stop(self, positions: Iterable[int]) -> None:
        for position in positions:
            task = self._plan.tasks[position]
            record = self._run.records[position]
            if record.stopping:
                continue
            record.stopping = True
            if record.status == "RUNNING":
                self._floor.commands.append(CancelActivity(task.id))
            elif task.kind == "wait":
                self._floor.end(task, "CANCELLED")
            elif record.stage == "open":
                approval_tasks.close(self._floor, task, record)
            # A request that is being made or closed is waited for: only its row knows how it stands.

    # --- phases ---------------------------------------------------------------------------------------------------

    def _begin(self, phase: int) -> None:
        self._run.phase = phase
        self._run.cut = ""
        self._run.draining = False
        positions = self._plan.phase(phase)
        self._scope = Scope(self._plan.tasks, positions, self._run.records)
        for position in positions:
            if not self._plan.tasks[position].predecessors:
                self._look(position)

    def _next_phase(self) -> None:
        """The phase under way has ended: judge it, and go on with the next that has something to do."""
        run = self._run
        ended = run.phase
        if ended == TASKS:
            self._floor.forget_timer(RUN_TIMER)
            decide_tasks(self._plan, run, self._values)
        else:
            self._floor.forget_timer(_cleanup_timer(ended))
            decide_cleanup(self._plan, run)
        for phase in range(ended + 1, FINALLY + 1):
            if not self._plan.phase(phase):
                continue
            if run.skip_cleanup:
                self._skip_phase(phase, "ended")
            elif phase == ON_FAILURE and run.verdict not in ("FAILED", "TIMED_OUT"):
                self._skip_phase(phase, "condition")
            else:
                if self._plan.cleanup_timeout is not None:
                    self._floor.start_timer(_cleanup_timer(phase), self._plan.cleanup_timeout)
                self._begin(phase)
                return
        self._finish()

    def _skip_phase(self, phase: int, reason: SkipReason) -> None:
        for position in self._plan.phase(phase):
            record = self._run.records[position]
            self._floor.move(record, "SKIPPED")
            record.skip_reason = reason
            record.finished_at = self._floor.now

    def _finish(self) -> None:
        run = self._run
        run.phase = OVER
        run.finished_at = self._floor.now
        status: Any = run.verdict
        self._floor.commands.append(FinishRun(status, run.outputs, run.error))

    def _show_status(self) -> None:
        run = self._run
        if run.phase == OVER:
            status = run.verdict
        else:
            status = "WAITING" if self._floor.open and self._floor.slots == 0 else "RUNNING"
        if status != run.status:
            if run.status == "PENDING" and status != "RUNNING":
                check_run("PENDING", "RUNNING")
                run.status = "RUNNING"
            check_run(run.status, status)
            run.status = status

    # --- odds and ends --------------------------------------------------------------------------------------------

    def _task(self, name: str) -> tuple[TaskPlan, TaskRecord] | tuple[None, None]:
        position = self._plan.positions.get(name)
        if position is None:
            return None, None
        return self._plan.tasks[position], self._run.records[position]

    def _names(self, task: TaskPlan) -> Callable[[str], Json]:
        return self._values.scope(own_names(task))

    def _title(self) -> str:
        try:
            title = self._plan.title.render(self._values.lookup)
        except UNFORESEEN:
            return self._plan.name  # A title is for people: it may not keep a run from going.
        return title if isinstance(title, str) and title else self._plan.name

    def _restore(self) -> None:
        run = self._run
        self._scope = Scope.restored(self._plan.tasks, self._plan.phase(run.phase), run.records)
        self._floor.restore(self._scope.positions)

    def _reissue(self, task: TaskPlan, record: TaskRecord) -> None:
        if in_flight(record):
            self._floor.commands.append(self._start_command(task))
            if record.stopping and record.status == "RUNNING":
                self._floor.commands.append(CancelActivity(task.id))
        else:
            approval_tasks.reissue(self._floor, task, record)


_HANDLERS: Final[dict[type, Callable[[Brain, Any], None]]] = {
    Started: Brain._on_started,
    ActivityCompleted: Brain._on_activity_completed,
    ActivityFailed: Brain._on_activity_failed,
    ActivityCancelled: Brain._on_activity_cancelled,
    TimerFired: Brain._on_timer_fired,
    ApprovalRequested: Brain._on_approval_requested,
    ApprovalResolved: Brain._on_approval_resolved,
    CancelRequested: Brain._on_cancel_requested,
}


def _runs_in_a_failed_run(task: TaskPlan) -> bool:
    return task.run_on in ("failure", "always")


def _cleanup_timer(phase: int) -> str:
    return f"cleanup:{phase}"
