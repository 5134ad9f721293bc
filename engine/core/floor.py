"""What is under way in a run, and the moves that keep count of it: places, timers, commands, what has ended."""

from __future__ import annotations

from collections import deque
from typing import Final

from engine.core.contracts import CancelTimer, Command, ReleaseSlot, StartTimer, TaskStatus
from engine.core.frames import Frame, Task
from engine.core.gates import Gate
from engine.core.run_state import RunState
from engine.core.states import check_task

STEPS: Final = 500
"""Frames that one event may open; what is left goes on after a timer of no time, so that no event takes seconds."""


class Floor:
    """The books of one run while an event is followed.

    `open` are the RUNNING and WAITING tasks by address (in the order of their making), `ended` the tasks whose
    successors have not been told yet, `finished` the frames whose composite has not, `held` what a pause keeps from
    starting, `commands` what the event has led to so far, `now` its time, and `steps` how many frames it opened.
    `family` counts the children and slices under way, `closing` the approvals whose rows are being closed.
    """

    def __init__(self, run: RunState, gate: Gate) -> None:
        self._run = run
        self.gate = gate
        self.open: dict[str, Task] = {}
        self.ended: deque[Task] = deque()
        self.finished: deque[Frame] = deque()
        self.held: dict[str, Task] = {}
        self.commands: list[Command] = []
        self.now = 0.0
        self.steps = 0
        self.family = 0

    def begin(self, at: float) -> None:
        """A new event: no commands yet."""
        self.commands = []
        self.now = at
        self.steps = 0

    # --- tasks ----------------------------------------------------------------------------------------------------

    def enter(self, task: Task, status: TaskStatus) -> None:
        """A task begins to run or to wait."""
        self.move(task, status)
        self.open[task.address] = task
        if task.undone is None:
            task.frame.open[task.plan.position] = None

    def end(self, task: Task, status: TaskStatus) -> None:
        """A task is over; its successors are told when the event is followed further."""
        self._close(task, status)
        self.ended.append(task)

    def end_undo(self, task: Task, status: TaskStatus) -> None:
        """A compensation is over: nobody waits for it but the unwinding that it belongs to."""
        self._close(task, status)

    def _close(self, task: Task, status: TaskStatus) -> None:
        self._leave(task)
        self.move(task, status)
        task.finished_at = self.now
        self._run.order += 1
        task.order = self._run.order

    def _leave(self, task: Task) -> None:
        if task.holds:
            task.gate.free(task)
        elif task.waiting:
            task.gate.drop(task)
        if self.open.pop(task.address, None) is not None and task.undone is None:
            del task.frame.open[task.plan.position]
        self.stop_timer(task)
        if task.limit:
            self.forget_timer(task.limit)
            task.limit = ""
        if task.group:
            self.commands.append(ReleaseSlot(task.address, task.group))
            task.group = ""
        task.stage = ""

    def move(self, task: Task, status: TaskStatus) -> None:
        """One step of a task, checked against the table."""
        check_task(task.status, status)
        task.status = status

    # --- timers ---------------------------------------------------------------------------------------------------

    def start_timer(self, name: str, after: float, task: Task | None = None) -> None:
        """Have `name` fire after so many seconds; `task` is the one whose next step it is."""
        if task is not None:
            task.timer = name
        self._run.timers[name] = self.now + after
        self.commands.append(StartTimer(name, after))

    def start_limit(self, task: Task, seconds: float) -> None:
        """The whole time that a task may take."""
        task.limit = f"timeout:{task.address}"
        self.start_timer(task.limit, seconds)

    def stop_timer(self, task: Task) -> None:
        """Forget the open timer of a task's next step, if it has one."""
        if task.timer:
            self.forget_timer(task.timer)
            task.timer = ""

    def forget_timer(self, name: str) -> None:
        """Forget a timer, if it is open."""
        if self._run.timers.pop(name, None) is not None:
            self.commands.append(CancelTimer(name))
