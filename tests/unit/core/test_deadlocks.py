"""Who waits for ever in concurrency groups, and who only waits."""

from __future__ import annotations

from engine.core.deadlocks import Place, stuck, within


def place(position: int, group: str, *line: tuple[str, str], held: bool = False, limit: int = 1) -> Place:
    return Place(position, group, limit, held, line)


def test_a_task_stands_in_its_composites_and_in_its_run() -> None:
    assert within("rollout[3].deploy", "rollout")
    assert within("g.inner", "g")
    assert within("g", "g")
    assert within("anything", "")
    assert not within("group", "g")
    assert not within("", "g")


def test_whoever_waits_for_one_that_ends_by_itself_is_not_stuck() -> None:
    assert stuck([place(1, "g", ("a", ""), held=True), place(2, "g", ("b", ""))]) == set()


def test_two_runs_that_hold_what_the_other_wants_are_stuck() -> None:
    places = [
        place(1, "x", ("a", ""), held=True),
        place(2, "y", ("b", ""), held=True),
        place(3, "y", ("a", "t")),
        place(4, "x", ("b", "t")),
    ]
    assert stuck(places) == {3, 4}
    assert stuck(places[:3]) == set()


def test_siblings_that_hold_nothing_above_each_other_take_turns() -> None:
    places = [place(1, "x", ("a", "t1"), held=True), place(2, "x", ("a", "t2")), place(3, "x", ("a", "t3"))]
    assert stuck(places) == set()


def test_a_child_that_waits_keeps_its_ancestors_slot() -> None:
    places = [
        place(1, "x", ("a", ""), held=True),
        place(2, "y", ("b", ""), held=True),
        place(3, "y", ("child", ""), ("a", "call")),
        place(4, "x", ("grandchild", "t"), ("other", "g.call"), ("b", "call")),
    ]
    assert stuck(places) == {3, 4}


def test_a_task_s_slot_is_kept_only_by_what_stands_in_the_task() -> None:
    ring = [place(1, "x", ("a", "g"), held=True), place(2, "y", ("b", "g"), held=True)]
    assert stuck([*ring, place(3, "y", ("a", "g.t")), place(4, "x", ("b", "g.t"))]) == {3, 4}
    assert stuck([*ring, place(3, "y", ("a", "other")), place(4, "x", ("b", "g.t"))]) == set()


def test_room_for_two_breaks_a_ring_that_room_for_one_closes() -> None:
    def ring(limit: int) -> list[Place]:
        return [
            place(1, "x", ("a", ""), held=True, limit=limit),
            place(2, "y", ("b", ""), held=True),
            place(3, "y", ("a", "t")),
            place(4, "x", ("b", "t"), limit=limit),
        ]

    assert stuck(ring(1)) == {3, 4}
    assert stuck(ring(2)) == set()


def test_the_queue_is_not_jumped() -> None:
    """Who stands behind one that can never go on, never goes on either: first in, first out."""
    places = [
        place(1, "x", ("a", ""), held=True),
        place(2, "y", ("b", ""), held=True),
        place(3, "y", ("a", "t")),
        place(4, "x", ("b", "t")),
        place(5, "x", ("c", "")),
    ]
    assert stuck(places) == {3, 4, 5}
