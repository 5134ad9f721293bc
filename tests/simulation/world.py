"""A world around the brain in which everything is chance, and a judge that knows the rules by itself.

One simulation: a random definition; then, step by step, anything that may happen does, in any order, some of it twice,
with crashes in between.  Slices of maps are brains of their own; children are only outcomes.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Any

from engine.core.carrying import carried_of, explain
from engine.core.contracts import (
    CancelRequested,
    CancelSlice,
    Command,
    DrainSlice,
    FinishRun,
    FinishSlice,
    Json,
    PauseRequested,
    ResumeRequested,
    RunStart,
    SignalReceived,
    SliceDrained,
    SliceEnded,
    StartSlice,
    TaskError,
    TellFamily,
)
from engine.core.plan import Plan
from tests.simulation import oracle
from tests.simulation.actor import Actor
from tests.simulation.random_definitions import CORRELATION, SIGNAL, Author
from tests.support.definitions import start

MOST_STEPS = 20_000
RERUN = 0.2
"""How often a run is run once more, taking over what it has."""
CHILD = {
    "workflow": "child",
    "source": "main",
    "commit_sha": "e" * 40,
    "revision_sha": "d" * 40,
    "digest": "4" * 64,
    "compiled_digest": "5" * 64,
    "bundle_digest": "",
    "dsl": "1",
    "size": 100,
    "calls": {},
}


class World:
    """A run, its slices, and everything outside of them."""

    def __init__(self, chance: Random, *, first: World | None = None) -> None:
        """`first` is the run that this one is a rerun of."""
        self.chance = chance
        self.first = first
        self.compiled: dict[str, Any] = first.compiled if first else Author(chance).write()
        self.plan = Plan(self.compiled)
        self.bound = chance.choice([1, 3, 500, 500])
        self.bad = chance.choice([0.0, 0.2, 0.5])
        self.calm = chance.random() < 0.5  # nobody cancels
        self.every: list[Actor] = []
        self.root = self._actor(self._begun(), 1000.0)
        self.actors = [self.root]
        self.number = 0
        self.signalled = 0

    def simulate(self) -> list[Command]:
        """Play until the run ends, and perhaps once more; gives all commands. Raises AssertionError at the first broken rule."""
        commands = self._play()
        if self.first is None and self.chance.random() < RERUN:
            again = World(self.chance, first=self)
            commands += again._play()
            again._judge_what_was_taken_over()
        return commands

    def _play(self) -> list[Command]:
        self.root.begin()
        self._deliver()
        for _ in range(MOST_STEPS):
            if self.root.finish is not None:
                break
            self._step()
            self._deliver()
            self._judge_limits()
        self._judge_end()
        return [command for actor in self.every for command in actor.trace]

    # --- steps ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        chance = self.chance.random()
        self.root.at += self.chance.random()
        for actor in self.actors:
            actor.at = max(actor.at, self.root.at)
        actor = self.chance.choice(self.actors)
        if chance < 0.02:
            self._meddle()
        elif chance < 0.05 and actor.told and actor.finish is None:
            actor.repeat()
        elif chance < 0.08 and actor.finish is None:
            actor.crash()
        elif chance < 0.10:
            self._signal()
        else:
            self._happen()

    def _happen(self) -> None:
        possible = [
            (actor, what, name)
            for actor in self.actors
            if actor.finish is None
            for what, name in actor.possible()
        ]
        done = [
            (actor, "report", "")
            for actor in self.actors
            if actor is not self.root and actor.finish is not None
        ]
        choice = [*possible, *done]
        if not choice:
            self._unstick()
            return
        actor, what, name = self.chance.choice(choice)
        if what == "report":
            self._report(actor)
        else:
            actor.happen(what, name)

    def _unstick(self) -> None:
        """Nothing happens of itself: somebody must resume the run, or signal it."""
        if self.root.brain.snapshot()["status"] == "PAUSED":
            self._resume()
            return
        waiting = [w["kind"] for actor in self.actors for w in actor.brain.snapshot()["waiting"]]
        assert "signal" in waiting, f"the run is stuck: {self.root.brain.snapshot()}"
        self._signal()

    def _meddle(self) -> None:
        what = self.chance.choice(["cancel", "pause", "pause", "resume"])
        if what == "cancel" and not self.calm:
            number = self.chance.choice(["one", "two"])
            self.root.tell(CancelRequested("bob", "", self.root.at, number))
        elif what == "pause":
            self.number += 1
            self.root.tell(PauseRequested("bob", "", self.root.at, f"p{self.number}"))
        elif what == "resume":
            self._resume()

    def _resume(self) -> None:
        self.number += 1
        self.root.tell(ResumeRequested("bob", self.root.at, f"p{self.number}"))

    def _signal(self) -> None:
        """By name, with or without what some of its tasks ask for; or for one task alone, as a callback is."""
        self.signalled += 1
        waiting = [w["task"] for w in self.root.brain.snapshot()["waiting"] if w["kind"] == "signal"]
        task = self.chance.choice(waiting) if waiting and self.chance.random() < 0.3 else ""
        correlation = self.chance.choice(["", CORRELATION])
        id = f"s{self.signalled}"
        self.root.tell(SignalReceived(id, SIGNAL, self.signalled, self.root.at, correlation, task))

    # --- slices ---------------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        """Hand on what the brains ask of each other."""
        for actor in list(self.actors):
            while actor.outbox:
                self._hand_on(actor, actor.outbox.pop(0))

    def _hand_on(self, actor: Actor, command: Command) -> None:
        match command:
            case StartSlice(start=begun):
                part = self._actor(begun, self.root.at)
                part.above = actor
                self.actors.append(part)
                part.begin()
                self._hand_all(part)
            case CancelSlice(task=name, offset=offset):
                self._to_slice(actor, name, offset, CancelRequested("family", "", self.root.at))
            case DrainSlice(task=name, offset=offset):
                self._to_slice(actor, name, offset, SliceDrained(self.root.at))
            case TellFamily(what=what):
                self.number += 1
                for part in [each for each in self.actors if each.above is actor and each.finish is None]:
                    told: Any = (
                        PauseRequested("family", "", self.root.at, f"p{self.number}")
                        if what == "pause"
                        else ResumeRequested("family", self.root.at, f"p{self.number}")
                    )
                    part.tell(told)
                    self._hand_all(part)

    def _hand_all(self, actor: Actor) -> None:
        while actor.outbox:
            self._hand_on(actor, actor.outbox.pop(0))

    def _to_slice(self, above: Actor, name: str, offset: int, event: Any) -> None:
        for actor in self.actors:
            part = actor.start.slice
            if actor.above is above and part is not None and (part.task, part.offset) == (name, offset):
                if actor.finish is None:
                    actor.tell(event)
                    self._hand_all(actor)
                return
        raise AssertionError(f"there is no slice {name}[{offset}]")

    def _report(self, actor: Actor) -> None:
        """A slice that is over tells the run that asked for it."""
        finish, part, above = actor.finish, actor.start.slice, actor.above
        assert isinstance(finish, FinishSlice)
        assert part is not None
        assert above is not None
        actor.judge_end()
        self.actors.remove(actor)
        del above.slices[part.task, part.offset]
        undo: Json = finish.undo
        status: Any = finish.status
        error = finish.error
        if part.undo is None and self.bad and self.chance.random() < 0.02:
            status, error, undo = "FAILED", TaskError("LOST", "no"), None
        event = SliceEnded(
            part.task,
            part.offset,
            status,
            finish.results,
            finish.failures,
            error,
            undo,
            self.root.at,
            finish.ended,
        )
        above.tell(event)

    def _actor(self, begun: RunStart, at: float) -> Actor:
        actor = Actor(self.chance, self.plan, begun, self.bound, self.bad, at)
        self.every.append(actor)
        return actor

    def _begun(self) -> RunStart:
        if self.first is not None:
            old = self.first.root
            carried = carried_of(self.plan, old.start, old.brain.snapshot()["tasks"])
            return dataclasses.replace(old.start, execution_id="run-2", rerun_of="run-1", carried=carried)
        begun = start()
        pin = dataclasses.replace(
            begun.pin, calls={"child@same": "main/child@e"}, closure={"main/child@e": CHILD}
        )
        targets: tuple[str, ...] = ()
        if self.chance.random() < 0.1:
            targets = (self.chance.choice(self.plan.blocks[0].tasks).id,)
        return dataclasses.replace(begun, pin=pin, targets=targets)

    # --- the judge ------------------------------------------------------------------------------------------------

    def _judge_limits(self) -> None:
        limit = min(self.compiled["max_concurrency"] or self.bound, self.bound)
        busy = sum(len(actor.running) + len(actor.requesting) + len(actor.children) for actor in self.actors)
        assert busy <= limit, f"{busy} are in flight, and {limit} may be"

    def _judge_end(self) -> None:
        self.root.judge_end()
        assert isinstance(self.root.finish, FinishRun)
        assert self.actors == [self.root], "slices are left behind"
        oracle.judge(self.compiled, self.root.brain.snapshot(), self.root.finish, self._facts())

    def _judge_what_was_taken_over(self) -> None:
        """What is reused was done before and not undone, gives the same, and is not done again."""
        assert self.first is not None
        before = {task["id"]: task for task in self.first.root.brain.snapshot()["tasks"]}
        now = {task["id"]: task for task in self.root.brain.snapshot()["tasks"]}
        for address, task in now.items():
            if "reused_from" in task:
                assert task["status"] == "COMPLETED"
                assert before[address]["status"] == "COMPLETED"
                assert not before[address].get("compensation")
                assert task["outputs"] in (before[address]["outputs"], None)
                assert address not in self.root.ever
        before_it = {task["id"]: task["depends_on"] for task in self.compiled["tasks"]}
        for told in explain(self.plan, self.root.start):
            name = told["task"]
            # One that stands behind others may be told something else after all, if those ended otherwise this time.
            known = all("reused_from" in now[other] for other in before_it[name])
            if told["verdict"] == "reuse" and now[name]["status"] == "COMPLETED" and known:
                assert "reused_from" in now[name], f"{told} and it ran"

    def _facts(self) -> oracle.Facts:
        state = self.root.brain.to_json()
        return oracle.Facts(
            cancels=len(state["cancels"]),
            targets=self.root.start.targets,
            undone=self.root.undo_order,
            ended=(state.get("ended") or {}).get("status", ""),
            rerun=self.first is not None,
        )
