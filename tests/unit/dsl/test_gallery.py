"""The definitions in workflows/: valid, found by an editor's schema, and their functions are there."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check

FOLDER = Path(__file__).parents[3] / "workflows"
FILES = sorted(file for file in FOLDER.glob("*.yaml") if not file.name.endswith(".test.yaml"))


def functions(value: Any) -> Iterator[str]:
    """Every `function:` in a definition."""
    if isinstance(value, dict):
        if isinstance(value.get("function"), str):
            yield value["function"]
        for item in value.values():
            yield from functions(item)
    elif isinstance(value, list):
        for item in value:
            yield from functions(item)


def test_the_page_of_patterns_names_every_definition_of_the_gallery() -> None:
    page = (FOLDER.parent / "docs" / "how-to" / "patterns.md").read_text(encoding="utf-8")
    assert [file.stem for file in FILES if f"`{file.stem}`" not in page] == []


def test_every_definition_of_the_gallery_has_its_tests() -> None:
    assert [file.stem for file in FILES if not file.with_suffix(".test.yaml").exists()] == []


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_is_valid_and_named_as_its_file(file: Path) -> None:
    checked = check(file.read_bytes(), file.name, ActivityTypes.default())
    assert checked.problems == []
    assert checked.name == file.stem
    assert file.read_text().startswith("# yaml-language-server: $schema=../schemas/workflow.schema.json\n")
    assert (file.parent / "../schemas/workflow.schema.json").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_its_functions_exist(file: Path) -> None:
    checked = check(file.read_bytes(), file.name, ActivityTypes.default())
    for name in functions(checked.definition):
        module, _, function = name.partition(":")
        spec = importlib.util.spec_from_file_location(
            f"gallery_{module}", FOLDER / "functions" / f"{module}.py"
        )
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        assert callable(getattr(loaded, function))
