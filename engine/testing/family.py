"""All runs of one case: a heap of what will happen, and a clock that jumps to the next of it.

A family are the run that the case starts, the children that this starts, and the slices of large maps. Each has a brain
of its own; all share the clock, the people and the mocks.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from engine.core.approvals import Circumstances
from engine.core.contracts import CancelRequested, Event, FinishRun, RunStart, SignalReceived, Started
from engine.core.plan import ON_FAILURE, PHASES
from engine.core.run_state import error_to_json
from engine.testing.addresses import UNDO
from engine.testing.cases import Case, Signal, Vote
from engine.testing.runs import Run
from engine.testing.slots import Slots
from engine.testing.spans import duration
from engine.testing.stage import Stage
from engine.testing.traces import TaskEnd, Trace, Waiting, Word


class Family:
    """All runs of one case under way, and what they share."""

    def __init__(self, stage: Stage, case: Case) -> None:
        self.stage = stage
        self.case = case
        self.trace = Trace()
        self.around = Circumstances(case.started_by, frozenset({case.commit_author} - {""}))
        self.slots = Slots()
        self.given: list[Vote] = []
        self.asked: dict[str, int] = {}
        self.runs: list[Run] = []
        self.now = case.started_at
        self._heap: list[tuple[float, int, Run, Callable[[], Event | None]]] = []
        self._count = 0

    def play(self) -> Trace:
        """Until the case's run is over, or cannot go on."""
        case = self.case
        root = self.begin(self.stage.start(case), "")
        if (cancel := case.cancel) is not None:
            cancelled = partial(CancelRequested, cancel.by, cancel.reason, id="test")
            self.later(self.now + cancel.after, root, lambda: self.said(root, cancelled(at=self.now)))
        for number, signal in enumerate(case.signals):
            self.later(self.now + signal.after, root, partial(self._signal, root, f"signal-{number}", signal))
        while self._heap and root.finish is None and not self.trace.missing:
            self.now, _, run, happen = heapq.heappop(self._heap)
            event = happen()
            if event is not None:
                run.take(event)
        return self._told(root)

    def begin(self, start: RunStart, prefix: str) -> Run:
        """A run of the family; its tasks stand behind `prefix` in the trace."""
        run = Run(self, start, prefix)
        self.runs.append(run)
        self.later(self.now, run, lambda: Started(start, self.now))
        return run

    def later(self, at: float, run: Run, happen: Callable[[], Event | None]) -> None:
        """Have something happen to a run; what happens at one moment happens in the order in which it was set going."""
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, run, happen))

    def said(self, run: Run, event: Event) -> Event:
        """Note what somebody outside says to a run."""
        self.trace.words.append(Word(self.now - self.case.started_at, run.prefix, event))
        return event

    # --- signals --------------------------------------------------------------------------------------------------

    def _signal(self, root: Run, number: str, signal: Signal) -> Event | None:
        """A signal to the case's run, or a call of the callback address of a task of whichever run it stands in."""
        if not signal.task:
            return self._received(root, number, signal, "")
        whose = [run for run in self.runs if run.prefix and signal.task.startswith(run.prefix)]
        run = max(whose, key=lambda each: (len(each.prefix), self.runs.index(each)), default=root)
        rest = signal.task.removeprefix(run.prefix)
        addresses = run.awaiting(rest) or [rest]
        for address in addresses:
            self.later(self.now, run, partial(self._received, run, f"{number}/{address}", signal, address))
        return None

    def _received(self, run: Run, id: str, signal: Signal, task: str) -> Event:
        name = signal.name or "callback"
        return self.said(
            run, SignalReceived(id, name, signal.payload, self.now, signal.correlation, task, signal.by)
        )

    # --- what came of it ------------------------------------------------------------------------------------------

    def _told(self, root: Run) -> Trace:
        trace, finish = self.trace, root.finish
        if finish is not None:
            assert isinstance(finish, FinishRun)  # it is a slice that ends otherwise
            trace.refused += list(self._too_late())
            trace.status = finish.status
            trace.outputs = finish.outputs
            trace.error = error_to_json(finish.error)
        trace.took = self.now - self.case.started_at
        orders: dict[str, int] = {}
        for run in self.runs:
            snapshot = run.snapshot()
            if finish is None and not trace.missing:
                trace.waits += [
                    Waiting(run.prefix + each["task"], each["kind"]) for each in snapshot["waiting"]
                ]
            for task in snapshot["tasks"]:
                address = run.prefix + task["id"]
                trace.tasks[address] = self._end(address, task)
                trace.given[address] = task["outputs"]
                if run is root and task["order"] and task["status"] != "SKIPPED":
                    orders[address] = task["order"]
        trace.path = sorted(orders, key=orders.__getitem__)
        return trace

    def _too_late(self) -> Iterator[str]:
        after = duration(self.now - self.case.started_at)
        told: list[Vote] = list(self.given)
        for run in self.runs:
            for vote in (vote for task in run.requests for vote in run.votes(task)):
                if vote not in told:
                    told.append(vote)
                    yield f"a vote by {vote.by} was not possible: the run was over after {after}"

    def _end(self, address: str, task: dict[str, Any]) -> TaskEnd:
        return TaskEnd(
            task["status"],
            task["skip_reason"] or "",
            task["attempts"],
            self._condition(address, task),
            task["error"],
            task.get("compensation") or "",
        )

    def _condition(self, address: str, end: dict[str, Any]) -> bool | None:
        """What the task's `when` gave."""
        unasked = end["status"] == "PENDING" or end["skip_reason"] in ("upstream", "ended", "untargeted")
        if unasked or address.endswith(UNDO) or not self.stage.condition_of(address):
            return None
        if end["skip_reason"] == "condition":
            whole_phase = end["phase"] == PHASES[ON_FAILURE] and self.trace.status not in (
                "FAILED",
                "TIMED_OUT",
            )
            return None if whole_phase else False
        return True if end["started_at"] is not None else None
