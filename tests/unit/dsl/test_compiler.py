"""The compiled form: defaults applied, times in seconds, expressions in a table, the same bytes every time."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from typing import Any

import pytest
import yaml

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.compiler import canonical, compile_definition, digest
from engine.errors import InvalidDefinition

TYPES = ActivityTypes.default()


def compiled(text: str) -> dict[str, Any]:
    checked = check(text.encode(), "f.yaml", TYPES)
    assert checked.compiled is not None, checked.problems
    return checked.compiled


def task(text: str, head: str = "", **more: str) -> dict[str, Any]:
    found: dict[str, Any] = compiled(f"name: w\n{head}tasks:\n  - {text}\n")["tasks"][0]
    return found


HTTP = "id: a\n    activity_type: http_request\n    config: {url: 'https://x.test'}\n    "


def test_an_activity_without_a_word_has_one_attempt_of_five_minutes() -> None:
    made = task(HTTP)
    assert made["retry"] is None
    assert (made["timeout"], made["total_timeout"], made["execution"], made["task_queue"]) == (
        300.0,
        None,
        "auto",
        "",
    )


def test_defaults_reach_activities() -> None:
    made = task(HTTP, "defaults: {timeout: 10s, retry: {max_attempts: 7, initial_interval: 250ms}}\n")
    assert made["timeout"] == 10.0
    assert made["retry"] == {
        "max_attempts": 7, "initial_interval": 0.25, "backoff_coefficient": 2.0, "max_interval": 60.0,
        "non_retryable_errors": [], "when": None,
    }  # fmt: skip


def test_a_task_s_own_retry_replaces_the_default_as_a_whole() -> None:
    made = task(
        HTTP + "retry: {initial_interval: 5s}", "defaults: {retry: {max_attempts: 7, max_interval: 1h}}\n"
    )
    assert (made["retry"]["max_attempts"], made["retry"]["max_interval"]) == (3, 60.0)


def test_defaults_do_not_reach_approvals() -> None:
    text = "{id: a, activity_type: human_approval, config: {message: ok?}}"
    made = task(text, "defaults: {timeout: 10s, retry: {max_attempts: 7}}\n")
    assert (made["retry"], made["timeout"], made["total_timeout"]) == (None, None, None)


def test_a_wait_has_its_duration_in_seconds() -> None:
    assert task("{id: a, type: wait, duration: 1h30m}")["duration"] == 5400.0


def test_a_wait_may_take_its_duration_from_data() -> None:
    head = "inputs: {properties: {pause: {type: string}}}\n"
    assert task("{id: a, type: wait, duration: '${{ inputs.pause }}'}", head)["duration"] == {"$expr": 0}


def test_values_keep_their_expressions_as_places_in_the_table() -> None:
    made = compiled(
        "name: w\nenv: {n: 1}\ntasks:\n"
        "  - {id: a, type: set, values: {alone: '${{ env.n }}', text: 'n=${{ env.n }}!', lit: '$${{ x }}', obj: {$expr: 1}}}\n"
    )
    assert made["tasks"][0]["values"] == {
        "alone": {"$expr": 0},
        "text": {"$text": ["n=", 0, "!"]},
        "lit": "${{ x }}",
        "obj": {"$lit": {"$expr": 1}},
    }
    assert [entry["src"] for entry in made["exprs"]] == ["env.n"]
    assert made["exprs"][0]["refs"] == ["env.n"]


def test_one_expression_stands_once_in_the_table() -> None:
    values = ", ".join(f"v{i}: '${{{{ run.id }}}}'" for i in range(50))
    assert len(compiled(f"name: w\ntasks: [{{id: a, type: set, values: {{{values}}}}}]\n")["exprs"]) == 1


def test_version_is_a_label_kept_as_written() -> None:
    made = compiled("name: w\nversion: 1.10\ntasks: [{id: a, type: set, values: {}}]\n")
    assert made["version"] == "1.10"


def test_inputs_take_nothing_that_they_do_not_declare() -> None:
    head = "name: w\ntasks: [{id: a, type: set, values: {}}]\n"
    assert compiled(head)["inputs"] is None
    closed = compiled(head + "inputs: {properties: {n: {type: integer}}}\n")["inputs"]
    assert (closed["type"], closed["additionalProperties"]) == ("object", False)
    assert compiled(head + "inputs: {additionalProperties: true}\n")["inputs"]["additionalProperties"] is True


def test_a_very_wide_run_gets_a_limit_that_temporal_can_bear() -> None:
    def wide(count: int) -> Any:
        tasks = "".join(f"- {{id: t{i}, type: set, values: {{}}}}\n" for i in range(count))
        return compiled(f"name: w\ntasks:\n{tasks}")["max_concurrency"]

    assert wide(1000) is None
    assert wide(1001) == 1000


def test_canonical_bytes_do_not_depend_on_order_or_process() -> None:
    text = "name: w\nlabels: {b: 'ü', a: x}\ntasks: [{id: a, type: set, values: {z: 1, y: \"${{ {'a': 2}.a }}\"}}]\n"
    program = (
        "import sys; from engine.dsl.checking import check; from engine.dsl.activity_types import ActivityTypes;"
        "from engine.dsl.compiler import canonical, digest;"
        "print(digest(canonical(check(sys.argv[1].encode(), '', ActivityTypes.default()).compiled)))"
    )
    other = subprocess.run([sys.executable, "-c", program, text], capture_output=True, text=True, check=True)
    made = canonical(compiled(text))
    assert other.stdout.strip() == digest(made)
    assert json.loads(made) == compiled(text)
    assert "ü".encode() in made


def test_the_compiled_form_has_the_agreed_keys() -> None:
    made = compiled(f"name: w\ntasks:\n  - {HTTP}\n")
    assert set(made) == {
        "format", "dsl", "name", "version", "title", "description", "labels", "inputs", "env", "timeout",
        "cleanup_timeout", "max_concurrency", "on_task_failure", "tasks", "on_failure", "finally", "outputs", "exprs",
    }  # fmt: skip
    assert set(made["tasks"][0]) == {
        "id", "name", "type", "activity_type", "depends_on", "when", "run_on", "continue_on_failure", "config", "retry",
        "timeout", "total_timeout", "success_when", "execution", "task_queue", "outputs", "default_outputs", "values",
        "duration", "until",
    }  # fmt: skip


def test_a_definition_with_faults_is_not_compiled() -> None:
    with pytest.raises(InvalidDefinition):
        compile_definition(
            {"name": "w", "tasks": [{"id": "a", "type": "set", "values": {"x": "${{ nope }}"}}]}
        )


def test_a_checked_definition_compiles_alone_to_the_same() -> None:
    text = b"name: w\ntasks: [{id: a, type: set, values: {x: '${{ run.id }}'}}]\n"
    checked = check(text, "f.yaml", TYPES)
    assert checked.definition is not None
    assert compile_definition(checked.definition) == checked.compiled


@pytest.mark.parametrize(
    "text",
    [
        b'name: a\nenv: {x: y}\ntasks:\n  - {id: s, type: set, values: {v: "${{ env.x }}"}}\n',
        b'name: a\ntasks:\n  - {id: m, type: map, items: [1], tasks: [{id: s, type: set, values: {v: "${{ item }}"}}]}\n',
        b'name: a\ntasks:\n  - {id: s, type: set, values: {v: "${{ env.y }}"}}\n',
    ],
)
def test_a_check_leaves_no_document_to_the_collector(text: bytes) -> None:
    """Thousands of files are checked in one process: what a ring holds stays in memory until all of it is searched."""
    gc.collect()
    gc.disable()
    try:
        check(text, "a.yaml", TYPES)
        assert not [each for each in gc.get_objects() if isinstance(each, yaml.Node)]
    finally:
        gc.enable()
