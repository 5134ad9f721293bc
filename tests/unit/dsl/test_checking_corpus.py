"""The corpus: each good definition compiles, each bad one gives exactly the problems that it names itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from pydantic import ValidationError

from engine.dsl import codes, loader
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.loader import Document
from engine.dsl.parser import WorkflowParser
from engine.dsl.schema import WorkflowDefinition
from engine.dsl.structure import check_structure, workflow_schema
from engine.errors import InvalidDefinition

CORPUS = Path(__file__).parents[2] / "corpus"
GOOD = sorted((CORPUS / "good").glob("*.yaml"))
BAD = sorted((CORPUS / "bad").glob("*.yaml"))
_EXPECTED = re.compile(r"^# problem: (\d+):(\d+) (\w+)$", re.MULTILINE)
TYPES = ActivityTypes.default()
BUILT_IN = {"http_request", "python_function", "human_approval"}


@pytest.mark.parametrize("file", GOOD, ids=lambda f: f.stem)
def test_a_good_definition_has_no_problem_and_compiles(file: Path) -> None:
    checked = check(file.read_bytes(), file.name, TYPES)
    assert checked.problems == []
    assert checked.compiled is not None
    assert checked.compiled["name"] == checked.name


@pytest.mark.parametrize("file", BAD, ids=lambda f: f.stem)
def test_a_bad_definition_gives_exactly_its_problems(file: Path) -> None:
    checked = check(file.read_bytes(), file.name, TYPES)
    expected = [(int(line), int(column), code) for line, column, code in _EXPECTED.findall(file.read_text())]
    assert expected, "a bad definition names its problems"
    assert [(p.line, p.column, p.code) for p in checked.problems] == expected, "\n".join(
        map(str, checked.problems)
    )
    assert checked.compiled is None


def test_every_code_of_the_language_is_met_in_the_corpus() -> None:
    met = {code for file in BAD for _, _, code in _EXPECTED.findall(file.read_text())}
    # Those need a large file, two files, a folder, or no file at all, and have tests of their own.
    elsewhere = {
        codes.TOO_LARGE,
        codes.TOO_DEEP,
        codes.ENCODING,
        codes.DUPLICATE_NAME,
        codes.UNREADABLE,
        codes.FUNCTION,
        codes.FUNCTION_LOCK,
        codes.TOO_MANY,
    }
    assert codes.ALL - met == elsewhere


def _shape(file: Path) -> tuple[Document, Any] | None:
    """The document without what only the schema of an activity type's config says: Pydantic does not know that."""
    document = loader.load(file.read_bytes(), file.name)
    if not isinstance(document, Document):
        return None
    if isinstance(document.data, dict):
        for key in ("tasks", "on_failure", "finally"):
            _forget_types(document.data.get(key))
    return document, document.data


def _forget_types(tasks: Any) -> None:
    for task in tasks if isinstance(tasks, list) else ():
        if not isinstance(task, dict):
            continue
        for holder in (task, task.get("compensate")):
            if isinstance(holder, dict) and holder.get("activity_type") in BUILT_IN:
                holder["activity_type"] = "acme.any"
        _forget_types(task.get("tasks"))


@pytest.mark.parametrize("file", [*GOOD, *BAD], ids=lambda f: f.stem)
def test_pydantic_and_the_json_schema_agree(file: Path) -> None:
    shape = _shape(file)
    if shape is None:
        return
    document, data = shape
    problems, _ = check_structure(document)
    assert _pydantic_accepts(data) is not bool(problems)


def _pydantic_accepts(data: Any) -> bool:
    try:
        WorkflowDefinition.model_validate(data)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("file", [*GOOD, *BAD], ids=lambda f: f.stem)
def test_the_jsonschema_package_agrees_with_ours(file: Path) -> None:
    document = loader.load(file.read_bytes(), file.name)
    if not isinstance(document, Document):
        return
    validator = jsonschema.Draft202012Validator(workflow_schema(), registry=referencing.Registry())
    assert validator.is_valid(document.data) is not bool(check_structure(document)[0])


def test_the_parser_gives_typed_definitions() -> None:
    parser = WorkflowParser(TYPES)
    definition = parser.parse_yaml((CORPUS / "good" / "release.yaml").read_bytes())
    assert isinstance(definition, WorkflowDefinition)
    assert [task.id for task in definition.tasks] == ["build", "gate", "apply"]


def test_the_parser_raises_every_problem_at_once() -> None:
    with pytest.raises(InvalidDefinition) as raised:
        WorkflowParser(TYPES).parse_yaml((CORPUS / "bad" / "many_at_once.yaml").read_bytes(), "many.yaml")
    assert len(raised.value.problems) == 7
    assert str(raised.value.problems[0]).startswith("many.yaml:1:1: ")
