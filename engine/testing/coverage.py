"""What the cases of a definition have met: each task completed, each failed, each `when` both ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from engine.testing.addresses import UNDO, path_of
from engine.testing.traces import TaskEnd, Trace

_CAN_FAIL: Final = frozenset({"activity", "workflow", "signal", "loop"})
_PHASES: Final = ("tasks", "on_failure", "finally")


@dataclass(slots=True)
class TaskCoverage:
    """How often a task ended in each way, and what its `when` gave, over all instances. `id` is its path."""

    id: str
    can_fail: bool
    has_when: bool
    can_complete: bool = True
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    when_true: int = 0
    when_false: int = 0

    def branches(self) -> dict[str, bool]:
        """The branches that count, and whether each was met."""
        found = {"completed": self.completed > 0} if self.can_complete else {}
        if self.can_fail:
            found["failed"] = self.failed > 0
        if self.has_when:
            found |= {"when true": self.when_true > 0, "when false": self.when_false > 0}
        return found


def _tasks(listed: list[dict[str, Any]], prefix: str) -> Iterator[TaskCoverage]:
    for task in listed:
        path = prefix + task["id"]
        ends_the_run = task["type"] == "end" and task.get("status") == "FAILED"
        yield TaskCoverage(
            path, task["type"] in _CAN_FAIL, task["when"] is not None, can_complete=not ends_the_run
        )
        if task.get("compensate"):
            yield TaskCoverage(path + UNDO, can_fail=False, has_when=False)
        yield from _tasks(task.get("tasks") or [], f"{path}.")


@dataclass(slots=True)
class Coverage:
    """Of one definition. `ends` counts how its runs ended."""

    workflow: str
    tasks: list[TaskCoverage]
    ends: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, compiled: dict[str, Any]) -> Coverage:
        """Nothing is met yet."""
        tasks = [each for phase in _PHASES for each in _tasks(compiled[phase], "")]
        return cls(compiled["name"], tasks)

    def add(self, trace: Trace) -> None:
        """Count what a case has met."""
        if trace.status:
            self.ends[trace.status] = self.ends.get(trace.status, 0) + 1
        ends: dict[str, list[TaskEnd]] = {}
        for address, end in trace.tasks.items():
            ends.setdefault(path_of(address), []).append(end)
        for task in self.tasks:
            for end in ends.get(task.id, ()):
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
