"""The pure state machine alone: microseconds for one event, in a small and in a very large run."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from benchmarks import shapes
from benchmarks.table import Row
from engine.core.contracts import (
    ActivityCompleted,
    ActivityOutcome,
    Command,
    Event,
    FinishSlice,
    Pin,
    RunStart,
    SliceEnded,
    StartActivity,
    Started,
    StartSlice,
)
from engine.core.plan import Plan
from engine.core.state_machine import Brain
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check

LIMIT = 20.0
"""Microseconds: what an event may cost, so that a worker's time is Temporal's and not ours."""


async def measure(quick: bool) -> list[Row]:
    """A row for each shape and size."""
    sizes, events = ((10, 200), 2_000) if quick else ((10, 10_000), 60_000)
    layered = 200 if quick else 5_000
    return [
        *(
            _row(f"brain, {word} of {size:,} tasks", _plan(shape, size), max(3, events // size))
            for word, shape in (("chain", shapes.chain), ("fan-out", shapes.fan))
            for size in sizes
        ),
        _row(f"brain, DAG of {layered:,} tasks", _plan(shapes.layers, layered), max(3, events // layered)),
        *(_row(f"brain, map of {size:,} items", _map_plan(size), max(3, events // size)) for size in sizes),
    ]


def _row(what: str, plan: Plan, rounds: int) -> Row:
    cost = median(_microseconds(plan) for _ in range(rounds))
    shown = (f"{LIMIT:.0f} µs an event", f"{cost:.1f} µs an event", f"{cost / LIMIT:.2f} x")
    return Row(what, *shown, "≤ 1 x", cost <= LIMIT)


def _plan(shape: Any, size: int) -> Plan:
    """Compiled in pieces: a text of 10,000 tasks is larger than a definition may be."""
    head, tail = shape(1, "worker"), shape(size, "worker")
    compiled = _compiled(head)
    template = compiled["tasks"][0]
    compiled["tasks"] = [
        template | {"id": each["id"], "depends_on": each.get("depends_on", [])} for each in tail
    ]
    return Plan(compiled)


def _map_plan(size: int) -> Plan:
    """A map whose items are a task each, and a task behind it."""
    plain = _compiled(shapes.chain(2, "worker"))
    inner, after = plain["tasks"]
    task = {
        **{key: value for key, value in inner.items() if key not in ("config", "timeout")},
        "id": "m",
        "type": "map",
        "items": list(range(size)),
        "tasks": [inner],
        "weight": 6,
        "reads": [],
    }
    return Plan(plain | {"format": 2, "tasks": [task, after | {"depends_on": ["m"]}]})


def _compiled(tasks: Any) -> dict[str, Any]:
    text = shapes.definition("brain", tasks)
    compiled = check(text.encode(), "bench.yaml", ActivityTypes.default()).compiled
    assert compiled is not None
    return compiled


def _cost_of_the_clock() -> float:
    begin = time.process_time()
    for _ in range(2_000):
        time.process_time()
    return (time.process_time() - begin) / 2_000


class _Clock:
    """Processor time of the brains' own work, over the run and the slices that it is cut into."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._spent = 0.0
        self._events = 0

    def play(self, start: RunStart) -> Command:
        """A whole run, the driver's share left out; gives its last command."""
        brain = Brain(self._plan)
        waiting: list[Event] = [Started(start, 0.0)]
        last: Command | None = None
        while waiting:
            event = waiting.pop()
            begin = time.process_time()
            commands = brain.apply(event)
            self._spent += time.process_time() - begin
            self._events += 1
            for command in commands:
                last = command
                if isinstance(command, StartActivity):
                    waiting.append(ActivityCompleted(command.task, ActivityOutcome({"task": "x"}), 1.0))
                elif isinstance(command, StartSlice):
                    waiting.append(self._slice(command))
        assert last is not None
        return last

    @property
    def microseconds(self) -> float:
        """Mean of all events so far, without what it takes to read the clock."""
        return (self._spent / self._events - _cost_of_the_clock()) * 1e6

    def _slice(self, command: StartSlice) -> SliceEnded:
        end = self.play(command.start)
        part = command.start.slice
        assert isinstance(end, FinishSlice)
        assert part is not None
        return SliceEnded(command.task, part.offset, end.status, end.results, end.failures, None, None, 1.0)


def _microseconds(plan: Plan) -> float:
    """Mean processor time of the events of a whole run."""
    pin = Pin("brain", "main", "c" * 40, "d" * 40, "1" * 64, "2" * 64)
    clock = _Clock(plan)
    clock.play(RunStart("run", pin, {}, "bench", "2030-01-01T00:00:00Z"))
    return clock.microseconds
