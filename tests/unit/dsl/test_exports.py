"""What is generated from the language is up to date, and works in the tools of others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from engine.dsl import codes, export, words
from engine.dsl.activity_types import ActivityTypes, builtin_types
from engine.dsl.checking import check
from engine.dsl.structure import workflow_schema

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "tests" / "corpus"
CONFIGS = ("HttpRequest", "HumanApproval", "PythonFunction")
"""How the definitions of activity types' configs are called in the schema."""


@pytest.mark.parametrize("path", sorted(export.artifacts()))
def test_a_generated_file_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text("utf-8") == export.artifacts()[path], "run `make schemas`"


def test_the_schema_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(workflow_schema())


def test_every_key_of_the_language_is_described() -> None:
    schema = workflow_schema()
    for holder in (
        schema,
        *(
            found
            for name, found in schema["$defs"].items()
            if not name.startswith(CONFIGS) and name != "AnyTask"
        ),
    ):
        for key, value in holder["properties"].items():
            assert value.get("description"), key
            assert value["markdownDescription"] == value["description"]


def test_there_is_no_one_of() -> None:
    assert "oneOf" not in (ROOT / "schemas" / "workflow.schema.json").read_text()


def test_every_pattern_of_the_language_is_put_into_words() -> None:
    schema = workflow_schema()
    for holder in (
        schema,
        *(
            found
            for name, found in schema["$defs"].items()
            if not name.startswith(CONFIGS) and name != "AnyTask"
        ),
    ):
        for value in holder["properties"].values():
            for pattern in (value.get("pattern"), value.get("items", {}).get("pattern")):
                assert pattern is None or pattern in words.PATTERNS


def test_the_built_in_types_are_those_of_the_language() -> None:
    assert [info.name for info in builtin_types()] == ["http_request", "human_approval", "python_function"]


def _check_jsonschema(*files: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("check-jsonschema")
    schema = ROOT / "schemas" / "workflow.schema.json"
    return subprocess.run(
        [program, "--schemafile", schema, *files], capture_output=True, text=True, check=False
    )


def test_check_jsonschema_accepts_good_definitions() -> None:
    # It reads YAML 1.1, where `on` and `12:30` are no text, so the file that is about those is left out.
    good = [file for file in (CORPUS / "good").glob("*.yaml") if file.stem != "yaml_core"]
    done = _check_jsonschema(*good)
    assert done.returncode == 0, done.stdout


def test_check_jsonschema_names_the_exact_fault() -> None:
    done = _check_jsonschema(CORPUS / "bad" / "unknown_key_typo.yaml")
    assert done.returncode == 1
    assert "'depend_on' was unexpected" in done.stdout


def test_check_jsonschema_names_the_exact_fault_of_a_task_inside_of_a_task(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    inner = "{id: g, type: group, tasks: [{id: t, type: set, values: {}, depend_on: []}]}"
    file.write_text(f"name: w\ntasks: [{{id: m, type: map, items: [1], tasks: [{inner}]}}]\n")
    done = _check_jsonschema(file)
    assert done.returncode == 1
    assert (
        "$.tasks[0].tasks[0].tasks[0]: Additional properties are not allowed ('depend_on' was unexpected)"
        in done.stdout
    )


def test_every_code_has_a_section_of_its_own() -> None:
    page = (ROOT / "docs" / "reference" / "problems.md").read_text("utf-8")
    headings = set(re.findall(r"^### ([A-Z_]+)$", page, re.MULTILINE))
    assert headings == codes.ALL


EXAMPLES = sorted((ROOT / export.EXAMPLES).glob("*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_of_the_reference_is_valid_and_shown(file: Path) -> None:
    checked = check(file.read_bytes(), file.name, ActivityTypes.default())
    assert checked.problems == []
    assert checked.name == file.stem
    assert file.read_text("utf-8").rstrip() in (ROOT / "docs" / "reference" / "language.md").read_text(
        "utf-8"
    )


def test_every_kind_of_task_and_trigger_has_an_example() -> None:
    kinds = set()
    for file in EXAMPLES:
        compiled = check(file.read_bytes(), file.name, ActivityTypes.default()).compiled
        assert compiled is not None
        kinds |= {task["type"] for task in compiled["tasks"]}
        kinds |= {trigger["type"] for trigger in compiled.get("triggers", [])}
    schema = workflow_schema()
    assert kinds == {
        *schema["$defs"]["AnyTask"]["properties"]["type"]["enum"],
        *schema["properties"]["triggers"]["items"]["properties"]["type"]["enum"],
    }


def test_the_page_of_what_is_left_out_has_every_word_that_a_hint_sends_there() -> None:
    page = (ROOT / "docs" / "explanation" / "left-out.md").read_text("utf-8")
    for heading in ("Code in the definition", "Templates", "Artifacts", "Metrics", "Rate limits"):
        assert f"## {heading}" in page
