"""What a test file may say: every fault located, all of them at once."""

from __future__ import annotations

import jsonschema
import pytest

from engine.testing import export
from engine.testing.schema import SCHEMA
from tests.support.casefiles import HTTP, problems, read_cases

DEFINITION = f"""
name: w
inputs: {{type: object, required: [n], properties: {{n: {{type: integer}}, m: {{type: integer, default: 3}}}}}}
tasks:
  - {{id: build, {HTTP}}}
  - {{id: soak, type: wait, duration: 1h, depends_on: [build]}}
  - {{id: gate, depends_on: [build], activity_type: human_approval, config: {{message: "go?", approvers: {{users: [alice]}}}}}}
"""


def case(keys: str) -> list[str]:
    text = f"workflow: w\ncases:\n  - name: one\n    {keys}\n"
    if "inputs" not in keys:
        text += "    inputs: {n: 1}\n"
    if "expect" not in keys:
        text += "    expect: {status: COMPLETED}\n"
    return problems(DEFINITION, text)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("mocks: {biuld: {result: 1}}", "4:13: UNKNOWN_TASK there is no task `biuld` (did you mean `build`?)"),
        ("mocks: {soak: {result: 1}}", "4:13: NOT_ALLOWED `soak` is a `wait`: it has no activity to mock"),
        ("mocks: {gate: {result: 1}}", "4:13: NOT_ALLOWED `gate` waits for people, who are no mock (say it under"),
        ("mocks: {build: {after: 1h}}", "4:20: VALUE the answer needs `result`, `cached` or `error`"),
        ("mocks: {build: {result: 1, error: {type: X}}}", "4:20: VALUE the answer has `result` and `error`: one of them"),
        ("mocks: {build: {result: 1, after: soon}}", "4:39: DURATION `soon` cannot stand here (write a duration"),
        ("mocks: {build: {error: {type: X, message: 5}}}", '4:47: TYPE `message` takes text (quote it: "5")'),
        ("mocks: {build: [{error: {}}]}", "4:29: MISSING_KEY the error needs `type`"),
        ("mocks: {build: []}", "4:20: VALUE `build` is empty"),
        ("approvals: {build: []}", "4:17: NOT_ALLOWED `build` does not wait for people"),
        ("approvals: {gate: [{by: bob, decision: approve}]}", "4:29: VOTE bob is not an approver of this request"),
        ("approvals: {gate: [{by: alice, decision: yes}]}", "4:46: VALUE `yes` cannot stand here (one of `approve`"),
        ("approvals: {gate: [{decision: reject}]}", "4:24: MISSING_KEY the vote needs `by`"),
        ("input: {}", "4:5: UNKNOWN_KEY unknown key `input` (did you mean `inputs`?)"),
        ("inputs: {n: 1, k: 2}", "4:13: INPUTS the inputs do not fit"),
        ("inputs: {n: one}", "4:17: INPUTS the inputs do not fit"),
        ("inputs: {m: 1}", "4:13: INPUTS the inputs do not fit"),
        ("started_at: yesterday", "4:17: VALUE 'yesterday' is no RFC 3339 time"),
        ("expect: {}", "4:13: MISSING_KEY `expect` needs `status`"),
        ("expect: {status: failed}", "4:22: VALUE `failed` cannot stand here (did you mean `FAILED`?)"),
        ("expect: {status: FAILED, tasks: {gaet: FAILED}}", "4:38: UNKNOWN_TASK there is no task `gaet`"),
        ("expect: {status: FAILED, attempts: {gaet: 1}}", "4:41: UNKNOWN_TASK there is no task `gaet`"),
        ("expect: {status: FAILED, path: [build, gaet]}", "4:44: UNKNOWN_TASK there is no task `gaet`"),
        ("expect: {status: FAILED, error: {task: gaet}}", "4:44: UNKNOWN_TASK there is no task `gaet`"),
        ("expect: {status: FAILED, took: '< 5 hours'}", "4:36: VALUE `< 5 hours` cannot stand here (write it like"),
        ("expect: {status: FAILED, took: <5hours}", "4:36: DURATION `<5hours` is not a duration"),
    ],
)  # fmt: skip
def test_a_fault_is_located_and_says_what_to_do(keys: str, said: str) -> None:
    (problem,) = case(keys)
    assert problem.startswith(f"w.test.yaml:{said}")


def test_all_faults_come_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        DEFINITION,
        "workflow: w\ncases:\n  - {name: one, inputs: {}, mocks: {x: {result: 1}}, expect: {status: DONE}}\n"
        "  - {name: one, inputs: {n: 1}, expect: {status: COMPLETED}, mock: 1}\n",
    )
    assert [line.split(":", 3)[1:3] for line in found] == sorted(line.split(":", 3)[1:3] for line in found)
    assert [line.split()[1] for line in found] == [
        "INPUTS",
        "UNKNOWN_TASK",
        "VALUE",
        "DUPLICATE_NAME",
        "UNKNOWN_KEY",
    ]


def test_a_workflow_that_is_not_there_is_named() -> None:
    (problem,) = problems("name: release\ntasks: [{id: a, type: set, values: {}}]\n", "workflow: relaese\ncases: [{name: a, expect: {status: FAILED}}]\n")  # fmt: skip
    assert problem == (
        "w.test.yaml:1:11: UNKNOWN_WORKFLOW no definition in this folder has the name `relaese` (did you mean `release`?)"
    )


def test_the_problems_of_the_definition_are_told_as_its_own() -> None:
    (problem,) = problems(
        "name: w\ntasks: []\n", "workflow: w\ncases: [{name: a, expect: {status: FAILED}}]\n"
    )
    assert problem.startswith("w.yaml:2:8: VALUE")


@pytest.mark.parametrize("text", ["", "[1]", "5", "cases: []", "workflow: 5\ncases: 5", "{workflow: w, cases: [5]}", "{workflow: w, cases: [{mocks: 5, approvals: [], expect: [], inputs: 1, name: []}]}", "workflow: &a w", "{workflow: w, cases: [{name: a, expect: {status: COMPLETED, path: [5], tasks: {build: 5}}, mocks: {build: 5, gate: [5]}, approvals: {gate: 5, build: [5]}, cancel: 5}]}"])  # fmt: skip
def test_a_file_of_another_shape_gives_problems_and_nothing_else(text: str) -> None:
    assert problems(DEFINITION, text)


def test_a_policy_with_an_expression_is_judged_when_the_case_is_played() -> None:
    definition = DEFINITION.replace("{users: [alice]}", "{users: ['${{ string(inputs.n) }}']}")
    text = "workflow: w\ncases:\n  - name: one\n    inputs: {n: 1}\n    approvals: {gate: [{by: bob, decision: approve}]}\n    expect: {status: COMPLETED}\n"
    assert problems(definition, text) == []


def test_defaults_of_inputs_are_filled_in() -> None:
    text = "workflow: w\ncases: [{name: one, inputs: {n: 1}, expect: {status: COMPLETED}}]\n"
    assert read_cases(DEFINITION, text).cases[0].inputs == {"n": 1, "m": 3}


def test_the_json_schema_is_up_to_date_and_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert export.PATH.read_text("utf-8") == export.text(), "run `make schemas`"


def test_the_page_tells_of_every_key_and_code() -> None:
    page = (export.PATH.parents[1] / "docs/reference/test-files.md").read_text("utf-8")
    keys = {key for part in (SCHEMA, *SCHEMA["$defs"].values()) for key in part.get("properties", {})}
    keys |= set(SCHEMA["$defs"]["Answer"]["properties"]["error"]["properties"])
    assert {key for key in keys if f"`{key}`" not in page} == set()
    assert all(
        f"### {code}\n" in page for code in ("UNKNOWN_WORKFLOW", "INPUTS", "VOTE", "SIGNAL", "TRIGGER")
    )
