"""For how long a forge is left alone."""

from __future__ import annotations

from engine.forge.pauses import Pauses


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_pause_is_twice_the_one_before_it_up_to_the_longest() -> None:
    clock = Clock()
    pauses = Pauses(clock)
    found = []
    for _ in range(10):
        found.append(pauses.failed("github", 1.0, 300.0))
        clock.now += found[-1]
        assert not pauses.closed("github")
    assert found == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_calls_that_fail_together_are_one_failure_and_the_longest_wish_counts() -> None:
    pauses = Pauses(Clock())
    assert [pauses.failed("github", 1.0, 300.0) for _ in range(8)] == [2.0] * 8
    assert pauses.failed("github", 1800.0, 300.0) == 1800.0, "what the forge asks for may be longer"
    assert pauses.failed("github", 1.0, 300.0) == 1800.0


def test_a_success_ends_it_but_not_one_of_a_call_that_was_made_before_it_failed() -> None:
    clock = Clock()
    pauses = Pauses(clock)
    pauses.failed("github", 60.0, 300.0)
    pauses.well("github")
    assert pauses.closed("github")
    assert not pauses.closed("other")
    clock.now = 61.0
    pauses.well("github")
    assert pauses.failed("github", 1.0, 300.0) == 2.0
