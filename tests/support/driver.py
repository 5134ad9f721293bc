"""A driver of the brain for tests: every command kept, every event told by hand."""

from __future__ import annotations

import json
from typing import Any

from engine.core.contracts import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityOutcome,
    ApprovalRequested,
    ApprovalResolved,
    CancelActivity,
    CancelRequested,
    CloseApproval,
    Command,
    Event,
    FinishRun,
    RequestApproval,
    RunStart,
    StartActivity,
    Started,
    StartTimer,
    TaskError,
    TimerFired,
)
from engine.core.state_machine import Brain
from tests.support.definitions import start as run_start


class Run:
    """One run under a test's hands. `clock` is its time in seconds; `commands` those of the last event."""

    def __init__(self, compiled: dict[str, Any], start: RunStart | None = None, **options: Any) -> None:
        self.compiled = compiled
        self.start = start or run_start()
        self.brain = Brain(compiled, **options)
        self.clock = 1000.0
        self.commands: list[Command] = []
        self.history: list[Command] = []
        self.tell(Started(self.start, self.clock))

    def tell(self, event: Event) -> list[Command]:
        self.commands = self.brain.apply(event)
        self.history += self.commands
        return self.commands

    def complete(self, task: str, result: Any = None, attempt: int = 1) -> list[Command]:
        return self.tell(ActivityCompleted(task, ActivityOutcome(result, attempt), self.clock))

    def fail(self, task: str, type: str = "BOOM", attempts: int = 1) -> list[Command]:
        return self.tell(ActivityFailed(task, TaskError(type, f"{task} went wrong"), attempts, self.clock))

    def cancelled(self, task: str) -> list[Command]:
        return self.tell(ActivityCancelled(task, self.clock))

    def cancel(self, by: str = "bob", reason: str = "enough", id: str = "") -> list[Command]:
        return self.tell(CancelRequested(by, reason, self.clock, id))

    def requested(self, task: str, deadline: float | None = None) -> list[Command]:
        return self.tell(ApprovalRequested(task, f"id-{task}", self.clock, self.clock, deadline))

    def resolved(
        self, task: str, outcome: Any, *decisions: Any, deadline: float | None = None
    ) -> list[Command]:
        return self.tell(ApprovalResolved(task, f"id-{task}", outcome, list(decisions), self.clock, deadline))

    def fire(self, timer: str) -> list[Command]:
        return self.tell(TimerFired(timer, self.clock))

    def restore(self) -> list[Command]:
        """Write the state as JSON, forget everything, and go on from it."""
        state = json.loads(json.dumps(self.brain.to_json()))
        self.brain = Brain(self.compiled, state)
        self.commands = self.brain.resume(self.clock)
        return self.commands

    # --- what came of it ---

    def started(self) -> list[str]:
        """The tasks whose activities the last event started, requests for approval included."""
        return [c.task for c in self.commands if isinstance(c, (StartActivity, RequestApproval))]

    def ever_started(self) -> list[str]:
        return [c.task for c in self.history if isinstance(c, (StartActivity, RequestApproval))]

    def timers(self) -> dict[str, float]:
        return {c.timer: c.seconds for c in self.commands if isinstance(c, StartTimer)}

    def stopped(self) -> list[str]:
        return [c.task for c in self.commands if isinstance(c, CancelActivity)]

    def closed(self) -> dict[str, str]:
        return {c.task: c.why for c in self.commands if isinstance(c, CloseApproval)}

    def command(self, task: str) -> StartActivity:
        return next(c for c in reversed(self.history) if isinstance(c, StartActivity) and c.task == task)

    def finish(self) -> FinishRun | None:
        last = self.history[-1] if self.history else None
        return last if isinstance(last, FinishRun) else None

    def task(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(t for t in self.brain.snapshot()["tasks"] if t["id"] == name)
        return found

    def statuses(self) -> dict[str, str]:
        """Task → status, with the reason of a skip: `SKIPPED:upstream`."""
        tasks = self.brain.snapshot()["tasks"]
        return {t["id"]: t["status"] + (f":{t['skip_reason']}" if t["skip_reason"] else "") for t in tasks}
