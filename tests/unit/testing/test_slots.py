"""Concurrency groups in a test."""

from __future__ import annotations

from engine.testing.slots import Slots


def test_first_in_first_out_up_to_the_limit() -> None:
    slots, said = Slots(), list[str]()
    for owner in ("a", "b", "c"):
        slots.acquire("g", owner, 1, lambda owner=owner: said.append(owner))  # type: ignore[misc]
    assert said == ["a"]
    slots.release("a")
    slots.release("b")
    assert said == ["a", "b", "c"]


def test_who_stops_waiting_is_passed_over() -> None:
    slots, said = Slots(), list[str]()
    for owner in ("a", "b", "c"):
        slots.acquire("g", owner, 1, lambda owner=owner: said.append(owner))  # type: ignore[misc]
    slots.release("b")
    slots.release("a")
    assert said == ["a", "c"]


def test_a_run_that_is_over_gives_back_all_that_its_tasks_hold() -> None:
    slots, said = Slots(), list[str]()
    slots.acquire("g", "run/", 2, lambda: None)
    slots.acquire("g", "run/a", 2, lambda: None)
    slots.acquire("g", "other/", 2, lambda: said.append("other"))
    slots.release_all("run")
    assert said == ["other"]
