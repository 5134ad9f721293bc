"""Each event costs work in proportion to what it changes: counted in calls of Python functions, not in time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.definitions import definition, task
from tests.support.driver import Run

MARGIN = 4
"""Calls more than in a small run; the heap of what is ready is the one thing that grows, by its logarithm."""


def calls(work: Callable[[], object]) -> int:
    """How many Python functions `work` calls."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def chain(size: int) -> Run:
    return Run(definition(task("t0"), *(task(f"t{i}", f"t{i - 1}") for i in range(1, size))))


def fan(size: int) -> Run:
    wide = [task(f"t{i}") for i in range(size)]
    return Run(definition(*wide, task("join", *(t["id"] for t in wide)), max_concurrency=5))


@pytest.mark.parametrize("shape", [chain, fan])
def test_an_event_costs_the_same_in_a_small_and_in_a_large_run(shape: Callable[[int], Run]) -> None:
    costs = []
    for size in (10, 4000):
        run = shape(size)
        run.complete("t0")
        costs.append(calls(lambda run=run: run.complete("t1")))  # type: ignore[misc]
    assert costs[1] <= costs[0] + MARGIN


def test_a_repeated_event_costs_next_to_nothing() -> None:
    run = fan(4000)
    run.complete("t0")
    assert calls(lambda: run.complete("t0")) < 20


def test_the_line_for_temporals_page_costs_the_same_in_a_small_and_in_a_large_run() -> None:
    small, large = fan(10), fan(4000)
    assert calls(large.brain.summary) <= calls(small.brain.summary) + MARGIN
