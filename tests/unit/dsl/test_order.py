"""Order by `depends_on`: cycles, ancestors, and who is sure to have completed."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from engine.dsl.order import Node, Order


def order(*nodes: Node) -> Order:
    return Order(nodes)


def chain(length: int) -> Order:
    return Order([Node(f"t{i}", (i - 1,) if i else ()) for i in range(length)])


def ids(made: Order, mask: int) -> set[str]:
    return set(made.ids(mask))


def test_ancestors_are_transitive() -> None:
    made = chain(4)
    assert ids(made, made.ancestors(3)) == {"t0", "t1", "t2"}


def test_a_plain_chain_is_certain_throughout() -> None:
    made = chain(4)
    assert ids(made, made.certain(3)) == {"t0", "t1", "t2"}


def test_a_task_with_a_condition_is_not_certain_but_what_it_waited_for_is() -> None:
    made = order(Node("a", ()), Node("b", (0,), may_skip=True), Node("c", (1,)))
    assert ids(made, made.certain(2)) == {"a"}


def test_a_failure_that_is_allowed_leaves_its_task_uncertain() -> None:
    made = order(Node("a", ()), Node("b", (0,), may_fail=True), Node("c", (1,)))
    assert ids(made, made.certain(2)) == {"a"}


def test_nothing_is_certain_behind_always_and_failure() -> None:
    made = order(Node("a", ()), Node("b", (0,), "always"), Node("c", (0,), "failure"))
    assert made.certain(1) == made.certain(2) == 0


def test_any_success_is_certain_of_what_all_its_branches_share() -> None:
    made = order(Node("a", ()), Node("b", (0,)), Node("c", (0,)), Node("d", (1, 2), "any_success"))
    assert ids(made, made.certain(3)) == {"a"}


def test_at_the_end_of_a_good_run_what_could_not_be_skipped_has_completed() -> None:
    made = order(
        Node("a", ()),
        Node("b", (0,), may_skip=True),
        Node("c", (1,)),
        Node("d", (0,), "failure"),
        Node("e", (3,)),
    )
    assert ids(made, made.certain_at_end()) == {"a", "c"}


def test_each_cycle_is_named_once_and_what_hangs_on_it_is_not() -> None:
    made = order(Node("a", (1,)), Node("b", (0,)), Node("c", (1,)), Node("d", (3,)), Node("e", ()))
    assert made.cycles == [[0, 1], [3]]
    assert made.sorted == [4]


@given(st.integers(0, 2**32), st.integers(1, 25), st.floats(0, 0.5))
def test_a_random_graph_is_either_sorted_whole_or_has_a_true_cycle(
    seed: int, size: int, density: float
) -> None:
    chance = random.Random(seed)
    nodes = [Node(str(i), tuple(j for j in range(size) if chance.random() < density)) for i in range(size)]
    made = Order(nodes)
    for cycle in made.cycles:
        for position, before in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert before in nodes[position].depends_on
    assert bool(made.cycles) is (len(made.sorted) < size)
    seen: set[int] = set()
    for position in made.sorted:
        assert set(nodes[position].depends_on) <= seen
        seen.add(position)


def test_five_thousand_tasks_in_a_row_are_no_trouble() -> None:
    made = chain(5000)
    assert made.ancestors(4999).bit_count() == 4999
