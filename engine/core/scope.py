"""A DAG under way: who waits for whom, and what the ends of the dependencies allow.

One scope per phase of a run.  An end touches its successors only: counters, no scans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from engine.core.plan import TaskPlan
from engine.core.run_state import TaskRecord
from engine.core.states import TASK_ENDS


class _Tally:
    """What is known of a task's dependencies."""

    __slots__ = ("blocked", "blocked_by_failure", "completed", "failed", "missing")

    def __init__(self, missing: int) -> None:
        self.missing = missing
        self.completed = 0
        self.failed = 0
        self.blocked = 0
        self.blocked_by_failure = 0


class Scope:
    """The tasks of one phase. Of `left` of them no end was told yet; `ready` ones wait for a slot, first by definition order."""

    def __init__(self, tasks: Sequence[TaskPlan], positions: range, records: Sequence[TaskRecord]) -> None:
        self._tasks = tasks
        self._records = records
        self._base = positions.start
        self._ready: list[int] = []
        self.positions = positions
        self.left = len(positions)
        self._tallies = [_Tally(len(tasks[position].predecessors)) for position in positions]

    @classmethod
    def restored(cls, tasks: Sequence[TaskPlan], positions: range, records: Sequence[TaskRecord]) -> Scope:
        """The scope as it stood when `records` were saved: between two events, all that is free to start is ready."""
        scope = cls(tasks, positions, records)
        for position in positions:
            if records[position].status in TASK_ENDS:
                for _ in scope.ended(position):
                    pass
        for position in positions:
            if records[position].status == "PENDING" and scope._tallies[position - scope._base].missing == 0:
                scope.make_ready(position)
        return scope

    def ended(self, position: int) -> Iterator[int]:
        """Tell the successors of a task that has ended; yields those that now wait for nobody. To be read to its end."""
        task = self._tasks[position]
        record = self._records[position]
        self.left -= 1
        completed = record.status == "COMPLETED"
        failed = record.status == "FAILED" or record.failed_upstream
        tolerated = record.status == "FAILED" and task.continue_on_failure
        satisfies = completed or tolerated or record.skip_reason == "condition"
        for successor in task.successors:
            tally = self._tallies[successor - self._base]
            tally.missing -= 1
            tally.completed += completed
            tally.failed += failed
            if not satisfies:
                tally.blocked += 1
                tally.blocked_by_failure += failed
            if tally.missing == 0:
                yield successor

    def allows(self, position: int) -> bool:
        """Whether the dependencies ended as `run_on` asks."""
        tally = self._tallies[position - self._base]
        match self._tasks[position].run_on:
            case "success":
                return tally.blocked == 0
            case "any_success":
                return tally.completed > 0 or not self._tasks[position].predecessors
            case "failure":
                return tally.failed > 0
            case _:
                return True

    def failure_upstream(self, position: int) -> bool:
        """Of a task that `allows` refused: whether it is skipped because an ancestor FAILED."""
        tally = self._tallies[position - self._base]
        if self._tasks[position].run_on == "success":
            return tally.blocked_by_failure > 0
        return tally.failed > 0

    def make_ready(self, position: int) -> None:
        """Put a task among those that wait for a slot."""
        heappush(self._ready, position)

    def next_ready(self) -> int | None:
        """The first task by definition order that still waits for a slot, taken out; None if there is none."""
        while self._ready:
            position = heappop(self._ready)
            if self._records[position].status == "PENDING":
                return position
        return None

    def take_ready(self) -> list[int]:
        """All tasks that wait for a slot, taken out, in definition order."""
        taken = sorted(self._ready)
        self._ready.clear()
        return [position for position in taken if self._records[position].status == "PENDING"]
