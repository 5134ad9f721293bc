"""Definitions that start each other: what can be known before any of them runs."""

from __future__ import annotations

from engine.dsl import codes
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.calls import Definition, check_calls
from engine.dsl.checking import check

TYPES = ActivityTypes.default()
CHILD = """
name: child
inputs: {required: [service], properties: {service: {type: string}, n: {type: integer, default: 1}, at: {}}}
tasks: [{id: t, type: set, values: {x: 1}}]
"""


def definition(text: str, file: str = "") -> Definition:
    checked = check(text.encode(), file, TYPES)
    assert checked.compiled is not None, checked.problems
    return Definition(checked.compiled, file or f"{checked.name}.yaml", text.encode())


def caller(task: str, name: str = "caller") -> Definition:
    return definition(f"name: {name}\ntasks:\n  - {{id: c, type: workflow, {task}}}\n")


def told(*definitions: Definition) -> list[str]:
    return [str(problem) for problem in check_calls(definitions)]


def test_a_child_that_is_there_and_fits_is_no_problem() -> None:
    assert told(definition(CHILD), caller("workflow: child, inputs: {service: web, n: 2}")) == []


def test_a_missing_child_is_told_where_it_is_named() -> None:
    assert told(definition(CHILD), caller("workflow: chlid")) == [
        "caller.yaml:3:39: CALL there is no workflow `chlid` (did you mean `child`?)"
    ]


def test_each_name_of_one_of_must_be_there() -> None:
    text = (
        "name: caller\ninputs: {properties: {k: {type: string}}}\ntasks:\n"
        "  - {id: c, type: workflow, workflow: '${{ inputs.k }}', one_of: [child, nobody], inputs: {service: x}}\n"
    )
    (problem,) = check_calls([definition(CHILD), definition(text)])
    assert (problem.code, problem.line, problem.column) == (codes.CALL, 4, 74)


def test_a_child_of_another_commit_is_not_looked_for_here() -> None:
    assert told(caller("workflow: child, ref: 0123abc")) == []


def test_the_latest_child_is_looked_for_among_what_is_live_together() -> None:
    (said,) = told(caller("workflow: child, ref: latest, inputs: {}"))
    assert (
        "there is no workflow `child` (a child of `ref: latest` is what is live in the same source)" in said
    )
    (said,) = told(definition(CHILD), caller("workflow: child, ref: latest"))
    assert said.endswith("CALL `child`: the input `service` is required")


def test_inputs_that_cannot_fit_are_told_all_at_once() -> None:
    found = told(definition(CHILD), caller("workflow: child, inputs: {servce: web, n: x}"))
    assert found == [
        "caller.yaml:3:39: CALL `child`: the input `service` is required",
        "caller.yaml:3:55: CALL `child`: there is no input `servce` (did you mean `service`?)",
        'caller.yaml:3:71: CALL `child`: does not fit the input: "x" is not of type "integer"',
    ]


def test_what_an_expression_gives_is_not_judged() -> None:
    assert (
        told(definition(CHILD), caller("workflow: child, inputs: {service: '${{ run.id }}', at: {$expr: 1}}"))
        == []
    )


def test_a_child_without_inputs_takes_none() -> None:
    bare = definition("name: bare\ntasks: [{id: t, type: set, values: {x: 1}}]")
    (problem,) = told(bare, caller("workflow: bare, inputs: {x: 1}"))
    assert "there is no input `x` (it takes no inputs)" in problem


def test_calls_inside_of_other_tasks_are_found() -> None:
    text = (
        "name: caller\ntasks:\n  - id: m\n    type: map\n    items: [1]\n    tasks:\n"
        "      - {id: g, type: group, tasks: [{id: c, type: workflow, workflow: nobody}]}\n"
    )
    (problem,) = check_calls([definition(text)])
    assert (problem.line, problem.column, problem.path) == (7, 72, "tasks.0.tasks.0.tasks.0.workflow")


def test_workflows_that_start_each_other_are_told_once() -> None:
    circle = [caller("workflow: b", "a"), caller("workflow: c, ref: latest", "b"), caller("workflow: a", "c")]
    assert told(*circle) == [
        "a.yaml:3:39: CALL_CYCLE workflows start each other, without end: a -> b -> c -> a "
        "(break the circle, or repeat with `type: loop`)"
    ]


def test_two_ways_to_one_child_are_no_circle() -> None:
    leaf = definition("name: leaf\ntasks: [{id: t, type: set, values: {x: 1}}]")
    assert (
        told(caller("workflow: b", "a"), caller("workflow: leaf", "b"), caller("workflow: leaf", "c"), leaf)
        == []
    )


def test_a_definition_without_its_text_is_named_by_its_file() -> None:
    found = caller("workflow: nobody")
    (problem,) = check_calls([Definition(found.compiled, found.file)])
    assert (problem.file, problem.line) == ("caller.yaml", 0)


def test_a_deep_chain_of_calls_takes_no_stack() -> None:
    chain = [caller(f"workflow: w{i + 1}", f"w{i}") for i in range(1, 1500)]
    assert told(*chain, caller("workflow: w1", "w1500"))[0].startswith("w1.yaml:3:39: CALL_CYCLE")


def test_a_child_with_faults_of_its_own_is_there() -> None:
    assert check_calls([caller("workflow: child")], wrong={"child"}) == []
