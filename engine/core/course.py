"""The course of a run: how its tasks are looked at, begin, end, and lead to each other, in every frame alike.

What is peculiar to a kind of task stands in the module of the kind; `kinds.py` names them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core import scope, slices, slots, unwinding
from engine.core.addresses import index_in
from engine.core.contracts import Json, SkipReason, StartTimer, TaskError
from engine.core.error_types import EXPRESSION, OUTPUTS, TIMEOUT
from engine.core.floor import STEPS, Floor
from engine.core.frames import Frame, Task
from engine.core.gates import Gate, Ticket
from engine.core.kind import TaskKind
from engine.core.plan import FINALLY, TASKS, Plan
from engine.core.reuse import Carrier
from engine.core.run_state import Cut, RunState
from engine.core.signal_tasks import Listeners
from engine.core.task_plan import Kind
from engine.core.values import UNFORESEEN, Values, boolean, own_names
from engine.core.work import Part


class Course:
    """One run under way. `hold` keeps everything that waits for a place from being launched."""

    def __init__(
        self, plan: Plan, run: RunState, gate: Gate, kinds: Mapping[Kind, TaskKind], carrier: Carrier
    ) -> None:
        self.plan = plan
        self.run = run
        self.floor = Floor(run, gate)
        self.values = Values(plan, run)
        self.kinds = kinds
        self.carrier = carrier
        self.listeners = Listeners()
        self.hold = False

    def follow(self) -> None:
        """Follow everything that has been set in motion, to its end."""
        floor = self.floor
        while True:
            if floor.ended:
                self._tell(floor.ended.popleft())
            elif floor.finished:
                self._close(floor.finished.popleft())
            elif not self.hold and not self.run.paused and (ticket := floor.gate.take()) is not None:
                self._launch(ticket)
            else:
                return

    def _tell(self, task: Task) -> None:
        for successor in scope.ended(task):
            self.look(successor)
        frame = task.frame
        if frame.left == 0 and frame.owner is not None:
            self.floor.finished.append(frame)

    def _close(self, frame: Frame) -> None:
        owner = frame.owner
        assert owner is not None
        self.kinds[owner.plan.kind].frame_ended(self, owner, frame)

    # --- how a task begins ----------------------------------------------------------------------------------------

    def look(self, task: Task) -> None:
        """Every dependency has ended: judge `run_on`, then `when`; start it, or let it wait for its turn."""
        if task.status != "PENDING":
            return
        if self.run.paused:
            self.floor.held[task.address] = task
            return
        if not scope.allows(task):
            task.failed_upstream = scope.failure_upstream(task)
            self.skip(task, "upstream")
            return
        if task.frame.draining and not runs_in_a_failed_run(task):
            self.skip(task, "ended")
            return
        plan = task.plan
        try:
            wanted = plan.when is None or boolean(plan.when.render(self.names(task)), "when")
        except UNFORESEEN as error:
            self.fail(task, TaskError(EXPRESSION, f"when: {error}", task.address))
            return
        if not wanted:
            self.skip(task, "condition")
        elif plan.slot is not None or self.kinds[plan.kind].queued:
            task.gate.push(task)
        else:
            task.started_at = self.floor.now
            self.kinds[plan.kind].launch(self, task)

    def _launch(self, ticket: Ticket) -> None:
        if isinstance(ticket, Part):
            slices.launch(self, ticket)
            return
        assert isinstance(ticket, Task)
        if ticket.plan.slot is not None and ticket.stage != "granted" and slots.must_queue(self, ticket):
            return
        ticket.started_at = self.floor.now
        if ticket.stage == "granted":
            ticket.stage = ""
        self.kinds[ticket.plan.kind].launch(self, ticket)
        if ticket.holds and not ticket.in_flight:
            ticket.gate.free(ticket)

    def open(self, task: Task, index: int, locals: dict[str, Json]) -> Frame:
        """A new pass through the body of a composite."""
        self.floor.steps += 1
        frame = Frame.inside(task, index, locals)
        for plan in frame.block.free:
            self.look(frame.tasks[plan.position])
        return frame

    @property
    def breathless(self) -> bool:
        """Whether this event has opened so many frames that the rest must wait for the next."""
        return self.floor.steps >= STEPS

    # --- how a task ends ------------------------------------------------------------------------------------------

    def complete(
        self, task: Task, result: Json, names: Mapping[str, Json] | None = None, frame: Frame | None = None
    ) -> None:
        """A task did what it had to: `outputs` decides what of it others see. `frame` is where the mapping looks from."""
        if task.undone is not None:
            unwinding.settle(self, task, None)
            return
        outputs = result
        if task.plan.outputs is not None:
            known = {**own_names(task), **(names or {}), "result": result}
            try:
                outputs = task.plan.outputs.render(self.values.of(frame or task.frame, known))
            except UNFORESEEN as error:
                self.fail(task, TaskError(OUTPUTS, f"outputs: {error}", task.address))
                return
        task.outputs = outputs
        self.floor.end(task, "COMPLETED")

    def skip(self, task: Task, reason: SkipReason) -> None:
        """A task is not run."""
        task.skip_reason = reason
        self.floor.end(task, "SKIPPED")

    def fail(self, task: Task, error: TaskError) -> None:
        """A task failed for good."""
        if task.undone is not None:
            unwinding.settle(self, task, error)
            return
        task.error = error
        self.floor.end(task, "FAILED")
        frame = task.frame
        if frame.owner is None:
            self.run.failed.append(task.address)
        if task.plan.continue_on_failure:
            return
        if frame.owner is not None or self.run.phase in (TASKS, FINALLY):
            frame.error = frame.error or error
        if self.policy(frame) != "finish" and not frame.draining and not frame.stopping:
            self._drain(frame)

    def cancelled(self, task: Task) -> None:
        """A task has ended because it was asked to."""
        if task.doom is not None:
            self.fail(task, task.doom)
        elif task.undone is not None:
            unwinding.settle(self, task, TaskError("CANCELLED", "the clean-up was cut short", task.address))
        else:
            self.floor.end(task, "CANCELLED")

    # --- ending what runs -----------------------------------------------------------------------------------------

    def policy(self, frame: Frame) -> str:
        """`on_task_failure` as it holds in a frame: the clean-up always goes on to its end."""
        return self.plan.on_task_failure if frame.block.phase == TASKS else "finish"

    def _drain(self, frame: Frame) -> None:
        """A task failed under `drain` or `cancel`: nothing new in its frame but what runs in a failed run."""
        frame.draining = True
        for task in frame.tasks:
            if runs_in_a_failed_run(task):
                continue
            if task.status == "PENDING" and task.missing == 0 and scope.allows(task):
                self.skip(task, "ended")
            elif task.stage in ("queued", "granted"):
                self.stop(task)
        if self.policy(frame) == "cancel":
            self._stop_all(frame)

    def cut(self, frame: Frame) -> None:
        """Nothing new at all in a frame, and what runs in it is asked to end."""
        if frame.stopping or frame.over:
            return
        frame.stopping = True
        for task in frame.tasks:
            if task.status == "PENDING":
                self.skip(task, "ended")
        self._stop_all(frame)

    def end_phase(self, why: Cut) -> None:
        """End the phase under way. The first reason is the one that counts."""
        run = self.run
        if not run.cut:
            run.cut = why
            self.cut(run.frames[run.phase])

    def end_run(self, said: Json) -> None:
        """A task of type `end` was met: `{status, outputs, message, task}`. In the clean-up it ends the phase only."""
        run = self.run
        if run.phase == TASKS and not run.cut:
            run.ended = said
        self.end_phase("ended")

    def _stop_all(self, frame: Frame) -> None:
        for position in sorted(frame.open):
            self.stop(frame.tasks[position])

    def stop(self, task: Task) -> None:
        """Ask a task to end that runs or waits."""
        if task.stopping:
            return
        task.stopping = True
        if task.stage in ("queued", "granted"):
            self.cancelled(task)
        else:
            self.kinds[task.plan.kind].stop(self, task)

    def time_out(self, task: Task) -> None:
        """The whole time of a task has passed."""
        task.limit = ""
        if task.stopping:
            return
        timeout = task.plan.timeout
        task.doom = TaskError(TIMEOUT, f"not done within {timeout:g} seconds", task.address)
        self.stop(task)

    # --- pauses ---------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """A pause is over: what it kept from starting is looked at again, in the order of the definition."""
        held = sorted(self.floor.held.values(), key=lambda task: task.key)
        self.floor.held.clear()
        for task in held:
            if task.status == "PENDING":
                self.look(task)
            elif task.address in self.floor.open:
                self.kinds[task.plan.kind].fired(self, task)

    # --- odds and ends --------------------------------------------------------------------------------------------

    def names(self, task: Task) -> Any:
        """What a task's expressions may read."""
        return self.values.of(task.frame, own_names(task))

    def find(self, address: str) -> Task | None:
        """The task of an address, if its frame is there."""
        frames: Sequence[Frame] = self.run.frames
        address = address.removeprefix(frames[0].prefix)  # a slice begins inside of the run
        task: Task | None = None
        for part in address.split("."):
            name, _, index = part.partition("[")
            task = next(
                (
                    frame.tasks[frame.block.positions[name]]
                    for frame in frames
                    if name in frame.block.positions
                ),
                None,
            )
            if task is None:
                return None
            number = index_in(index)
            frames = [task.frames[number]] if number in task.frames else []
        return task

    def rearm(self) -> None:
        """Start the timers of a restored state again, with what is left of their time."""
        for name, due in sorted(self.run.timers.items()):
            self.floor.commands.append(StartTimer(name, max(due - self.floor.now, 0.0)))


def runs_in_a_failed_run(task: Task) -> bool:
    """Whether a task may start although the run has failed already."""
    return task.plan.run_on in ("failure", "always")
