"""One brain and what is under way for it: the root of a run, or a slice of one of its maps."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from engine.core.contracts import (
    AcquireSlot,
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityOutcome,
    ApprovalRequested,
    ApprovalResolved,
    CancelActivity,
    CancelChild,
    CancelRequested,
    CancelSlice,
    CancelTimer,
    ChildEnded,
    CloseApproval,
    Command,
    DrainSlice,
    Event,
    FinishRun,
    FinishSlice,
    ReleaseSlot,
    RequestApproval,
    ResumeRequested,
    RunStart,
    SignalReceived,
    SlotGranted,
    SlotRefused,
    StartActivity,
    StartChild,
    Started,
    StartSlice,
    StartTimer,
    TaskError,
    TellFamily,
    TimerFired,
)
from engine.core.plan import Plan
from engine.core.state_machine import Brain

SHADOWED = 0.25
"""How often a second brain, restored a moment ago, is told the same, and must not differ."""


class Actor:
    """Performs commands, makes things happen, and holds the brain to what must be true at every step."""

    def __init__(
        self, chance: Random, plan: Plan, start: RunStart, bound: int, bad: float, at: float
    ) -> None:
        self.chance = chance
        self.plan = plan
        self.start = start
        self.bound = bound
        self.bad = bad
        self.at = at
        self.brain = Brain(plan, in_flight=bound)
        self.running: dict[str, bool] = {}
        """Activities under way, and whether they were asked to end."""
        self.requesting: set[str] = set()
        self.rows: dict[str, str] = {}
        """Rows of approval requests by task: PENDING or how they were resolved."""
        self.escalated: set[str] = set()
        self.closing: dict[str, str] = {}
        self.timers: dict[str, float] = {}
        self.children: dict[str, tuple[int, bool]] = {}
        """Attempt, and whether it was asked to end."""
        self.slices: dict[tuple[str, int], StartSlice] = {}
        self.stopping: set[tuple[str, int]] = set()
        self.slots: dict[str, str] = {}
        """By task: ASKED or GRANTED."""
        self.ever: set[str] = set()
        self.undo_order: list[str] = []
        self.told: list[Event] = []
        self.trace: list[Command] = []
        self.outbox: list[Command] = []
        """What is for the world to do: slices, and words to them."""
        self.above: Actor | None = None
        """Of a slice: who asked for it."""
        self.finish: FinishRun | FinishSlice | None = None
        self.restarting = False

    # --- what may happen ------------------------------------------------------------------------------------------

    def possible(self) -> list[tuple[str, str]]:
        """Everything that may happen to this brain next, of itself."""
        open_rows = [name for name, outcome in self.rows.items() if outcome == "PENDING"]
        found: list[tuple[str, str]] = [
            *(("end_activity", name) for name in self.running),
            *(("make_request", name) for name in sorted(self.requesting)),
            *(("answer_close", name) for name in self.closing),
            *(("decide", name) for name in open_rows),
            *(("end_child", name) for name in self.children),
            *(("answer_slot", name) for name, stands in self.slots.items() if stands == "ASKED"),
        ]
        if self.timers:
            found.append(("fire", min(self.timers, key=lambda name: (self.timers[name], name))))
        return found

    def happen(self, what: str, name: str) -> None:
        """One of them."""
        getattr(self, what)(name)

    def end_activity(self, name: str) -> None:
        """An activity ends, one way or another."""
        asked = self.running.pop(name)
        outcome = self.chance.choice(["gone", "fail" if self.chance.random() < self.bad else "ok", "ok"])
        if outcome == "gone" and asked:
            self.tell(ActivityCancelled(name, self.at))
        elif outcome == "fail":
            self.tell(ActivityFailed(name, TaskError("BOOM", "no"), 2, self.at))
        else:
            cached = "run-0" if self.chance.random() < 0.03 else ""
            self.tell(ActivityCompleted(name, ActivityOutcome({"n": 1}, 1, cached), self.at))

    def make_request(self, name: str) -> None:
        """A request becomes visible, or cannot be made."""
        self.requesting.discard(name)
        if self.chance.random() < 0.1:
            self.tell(ActivityFailed(name, TaskError("CONFIG", "no"), 1, self.at))
            return
        self.rows.setdefault(name, "PENDING")
        if self.chance.random() < 0.1:  # somebody is quicker than the answer
            self.decide(name)
        deadline = self.chance.choice([None, self.at + 5, self.at - 5])
        self.tell(ApprovalRequested(name, f"id-{name}", self.at, self.at, deadline))

    def decide(self, name: str) -> None:
        """Somebody decides."""
        if self.rows[name] == "PENDING":
            self.rows[name] = self.chance.choice(["APPROVED", "APPROVED", "REJECTED"])
        self._resolved(name)

    def answer_close(self, name: str) -> None:
        """The row is closed, unless it was decided before."""
        why = self.closing.pop(name)
        deadline = None
        if self.rows[name] == "PENDING":
            if why == "cancelled":
                self.rows[name] = "CANCELLED"
            elif name not in self.escalated and self.chance.random() < 0.5:
                self.escalated.add(name)
                deadline = self.at + 5
            else:
                self.rows[name] = "TIMED_OUT"
        self._resolved(name, deadline)

    def _resolved(self, name: str, deadline: float | None = None) -> None:
        outcome: Any = self.rows[name]
        self.tell(ApprovalResolved(name, f"id-{name}", outcome, [], self.at, deadline))

    def end_child(self, name: str) -> None:
        """A child run ends."""
        attempt, asked = self.children.pop(name)
        status: Any = self.chance.choice(["COMPLETED", "COMPLETED", "CANCELLED" if asked else "COMPLETED"])
        if self.chance.random() < self.bad:
            status = self.chance.choice(["FAILED", "TIMED_OUT", "CANCELLED"])
        error = None if status == "COMPLETED" else TaskError("BOOM", "no", "inside")
        self.tell(ChildEnded(name, attempt, status, {"n": 2}, error, self.at))

    def answer_slot(self, name: str) -> None:
        """A concurrency group has room, or will have none."""
        if self.chance.random() < 0.1:
            del self.slots[name]
            self.tell(SlotRefused(name, TaskError("BUSY", "no"), self.at))
        else:
            self.slots[name] = "GRANTED"
            self.tell(SlotGranted(name, self.at))

    def fire(self, name: str) -> None:
        """A timer fires."""
        self.at = max(self.at, self.timers.pop(name))
        self.tell(TimerFired(name, self.at))

    # --- the brain ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start it."""
        self.tell(Started(self.start, self.at))

    def tell(self, event: Event, *, again: bool = False) -> None:
        """Tell the brain an event, and now and then a second brain that was restored a moment ago: they must not differ."""
        shadowed = again or self.chance.random() < SHADOWED
        before = _as_json(self.brain.to_json()) if shadowed else {}
        shadow = Brain(self.plan, before, in_flight=self.bound) if shadowed else None
        commands = self.brain.apply(event)
        if shadow is not None:
            assert shadow.apply(event) == commands, f"a restored brain takes {event} for something else"
            assert shadow.to_json() == self.brain.to_json()
        if again:
            self._judge_repeat(event, before, commands)
        self.told.append(event)
        self._take(commands)

    def repeat(self) -> None:
        """Tell once more what was told before."""
        event = self.chance.choice(self.told)
        if not isinstance(event, (CancelRequested, ResumeRequested)) or event.id:
            self.tell(event, again=True)

    def crash(self) -> None:
        """Forget everything but the state; what was under way must be asked for again, and nothing else."""
        self.brain = Brain(self.plan, _as_json(self.brain.to_json()), in_flight=self.bound)
        standing = {task["id"]: task["status"] for task in self.brain.snapshot()["tasks"]}
        was = (self.running, self.requesting, self.closing, self.timers, self.children, self.slices)
        answered = {name for name in self.requesting if standing.get(name) != "WAITING"}
        self.running, self.requesting, self.closing, self.timers = {}, set(), {}, {}
        self.children, self.slices = {}, {}
        self.restarting = True
        self._take(self.brain.resume(self.at))
        self.restarting = False
        assert self.running == was[0]
        assert self.requesting == was[1] - answered
        assert self.closing.items() <= was[2].items()
        assert self.timers.keys() == was[3].keys()
        assert all(due >= self.at or due == was[3][name] for name, due in self.timers.items())
        assert self.children == was[4]
        assert self.slices == was[5]

    def _take(self, commands: list[Command]) -> None:
        for command in commands:
            assert self.finish is None, f"{command} after the end"
            self._perform(command)
        self.trace += commands

    def _perform(self, command: Command) -> None:
        match command:
            case StartActivity(task=name):
                self._judge_start(name)
                self.running[name] = False
            case RequestApproval(task=name):
                self._judge_start(name)
                self.requesting.add(name)
            case CancelActivity(task=name):
                assert not self.running[name], f"{name} was asked to end twice"
                self.running[name] = True
            case CloseApproval(task=name, why=why):
                assert self.rows.get(name) is not None
                self.closing[name] = why
            case StartTimer(timer=name, seconds=seconds):
                assert name not in self.timers
                assert seconds >= 0
                self.timers[name] = self.at + seconds
            case CancelTimer(timer=name):
                del self.timers[name]
            case StartChild(task=name, attempt=attempt):
                assert name not in self.children
                self._judge_start(f"{name}#{attempt}")
                self.children[name] = (attempt, False)
            case CancelChild(task=name):
                assert not self.children[name][1] or self._is_hurried(), f"{name} was asked to end twice"
                self.children[name] = (self.children[name][0], True)
            case StartSlice(task=name, start=RunStart(slice=part)):
                assert part is not None
                assert (name, part.offset) not in self.slices
                self.slices[name, part.offset] = command
                if not self.restarting:
                    self.outbox.append(command)
            case CancelSlice(task=name, offset=offset):
                assert (name, offset) in self.slices
                if not self.restarting:
                    self.outbox.append(command)
            case DrainSlice(task=name, offset=offset):
                assert (name, offset) in self.slices
                assert self.plan.on_task_failure == "drain"
                if not self.restarting:
                    self.outbox.append(command)
            case TellFamily():
                assert self.children or self.slices
                self.outbox.append(command)
            case AcquireSlot(task=name):
                assert self.restarting or name not in self.slots
                self.slots.setdefault(name, "ASKED")
            case ReleaseSlot(task=name):
                del self.slots[name]
            case FinishRun() | FinishSlice():
                self.finish = command

    def _is_hurried(self) -> bool:
        """Whether a second cancel has come: everybody under way is told once more."""
        return len(self.brain.to_json()["cancels"]) > 1

    # --- the judge ------------------------------------------------------------------------------------------------

    def _judge_start(self, name: str) -> None:
        if self.restarting:
            return
        assert name not in self.ever, f"{name} was started twice"
        self.ever.add(name)
        if name.endswith("~undo"):
            self.undo_order.append(name)

    def _judge_repeat(self, event: Event, before: dict[str, Any], commands: list[Command]) -> None:
        late = isinstance(event, ApprovalResolved) and event.outcome == "PENDING"
        open_question = isinstance(event, SlotGranted) and self.slots.get(event.task) == "ASKED"
        if not late and not open_question:  # a repeated escalation sets the same deadline anew
            assert commands == [], f"{event} told twice"
            assert _as_json(self.brain.to_json()) == before

    def judge_end(self) -> None:
        """Nothing may be left behind."""
        assert self.finish is not None, f"the run does not end: {self.brain.snapshot()}"
        assert self.brain.over
        assert not self.running, "activities are left behind"
        assert not self.requesting
        assert not self.timers, "timers are left behind"
        assert not self.children, "children are left behind"
        assert not self.slices, "slices are left behind"
        assert set(self.slots) <= {""}, "slots are left behind"
        assert self.brain.snapshot()["waiting"] == []
        assert self.brain.apply(CancelRequested("eve", "", self.at)) == []
        assert self.brain.apply(SignalReceived("late", "go", 1, self.at)) == []


def _as_json(state: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(state))
    return copy
