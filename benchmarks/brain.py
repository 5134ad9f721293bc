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
    Pin,
    RunStart,
    StartActivity,
    Started,
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
    return [
        _row(f"brain, {word} of {size:,} tasks", _plan(shape, size), max(3, events // size))
        for word, shape in (("chain", shapes.chain), ("fan-out", shapes.fan))
        for size in sizes
    ]


def _row(what: str, plan: Plan, rounds: int) -> Row:
    cost = median(_microseconds(plan) for _ in range(rounds))
    shown = (f"{LIMIT:.0f} µs an event", f"{cost:.1f} µs an event", f"{cost / LIMIT:.2f} x")
    return Row(what, *shown, "≤ 1 x", cost <= LIMIT)


def _plan(shape: Any, size: int) -> Plan:
    """Compiled in pieces: a text of 10,000 tasks is larger than a definition may be."""
    head, tail = shape(1, "worker"), shape(size, "worker")
    text = shapes.definition("brain", head)
    compiled = check(text.encode(), "bench.yaml", ActivityTypes.default()).compiled
    assert compiled is not None
    template = compiled["tasks"][0]
    compiled["tasks"] = [
        template | {"id": each["id"], "depends_on": each.get("depends_on", [])} for each in tail
    ]
    return Plan(compiled)


def _microseconds(plan: Plan) -> float:
    """A whole run, the driver's share left out: mean processor time of its events."""
    pin = Pin("brain", "main", "c" * 40, "d" * 40, "1" * 64, "2" * 64)
    brain = Brain(plan)
    spent = 0.0
    events = 1
    begin = time.process_time()
    commands: list[Command] = brain.apply(
        Started(RunStart("run", pin, {}, "bench", "2030-01-01T00:00:00Z"), 0.0)
    )
    spent += time.process_time() - begin
    waiting = [each.task for each in commands if isinstance(each, StartActivity)]
    while waiting:
        event = ActivityCompleted(waiting.pop(), ActivityOutcome({"task": "x"}), 1.0)
        begin = time.process_time()
        commands = brain.apply(event)
        spent += time.process_time() - begin
        events += 1
        waiting += [each.task for each in commands if isinstance(each, StartActivity)]
    return spent / events * 1e6
