"""Shares of work: the answers of forked children, as if nobody had been forked."""

from __future__ import annotations

import os

import pytest

from engine.cli import shares

# Newer Pythons warn of a fork beside threads; those here are the test runner's, and the children touch nothing of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

MANY = list(range(3 * shares.WORTH_A_CHILD + 1))


def test_the_answers_stand_in_the_order_of_the_items() -> None:
    assert shares.each(MANY, lambda item: [item, "ü"], processors=3) == [[item, "ü"] for item in MANY]


def test_a_large_number_of_items_is_shared() -> None:
    assert len(set(shares.each(MANY, lambda _: os.getpid(), processors=3))) == 3


def test_a_small_number_is_not() -> None:
    few = MANY[: 2 * shares.WORTH_A_CHILD - 1]
    assert set(shares.each(few, lambda _: os.getpid(), processors=3)) == {os.getpid()}


def test_what_a_child_that_died_left_out_is_done_here() -> None:
    parent = os.getpid()

    def work(item: int) -> int:
        if item == 150 and os.getpid() != parent:
            os._exit(9)
        return -item

    assert shares.each(MANY, work, processors=3) == [-item for item in MANY]


def test_what_is_raised_in_a_child_is_raised_here() -> None:
    def work(item: int) -> int:
        if item == MANY[-2]:
            raise ValueError(f"not {item}")
        return item

    with pytest.raises(ValueError, match=f"not {MANY[-2]}"):
        shares.each(MANY, work, processors=3)
