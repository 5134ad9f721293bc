"""Tasks inside of tasks: what they compile to, who sees whom, and which names they have."""

from __future__ import annotations

from typing import Any

import pytest

from engine.dsl import codes
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check

TYPES = ActivityTypes.default()
LEAF = "tasks: [{id: leaf, type: set, values: {x: 1}}]"


def compiled(text: str) -> dict[str, Any]:
    checked = check(text.encode(), "f.yaml", TYPES)
    assert checked.compiled is not None, checked.problems
    return checked.compiled


def only(text: str, head: str = "") -> dict[str, Any]:
    found: dict[str, Any] = compiled(f"name: w\n{head}tasks:\n  - {{{text}}}\n")["tasks"][0]
    return found


def problems(tasks: str, head: str = "") -> list[str]:
    return [str(p) for p in check(f"name: w\n{head}tasks:\n{tasks}".encode(), "f.yaml", TYPES).problems]


def test_a_definition_without_anything_new_has_the_first_format() -> None:
    assert compiled("name: w\ntasks: [{id: a, type: set, values: {x: 1}}]")["format"] == 1


@pytest.mark.parametrize(
    "text",
    [
        f"tasks: [{{id: a, type: map, items: [1], {LEAF}}}]",
        f"tasks: [{{id: a, type: group, {LEAF}}}]",
        f"tasks: [{{id: a, type: loop, until: true, max_iterations: 1, {LEAF}}}]",
        "tasks: [{id: a, type: workflow, workflow: b}]",
        "tasks: [{id: a, type: signal, signal: b}]",
        "tasks: [{id: a, type: end}]",
        "secrets: [A]\ntasks: [{id: a, type: set, values: {}}]",
        "concurrency: {group: x}\ntasks: [{id: a, type: set, values: {}}]",
        "triggers: [{id: t, type: webhook, secret: A}]\ntasks: [{id: a, type: set, values: {}}]",
        "tasks: [{id: a, type: set, values: {x: '${{ trigger.id }}'}}]",
        "tasks: [{id: a, activity_type: python_function, config: {function: 'm:f'}, cache: {key: x}}]",
    ],
)
def test_whatever_is_new_has_the_second_format(text: str) -> None:
    assert compiled(f"name: w\n{text}\n")["format"] == 2


def test_a_map_knows_what_its_body_reads_from_outside() -> None:
    head = "inputs: {properties: {l: {type: array}, n: {type: integer}}}\nenv: {a: 1}\n"
    made = only(
        "id: m, type: map, items: '${{ inputs.l }}', as: x, tasks: ["
        "{id: one, type: set, values: {v: '${{ x }}${{ x_index }}${{ inputs.n }}${{ env.a }}${{ run.id }}${{ task.id }}'}},"
        "{id: two, type: map, as: y, items: '${{ x }}', depends_on: [one],"
        " tasks: [{id: three, type: set, values: {v: '${{ y }}${{ tasks.one.outputs.v }}${{ trigger.id }}'}}],"
        " results: '${{ tasks.three.outputs.v }}'}],"
        "results: '${{ tasks.two.outputs }}'",
        head,
    )  # fmt: skip
    assert made["reads"] == ["env.a", "inputs.n", "run.id", "trigger.id"]
    assert made["tasks"][1]["reads"] == ["tasks.one.outputs", "trigger.id"]


def test_the_state_of_a_loop_around_is_read_from_outside_and_that_of_a_loop_inside_is_not() -> None:
    made = only(
        "id: l, type: loop, state: {n: 0}, next: {n: '${{ state.n }}'}, until: true, max_iterations: 2, tasks: ["
        "{id: m, type: map, items: [1], tasks: [{id: t, type: set, values: {v: '${{ state.n }}'}}]},"
        "{id: k, type: map, items: [1], as: y, tasks: [{id: i, type: loop, state: {n: '${{ iteration }}'}, next: {n: 1},"
        " until: '${{ state.n > 1 }}', max_iterations: 2, tasks: [{id: u, type: set, values: {v: '${{ state.n }}'}}]}]}]"
    )
    assert [task["reads"] for task in made["tasks"]] == [["state"], ["iteration"]]


def test_the_weight_of_a_map_is_that_of_one_item() -> None:
    one = only("id: m, type: map, items: [1], tasks: [{id: a, type: wait, duration: 1s}]")
    many = only(
        "id: m, type: map, items: [1], tasks: [{id: l, type: loop, until: true, max_iterations: 10, tasks: [{id: a, type: wait, duration: 1s}]}]"
    )
    assert 0 < one["weight"] < many["weight"] / 9


def test_a_map_that_waits_for_signals_is_whole() -> None:
    made = only(
        "id: m, type: map, items: [1], tasks: [{id: g, type: group, tasks: [{id: s, type: signal, signal: x}]}]"
    )
    assert made["whole"] is True
    assert "whole" not in only(f"id: m, type: map, items: [1], {LEAF}")


@pytest.mark.parametrize(
    ("written", "made"), [("3", {"count": 3}), ("10%", {"percent": 10}), ("2.5%", {"percent": 2.5})]
)
def test_tolerated_failures_are_a_count_or_a_percentage(written: str, made: dict[str, float]) -> None:
    assert (
        only(f"id: m, type: map, items: [1], tolerated_failures: {written}, {LEAF}")["tolerated_failures"]
        == made
    )


def test_every_static_call_is_listed_once() -> None:
    made = compiled(
        "name: w\ninputs: {properties: {k: {type: string}}}\ntasks:\n"
        "  - {id: a, type: workflow, workflow: x}\n  - {id: b, type: workflow, workflow: x}\n"
        "  - {id: g, type: group, tasks: [{id: c, type: workflow, workflow: '${{ inputs.k }}', one_of: [y, x], ref: latest}]}\n"
    )
    assert made["calls"] == [
        {"workflow": "x", "ref": "latest"}, {"workflow": "x", "ref": "same"}, {"workflow": "y", "ref": "latest"},
    ]  # fmt: skip


def test_a_secret_leaves_a_mark_beside_the_config_and_nothing_in_it() -> None:
    made = only(
        "id: a, activity_type: http_request, config: {url: 'https://x.test/${{ run.id }}',"
        " headers: {a: 'Bearer ${{ secrets.T }} ${{ run.id }}', b: 'plain'}, json: [1, '${{ secrets.T }}']}",
        "secrets: [T]\n",
    )
    assert made["config"]["headers"] == {"a": None, "b": "plain"}
    assert made["config"]["json"] == [1, None]
    assert made["secrets"] == [
        {"path": ["headers", "a"], "parts": ["Bearer ", {"$secret": "T"}, " ", {"$expr": 0}]},
        {"path": ["json", 1], "parts": [{"$secret": "T"}]},
    ]


def test_an_escaped_secret_is_text() -> None:
    made = only(
        "id: a, activity_type: http_request, config: {url: 'https://x.test', body: '$${{ secrets.T }}'}",
        "secrets: [T]\n",
    )
    assert made["config"]["body"] == "${{ secrets.T }}"
    assert "secrets" not in made


def test_the_undoing_of_a_task_takes_the_defaults_of_activities() -> None:
    made = only(
        "id: a, activity_type: python_function, config: {function: 'm:f'},"
        " compensate: {activity_type: python_function, config: {function: 'm:g'}}",
        "defaults: {timeout: 7s, retry: {max_attempts: 4}}\n",
    )
    assert (made["compensate"]["timeout"], made["compensate"]["retry"]["max_attempts"]) == (7.0, 4)
    assert made["compensate"]["on"] == "completed"


def test_a_child_has_only_the_retry_that_it_says_itself() -> None:
    head = "defaults: {timeout: 7s, retry: {max_attempts: 4}}\n"
    assert only("id: a, type: workflow, workflow: b", head)["retry"] is None
    assert only("id: a, type: workflow, workflow: b, retry: {}", head)["retry"]["max_attempts"] == 3


def test_an_undoing_sees_its_own_task_and_all_of_the_workflow() -> None:
    tasks = """
  - id: g
    type: group
    tasks:
      - id: a
        activity_type: python_function
        config: {function: "m:f"}
        compensate: {activity_type: python_function, config: {function: "m:g", args: {x: "${{ tasks.a.outputs.x }}", y: "${{ tasks.z.outputs.?x.orValue(0) }}"}}}
  - {id: z, type: set, values: {x: 1}}
"""
    assert problems(tasks) == []


def test_a_task_inside_reads_what_its_map_may_read() -> None:
    tasks = """
  - {id: a, type: set, values: {x: 1}}
  - {id: b, type: set, values: {x: 1}}
  - id: m
    type: map
    depends_on: [a]
    items: [1]
    tasks: [{id: t, type: set, values: {x: "${{ tasks.a.outputs.x }}", y: "${{ tasks.b.outputs.x }}"}}]
"""
    (told,) = problems(tasks)
    assert told.startswith(
        "f.yaml:10:80: NOT_UPSTREAM task `b` is not awaited here (add `b` to `depends_on` of `m`)"
    )


def test_the_same_ids_may_stand_in_lists_beside_each_other() -> None:
    tasks = """
  - {id: g, type: group, tasks: [{id: t, type: set, values: {x: 1}}, {id: u, type: set, depends_on: [t], values: {y: "${{ tasks.t.outputs.x }}"}}]}
  - {id: h, type: group, tasks: [{id: t, type: set, values: {z: 1}}, {id: u, type: set, depends_on: [t], values: {y: "${{ tasks.t.outputs.x }}"}}]}
"""
    (told,) = problems(tasks)
    assert "f.yaml:5:139: EXPRESSION unknown field 'x'" in told


def test_the_shape_of_an_item_is_that_of_the_list() -> None:
    head = (
        "inputs: {properties: {l: {type: array, items: {type: object, properties: {id: {type: string}}}}}}\n"
    )
    tasks = "  - {id: m, type: map, items: '${{ inputs.l }}', tasks: [{id: t, type: set, values: {x: '${{ item.nme }}'}}]}\n"
    (told,) = problems(tasks, head)
    assert "unknown field 'nme'" in told


def test_a_group_hands_on_what_its_last_task_may_not_have() -> None:
    tasks = """
  - {id: g, type: group, tasks: [{id: t, type: set, when: false, values: {x: 1}}]}
  - {id: z, type: set, depends_on: [g], values: {x: "${{ tasks.g.outputs.x }}"}}
"""
    (told,) = problems(tasks)
    assert codes.MAY_BE_MISSING in told


def test_what_a_guard_around_has_looked_at_is_certain_inside() -> None:
    tasks = """
  - {id: a, type: set, when: false, values: {x: 1}}
  - id: g
    type: group
    depends_on: [a]
    when: "${{ tasks.a.status == 'COMPLETED' }}"
    tasks: [{id: m, type: map, items: [1], tasks: [{id: t, type: set, values: {x: "${{ tasks.a.outputs.x }}"}}]}]
"""
    assert problems(tasks) == []


def test_a_callback_may_be_read_before_and_beside_but_not_from_outside() -> None:
    tasks = """
  - {id: a, type: set, values: {x: "${{ tasks.s.callback_url }}"}}
  - {id: s, type: signal, signal: s}
  - {id: m, type: map, items: [1], tasks: [{id: t, type: set, values: {x: "${{ tasks.u.callback_url }}${{ tasks.s.callback_url }}"}}, {id: u, type: signal, signal: u}]}
  - {id: z, type: set, values: {x: "${{ tasks.u.callback_url }}"}}
"""
    (told,) = problems(tasks)
    assert "unknown name 'tasks.u' (it stands inside of `m`" in told
