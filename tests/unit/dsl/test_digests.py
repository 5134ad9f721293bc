"""What a task is known by: its meaning, wherever it stands and however it is labelled."""

from __future__ import annotations

from typing import Any

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.digests import task_digest

TYPES = ActivityTypes.default()
HEAD = "name: w\ninputs: {properties: {a: {type: string}, b: {type: string}}}\ntasks:\n"
CALL = (
    "  - {id: t, activity_type: python_function, config: {function: 'm:f', args: {x: '${{ inputs.b }}'}}%s}\n"
)


def digests(tasks: str) -> dict[str, str]:
    compiled: Any = check((HEAD + tasks).encode(), "f.yaml", TYPES).compiled
    assert compiled is not None
    return {task["id"]: task_digest(task, compiled["exprs"]) for task in compiled["tasks"]}


def digest(more: str = "", before: str = "") -> str:
    return digests(before + CALL % more)["t"]


def test_the_place_of_its_expressions_in_the_table_does_not_count() -> None:
    assert digest(before="  - {id: first, type: set, values: {x: '${{ inputs.a }}'}}\n") == digest()


def test_labels_do_not_count() -> None:
    assert digest(", name: Apply, description: all of it") == digest()


def test_what_it_does_counts() -> None:
    others = {
        digest(", timeout: 7s"), digest(", when: true"), digest(", retry: {}"), digest(", outputs: {x: 1}"),
        digest(", cache: {key: x}"), digest(), digests((CALL % "").replace("inputs.b", "inputs.a"))["t"],
    }  # fmt: skip
    assert len(others) == 7


def test_the_tasks_inside_count_by_their_expressions_too() -> None:
    def of(text: str) -> str:
        return digests(f"  - {{id: t, type: group, tasks: [{{id: u, type: set, values: {{x: {text}}}}}]}}\n")[
            "t"
        ]

    assert of("'${{ inputs.a }}'") != of("'${{ inputs.b }}'")
    assert of("1") != of("2")


def test_a_value_that_looks_like_a_mark_is_no_mark() -> None:
    tasks = "  - {id: t, type: set, values: {x: {$expr: 0}}, default_outputs: {$expr: 1}}\n"
    assert len(digests(tasks)["t"]) == 64
