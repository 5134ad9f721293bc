"""What the cases of a definition have met: each task completed, each failed, each `when` both ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from engine.testing.driver import Trace

_CAN_FAIL: Final = frozenset({"activity"})
_PHASES: Final = ("tasks", "on_failure", "finally")


@dataclass(slots=True)
class TaskCoverage:
    """How often a task ended in each way, and what its `when` gave."""

    id: str
    can_fail: bool
    has_when: bool
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    when_true: int = 0
    when_false: int = 0

    def branches(self) -> dict[str, bool]:
        """The branches that count, and whether each was met."""
        found = {"completed": self.completed > 0}
        if self.can_fail:
            found["failed"] = self.failed > 0
        if self.has_when:
            found |= {"when true": self.when_true > 0, "when false": self.when_false > 0}
        return found


@dataclass(slots=True)
class Coverage:
    """Of one definition. `ends` counts how its runs ended."""

    workflow: str
    tasks: list[TaskCoverage]
    ends: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, compiled: dict[str, Any]) -> Coverage:
        """Nothing is met yet."""
        tasks = [
            TaskCoverage(task["id"], task["type"] in _CAN_FAIL, task["when"] is not None)
            for phase in _PHASES
            for task in compiled[phase]
        ]
        return cls(compiled["name"], tasks)

    def add(self, trace: Trace) -> None:
        """Count what a case has met."""
        if trace.status:
            self.ends[trace.status] = self.ends.get(trace.status, 0) + 1
        for task in self.tasks:
            end = trace.tasks[task.id]
            task.completed += end.status == "COMPLETED"
            task.failed += end.status == "FAILED"
            task.skipped += end.status == "SKIPPED"
            task.cancelled += end.status == "CANCELLED"
            task.when_true += end.when is True
            task.when_false += end.when is False

    @property
    def met(self) -> int:
        """Branches that were met."""
        return sum(sum(task.branches().values()) for task in self.tasks)

    @property
    def total(self) -> int:
        """Branches that there are."""
        return sum(len(task.branches()) for task in self.tasks)
