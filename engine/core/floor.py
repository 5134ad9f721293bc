"""What is under way in a run, and the moves that keep count of it: slots, timers, commands, tasks that have ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from engine.core.contracts import CancelTimer, Command, StartTimer, TaskStatus
from engine.core.plan import TaskPlan
from engine.core.run_state import RunState, TaskRecord
from engine.core.states import check_task


class Floor:
    """The books of one run while an event is followed.

    `open` are the positions of RUNNING and WAITING tasks (a set in the order of its making), `slots` how many
    activities are in flight, `ended` the tasks whose successors have not been told yet, `commands` what the event
    has led to so far, and `now` its time.
    """

    def __init__(self, run: RunState) -> None:
        self._run = run
        self.open: dict[int, None] = {}
        self.slots = 0
        self.ended: deque[int] = deque()
        self.commands: list[Command] = []
        self.now = 0.0

    def begin(self, at: float) -> None:
        """A new event: no commands yet."""
        self.commands = []
        self.now = at

    def restore(self, positions: Sequence[int]) -> None:
        """Count again what a restored state says is under way."""
        for position in positions:
            record = self._run.records[position]
            if record.status in ("RUNNING", "WAITING"):
                self.open[position] = None
                self.slots += in_flight(record)

    # --- tasks ----------------------------------------------------------------------------------------------------

    def enter(self, task: TaskPlan, status: TaskStatus) -> None:
        """A task begins to run or to wait."""
        record = self._run.records[task.position]
        self.move(record, status)
        self.open[task.position] = None
        self.slots += in_flight(record)

    def end(self, task: TaskPlan, status: TaskStatus) -> None:
        """A task is over; its successors are told when the event is followed further."""
        record = self._run.records[task.position]
        self.slots -= in_flight(record)
        self.open.pop(task.position, None)
        self.stop_timer(record)
        record.stage = ""
        self.move(record, status)
        record.finished_at = self.now
        self._run.order += 1
        record.order = self._run.order
        self.ended.append(task.position)

    def move(self, record: TaskRecord, status: TaskStatus) -> None:
        """One step of a task, checked against the table."""
        check_task(record.status, status)
        record.status = status

    # --- timers ---------------------------------------------------------------------------------------------------

    def start_timer(self, name: str, after: float, record: TaskRecord | None = None) -> None:
        """Have `name` fire after so many seconds; `record` is the task that it belongs to."""
        if record is not None:
            record.timer = name
        self._run.timers[name] = self.now + after
        self.commands.append(StartTimer(name, after))

    def stop_timer(self, record: TaskRecord) -> None:
        """Forget the open timer of a task, if it has one."""
        if record.timer:
            self.forget_timer(record.timer)
            record.timer = ""

    def forget_timer(self, name: str) -> None:
        """Forget a timer, if it is open."""
        if self._run.timers.pop(name, None) is not None:
            self.commands.append(CancelTimer(name))


def in_flight(record: TaskRecord) -> bool:
    """Whether the task holds a slot: its activity runs, or its approval request is being made."""
    return record.status == "RUNNING" or record.stage == "requesting"
