"""How tests name tasks: by path and by address, through everything that holds tasks."""

from __future__ import annotations

from typing import Any

import pytest

from engine.testing.addresses import ByAddress, Tasks, path_of, steps


def task(id: str, type: str = "activity", **more: Any) -> dict[str, Any]:
    return {"id": id, "type": type, **more}


CHILD = {"tasks": [task("pack"), task("wait_for", "signal")], "on_failure": [], "finally": []}
COMPILED = {
    "tasks": [
        task("book", compensate={"activity_type": "http_request"}),
        task("rollout", "map", tasks=[task("deploy"), task("inner", "map", tasks=[task("leaf")])]),
        task("box", "group", tasks=[task("thing")]),
        task("ship", "workflow", workflow="child"),
        task("either", "workflow", workflow={"$expr": 0}, one_of=["other", "child"]),
    ],
    "on_failure": [],
    "finally": [task("unlock")],
}
TASKS = Tasks(COMPILED, {"child": CHILD}.get)


@pytest.mark.parametrize(
    "address",
    [
        "book",
        "unlock",
        "rollout.deploy",
        "rollout[3].deploy",
        "rollout[0].inner[12].leaf",
        "rollout.inner.leaf",
        "box.thing",
        "ship.pack",
        "either.pack",
        "book~undo",
    ],
)
def test_a_task_is_found_wherever_it_stands(address: str) -> None:
    assert TASKS.find(address) is not None


@pytest.mark.parametrize(
    "address",
    ["nobody", "book[1]", "box[0].thing", "rollout.nobody", "rollout~undo", "ship.nobody", "a b", "", "x["],
)
def test_what_is_not_there_is_not_found(address: str) -> None:
    assert TASKS.find(address) is None


def test_every_path_is_told_in_the_order_of_the_definition() -> None:
    assert TASKS.paths()[:5] == ["book", "book~undo", "rollout", "rollout.deploy", "rollout.inner"]
    assert "either.wait_for" in TASKS.paths()


def test_the_value_that_names_most_indices_counts() -> None:
    values = ByAddress({"m.a": 1, "m[2].a": 2, "m[2].n.b": 3, "m[2].n[0].b": 4, "m.n[0].b": 5})
    assert [values.of(a) for a in ("m[0].a", "m[2].a", "m[2].n[7].b", "m[2].n[0].b", "m[1].n[0].b", "m[1].n[1].b")] == [
        1, 2, 3, 4, 5, None,
    ]  # fmt: skip


def test_an_undo_is_no_instance_of_its_task() -> None:
    values = ByAddress({"m.a": 1, "m.a~undo": 2})
    assert (values.of("m[4].a"), values.of("m[4].a~undo")) == (1, 2)
    assert ByAddress({"m.a": 1}).of("m[4].a~undo") is None


def test_paths_and_steps() -> None:
    assert path_of("a[1].b[22].c~undo") == "a.b.c~undo"
    assert steps("a[1].b") == [("a", "1"), ("b", "")]
    assert steps("a..b") is None
