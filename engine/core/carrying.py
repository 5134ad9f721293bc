"""What a rerun may take over from an earlier run, and why or why not: two drives of a brain in which nothing is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from engine.core.contracts import (
    AcquireSlot,
    ActivityFailed,
    Carried,
    ChildEnded,
    Command,
    Event,
    Json,
    RequestApproval,
    RunStart,
    SlotGranted,
    StartActivity,
    StartChild,
    Started,
    StartSlice,
    StartTimer,
    TimerFired,
)
from engine.core.plan import PHASES, TASKS, Plan
from engine.core.reuse import Carrier
from engine.core.run_state import error_from_json
from engine.core.state_machine import Brain
from engine.core.values import moment

if TYPE_CHECKING:
    from engine.core.course import Course

_INNER: Final = ("next", "more")
"""Timers of loops and maps: nothing outside of the run decides on them."""


def carried_of(plan: Plan, start: RunStart, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Carried]:
    """What an earlier run has to give, by address: from its definition, its start and the recorded states of its tasks.

    A task that was compensated, or whose compensation failed, has nothing to give.
    """
    recorder = _Recorder(start, {task["id"]: task for task in tasks})
    _drive(plan, replace(start, carried={}), recorder, recorder.answer)
    return recorder.found


def explain(plan: Plan, start: RunStart) -> list[dict[str, str]]:
    """For each of the run's own tasks that is not skipped: `{task, verdict: reuse | run, reason}`."""
    explainer = _Explainer()
    brain = _drive(plan, start, explainer, _answer_inner)
    told: list[dict[str, str]] = []
    tasks = {task["id"]: task for task in brain.snapshot()["tasks"] if task["phase"] == PHASES[TASKS]}
    for task in plan.blocks[TASKS].tasks:
        stands = tasks[task.id]
        if stands["status"] == "SKIPPED":
            continue
        verdict = "reuse" if stands.get("reused_from") else "run"
        before = [plan.blocks[TASKS].tasks[position].id for position in task.predecessors]
        open_before = [name for name in before if tasks[name]["status"] in ("PENDING", "RUNNING", "WAITING")]
        reason = explainer.reasons.get(task.id, "")
        if stands["status"] == "PENDING":
            reason = f"it comes after {open_before[0]}, which runs again" if open_before else "it has not run"
        elif not reason:
            reason = (
                "what is in it is looked at one by one" if task.body is not None else "it is worked out anew"
            )
        told.append({"task": task.id, "verdict": verdict, "reason": reason + explainer.items(task.id)})
    return told


class _Recorder(Carrier):
    """Takes over whatever the earlier run has completed, and notes what it was told."""

    def __init__(self, start: RunStart, recorded: Mapping[str, Mapping[str, Any]]) -> None:
        self._start = start
        self._recorded = recorded
        self.found: dict[str, Carried] = {}

    def idle(self, course: Course) -> bool:
        """Never."""
        return False

    def look(self, course: Course, address: str, path: str, call_digest: Callable[[], str]) -> Carried | None:
        """What the earlier run has of a task, or of an item of a map that did not complete."""
        task = self._recorded.get(address)
        if task is not None:
            outputs = task.get("outputs")
            if task["status"] != "COMPLETED" or task.get("compensation"):
                return None
            if outputs is None and address != path.partition(".")[0]:
                return None  # what is inside of a composite does not keep its outputs for ever
        else:
            outputs = self._item(address)
            if outputs is None:
                return None
        first = (task or {}).get("reused_from") or self._start.execution_id
        self.found[address] = Carried(course.plan.digest_of(path), call_digest(), outputs, first)
        return self.found[address]

    def answer(self, command: Command, at: float) -> Event | None:
        """What did not complete ends as it did then, so that what came after it is met too."""
        if isinstance(command, (StartActivity, RequestApproval, StartChild)):
            task = self._recorded.get(command.task) or {}
            error = error_from_json(task.get("error"))
            if task.get("status") != "FAILED" or error is None:
                return None
            if isinstance(command, StartChild):
                return ChildEnded(
                    command.task, command.attempt, "FAILED", None, replace(error, type="INPUTS"), at
                )
            return ActivityFailed(command.task, error, int(task.get("attempts") or 1), at)
        return _answer_inner(command, at)

    def _item(self, address: str) -> Json:
        name, _, index = address.rpartition("[")
        task = self._recorded.get(name) or {}
        results = task.get("outputs")
        number = index.removesuffix("]")
        if task.get("status") == "COMPLETED" or not isinstance(results, list) or not number.isdigit():
            return None
        return results[int(number)] if int(number) < len(results) else None


class _Explainer(Carrier):
    """Takes over what a run will take over, and says why or why not."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._items: dict[str, int] = {}

    def idle(self, course: Course) -> bool:
        """Never."""
        return False

    def look(self, course: Course, address: str, path: str, call_digest: Callable[[], str]) -> Carried | None:
        """As in the run itself."""
        found = super().look(course, address, path, call_digest)
        carried = course.run.start.carried.get(address) if course.run.start else None
        if address.endswith("]"):
            self._items[path] = self._items.get(path, 0) + (found is not None)
        elif found is not None:
            self.reasons[address] = "neither its definition nor what it is told has changed"
        elif carried is None:
            self.reasons[address] = "the earlier run has no result of it that can be taken over"
        elif carried.task_digest != course.plan.digest_of(path):
            self.reasons[address] = "its definition has changed"
        else:
            self.reasons[address] = "what it is told has changed"
        return found

    def items(self, path: str) -> str:
        """How many items of a map are reused, in words."""
        count = self._items.get(path, 0)
        return f"; {count} of its items are reused" if count else ""


def _answer_inner(command: Command, at: float) -> Event | None:
    if isinstance(command, AcquireSlot):
        return SlotGranted(command.task, at)
    if isinstance(command, StartTimer) and command.timer.partition(":")[0] in _INNER:
        return TimerFired(command.timer, at)
    return None


def _drive(
    plan: Plan, start: RunStart, carrier: Carrier, answer: Callable[[Command, float], Event | None]
) -> Brain:
    brain = Brain(plan, carrier=carrier)
    at = moment(start.started_at)
    left: deque[Command] = deque(brain.apply(Started(start, at)))
    while left:
        command = left.popleft()
        if isinstance(command, StartSlice):
            _drive(plan, command.start, carrier, answer)
            continue
        event = answer(command, at)
        if event is not None:
            left.extend(brain.apply(event))
    return brain
