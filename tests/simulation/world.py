"""A world around the brain in which everything is chance, and a judge that knows the rules by itself.

One simulation: a random definition; then, step by step, anything that may happen does, in any order, some of it twice,
with crashes in between.  The judge holds the brain to what must be true whatever happens.
"""

from __future__ import annotations

import json
from random import Random
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
    CancelTimer,
    CloseApproval,
    Command,
    Event,
    FinishRun,
    RequestApproval,
    StartActivity,
    Started,
    StartTimer,
    TaskError,
    TimerFired,
)
from engine.core.plan import Plan
from engine.core.state_machine import Brain
from engine.core.states import RUN_ENDS, TASK_ENDS
from tests.simulation import oracle
from tests.support.definitions import definition, start, task

MOST_STEPS = 5_000


def random_definition(chance: Random) -> dict[str, Any]:
    """Any shape that the language allows, small enough to be read when it fails."""
    size = chance.choice([1, 2, 3, 5, 8, 13, 30])
    sloppy = chance.random() < 0.3  # an author whose expressions fail
    return definition(
        *_phase(chance, "t", size, sloppy),
        on_failure=_phase(chance, "f", chance.randint(0, 3), sloppy),
        finally_=_phase(chance, "e", chance.randint(0, 3), sloppy),
        max_concurrency=chance.choice([None, None, 1, 2, 5]),
        on_task_failure=chance.choice(["finish", "drain", "cancel"]),
        timeout=chance.choice([None, None, 50.0]),
        cleanup_timeout=chance.choice([None, 20.0]),
        outputs=chance.choice(
            [None, {"x": "${{ tasks.t0.status }}"}, "${{ 1 / 0 }}" if sloppy else {"x": 1}]
        ),
        title="${{ run.id }}",
    )


def _phase(chance: Random, letter: str, size: int, sloppy: bool) -> list[dict[str, Any]]:
    density = chance.random()
    tasks = []
    for index in range(size):
        before = [f"{letter}{other}" for other in range(index) if chance.random() < density / (1 + index / 4)]
        tasks.append(_task(chance, f"{letter}{index}", before, sloppy))
    return tasks


def _task(chance: Random, name: str, before: list[str], sloppy: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "run_on": chance.choice(["success"] * 4 + ["any_success", "failure", "always"]),
        "when": chance.choice([None] * 8 + ["${{ true }}", "${{ false }}"]),
        "continue_on_failure": chance.random() < 0.2,
        "default_outputs": chance.choice([None, {"n": 0}]),
    }
    if sloppy:
        wrong = ["${{ 1 / 0 == 1 }}", "${{ 'text' }}"]
        fields["when"] = chance.choice([fields["when"]] * 6 + wrong)
    if before:
        seen = chance.choice(before)
        fields["when"] = chance.choice([fields["when"], f"${{{{ tasks.{seen}.status != 'FAILED' }}}}"])
        fields["config"] = {"seen": f"${{{{ tasks.{seen}.outputs }}}}"}
    match chance.choice(["activity"] * 7 + ["approval", "wait", "set"]):
        case "approval":
            on_reject = chance.choice(["fail", "continue"])
            fields |= {"activity_type": "human_approval", "config": {"message": "?", "on_reject": on_reject}}
        case "wait":
            fields |= {
                "type": "wait",
                "duration": chance.choice([5.0, "${{ '1m' }}", "${{ -1 }}" if sloppy else 0.0]),
            }
        case "set":
            fields |= {
                "type": "set",
                "values": chance.choice([{"n": 1}, {"n": "${{ 1 / 0 }}" if sloppy else "${{ 1 + 1 }}"}]),
            }
        case _:
            fields["outputs"] = chance.choice(
                [None] * 5 + ["${{ result.n }}", {"n": "${{ result.missing }}"} if sloppy else None]
            )
    return task(name, *before, **fields)


class World:
    """Everything outside of the brain."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.compiled = random_definition(chance)
        self.plan = Plan(self.compiled)
        self.bound = chance.choice([1, 3, 500])
        self.brain = Brain(self.plan, in_flight=self.bound)
        self.bad = chance.choice([0.0, 0.2, 0.5])
        self.at = 1000.0
        self.running: dict[str, bool] = {}
        """Activities under way, and whether they were asked to end."""
        self.requesting: set[str] = set()
        self.rows: dict[str, str] = {}
        """Rows of approval requests by task: PENDING or how they were resolved."""
        self.escalated: set[str] = set()
        self.closing: dict[str, str] = {}
        self.timers: dict[str, float] = {}
        self.ever: list[str] = []
        self.told: list[Event] = []
        self.trace: list[Command] = []
        self.finish: FinishRun | None = None
        self.restarting = False

    def simulate(self) -> list[Command]:
        """Play until the run ends; gives all commands. Raises AssertionError at the first broken rule."""
        self.tell(Started(start(), self.at))
        for _ in range(MOST_STEPS):
            if self.finish is not None:
                break
            self.step()
        self.judge_end()
        return self.trace

    def step(self) -> None:
        """One thing happens."""
        chance = self.chance.random()
        if chance < 0.02:
            self.tell(CancelRequested("bob", "", self.at, self.chance.choice(["", "one", "two"])))
        elif chance < 0.07 and self.told:
            self.tell(self.chance.choice(self.told), again=True)
        elif chance < 0.11:
            self.crash()
        else:
            self.happen()

    def happen(self) -> None:
        open_rows = [name for name, outcome in self.rows.items() if outcome == "PENDING"]
        possible: list[tuple[str, str]] = [
            *(("activity", name) for name in self.running),
            *(("request", name) for name in sorted(self.requesting)),
            *(("close", name) for name in self.closing),
            *(("decide", name) for name in open_rows),
        ]
        if self.timers:
            possible.append(("timer", min(self.timers, key=lambda name: (self.timers[name], name))))
        assert possible, f"the run is stuck: {self.brain.snapshot()}"
        what, name = self.chance.choice(possible)
        self.at += self.chance.random()
        {
            "activity": self.end_activity,
            "request": self.make_request,
            "close": self.answer_close,
            "decide": self.decide,
            "timer": self.fire,
        }[what](name)

    def end_activity(self, name: str) -> None:
        asked = self.running.pop(name)
        outcome = self.chance.choice(["gone", "fail" if self.chance.random() < self.bad else "ok", "ok"])
        if outcome == "gone" and asked:
            self.tell(ActivityCancelled(name, self.at))
        elif outcome == "fail":
            self.tell(ActivityFailed(name, TaskError("BOOM", "no"), 2, self.at))
        else:
            self.tell(ActivityCompleted(name, ActivityOutcome({"n": 1}, 1), self.at))

    def make_request(self, name: str) -> None:
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
        if self.rows[name] == "PENDING":
            self.rows[name] = self.chance.choice(["APPROVED", "APPROVED", "REJECTED"])
        self.resolved(name)

    def answer_close(self, name: str) -> None:
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
        self.resolved(name, deadline)

    def resolved(self, name: str, deadline: float | None = None) -> None:
        outcome: Any = self.rows[name]
        self.tell(ApprovalResolved(name, f"id-{name}", outcome, [], self.at, deadline))

    def fire(self, name: str) -> None:
        self.at = max(self.at, self.timers.pop(name))
        self.tell(TimerFired(name, self.at))

    # --- the brain ---

    def tell(self, event: Event, *, again: bool = False) -> None:
        """Tell an event to the brain, and to a second one that was restored a moment ago: they must not differ."""
        shadow = Brain(self.compiled, _as_json(self.brain.to_json()), in_flight=self.bound)
        before = self.brain.to_json()
        commands = self.brain.apply(event)
        assert shadow.apply(event) == commands
        assert shadow.to_json() == self.brain.to_json()
        if again and not isinstance(event, CancelRequested):
            self.judge_repeat(event, before, commands)
        self.told.append(event)
        self.take(commands)

    def crash(self) -> None:
        """Forget everything but the state; what was under way must be asked for again, and nothing else."""
        self.brain = Brain(self.compiled, _as_json(self.brain.to_json()), in_flight=self.bound)
        was = (dict(self.running), set(self.requesting), dict(self.closing), dict(self.timers))
        answered = {name for name in self.requesting if self.task(name)["status"] != "WAITING"}
        self.running, self.requesting, self.closing, self.timers = {}, set(), {}, {}
        self.restarting = True
        self.take(self.brain.resume(self.at))
        self.restarting = False
        assert self.running == was[0]
        assert self.requesting == was[1] - answered
        assert self.closing.items() <= was[2].items()
        assert self.timers.keys() == was[3].keys()
        assert all(due >= self.at or due == was[3][name] for name, due in self.timers.items())

    def take(self, commands: list[Command]) -> None:
        for command in commands:
            assert self.finish is None, f"{command} after the end"
            match command:
                case StartActivity(task=name):
                    self.judge_start(name)
                    self.running[name] = False
                case RequestApproval(task=name):
                    self.judge_start(name)
                    self.requesting.add(name)
                case CancelActivity(task=name):
                    assert not self.running[name], f"{name} was asked to end twice"
                    self.running[name] = True
                case CloseApproval(task=name, why=why):
                    self.closing[name] = why
                case StartTimer(timer=name, seconds=seconds):
                    assert name not in self.timers
                    assert seconds >= 0
                    self.timers[name] = self.at + seconds
                case CancelTimer(timer=name):
                    del self.timers[name]
                case FinishRun():
                    self.finish = command
        self.trace += commands
        busy = len(self.running) + sum(self.task(name)["status"] == "WAITING" for name in self.requesting)
        assert busy <= min(self.compiled["max_concurrency"] or self.bound, self.bound)

    # --- the judge ---

    def task(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.brain.snapshot()["tasks"][self.plan.positions[name]]
        return found

    def judge_start(self, name: str) -> None:
        if not self.restarting:
            assert name not in self.ever, f"{name} was started twice"
            self.ever.append(name)
        plan = self.plan.tasks[self.plan.positions[name]]
        for before in plan.predecessors:
            ahead = self.plan.tasks[self.plan.phase(plan.phase).start + before].id
            assert self.task(ahead)["status"] in TASK_ENDS, f"{name} was started before {ahead} ended"

    def judge_repeat(self, event: Event, before: dict[str, Any], commands: list[Command]) -> None:
        late = isinstance(event, ApprovalResolved) and event.outcome == "PENDING"
        if not late:  # a repeated escalation sets the same deadline anew
            assert commands == [], f"{event} told twice"
            assert self.brain.to_json() == before

    def judge_end(self) -> None:
        assert self.finish is not None, "the run does not end"
        assert self.brain.over
        snapshot = self.brain.snapshot()
        assert snapshot["status"] == self.finish.status
        assert self.finish.status in RUN_ENDS
        assert all(t["status"] in TASK_ENDS for t in snapshot["tasks"])
        assert not self.running, "activities are left behind"
        assert not self.timers, "timers are left behind"
        assert snapshot["waiting"] == []
        assert self.brain.apply(CancelRequested("eve", "", self.at)) == []
        oracle.judge(self.plan, snapshot, self.finish, cut=bool(self.brain.to_json()["cancels"]))


def _as_json(state: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(state))
    return copied
