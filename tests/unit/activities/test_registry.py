"""The one registry of activity types, and packages that add their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from engine.activities.registry import ActivityConfig, ActivityRegistry, activity_type
from engine.dsl.activity_types import ActivityTypes, from_json
from engine.dsl.checking import check
from engine.dsl.reference import activity_types_page
from engine.errors import Misconfigured
from tests.support.activities import attempt, call, workbench
from tests.support.plugins import install_example, write_metadata


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path, as empty as a fresh environment."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("pinflow_example", "other")]:
        del sys.modules[name]


def test_built_in_types() -> None:
    assert ActivityRegistry.load().names() == ["http_request", "human_approval", "python_function"]


def test_info_is_json_schema_with_descriptions() -> None:
    registry = ActivityRegistry.load()
    for type in registry:
        info = type.info()
        assert info["builtin"]
        assert info["description"]
        assert info["config_schema"]["type"] == "object"
        for name, field in info["config_schema"]["properties"].items():
            assert field.get("description"), f"{type.name}.{name} has no description"
        assert {"INVALID_CONFIG", "TIMEOUT", "NOT_SUCCESSFUL"} <= set(info["errors"])


def test_package_adds_a_type(packages: Path) -> None:
    install_example(packages)
    info = ActivityRegistry.load().get("example.greet")
    assert info is not None
    assert info.info()["config_schema"]["required"] == ["name"]
    assert info.info()["description"] == "Greet somebody by name."
    assert not info.info()["builtin"]


async def test_type_of_a_package_runs(packages: Path) -> None:
    install_example(packages)
    async with workbench() as bench:
        result = await attempt(bench, call("example.greet", {"name": "Ada", "tone": "cold"}), number=2)
        assert result == {"text": "Oh, Ada (t, attempt 2)"}
        with pytest.raises(ApplicationError) as caught:
            await attempt(bench, call("example.greet", {"name": "nobody"}))
        assert (caught.value.type, caught.value.non_retryable) == ("NOBODY_THERE", True)
        with pytest.raises(ApplicationError, match=r"config.tone"):
            await attempt(bench, call("example.greet", {"name": "x", "tone": "loud"}))


@pytest.mark.parametrize(
    ("entry", "code", "message"),
    [
        ("other.x = other:MISSING", "", "cannot be loaded: AttributeError"),
        ("other.x = other.gone:X", "", "cannot be loaded: ModuleNotFoundError"),
        ("other.x = other:X", "raise RuntimeError('at import')", "cannot be loaded: RuntimeError: at import"),
        ("other.x = other:X", "X = 5", "is a int and no ActivityType"),
    ],
)
def test_broken_package_is_named(packages: Path, entry: str, code: str, message: str) -> None:
    (packages / "other.py").write_text(code)
    write_metadata(packages, "other-package", {entry})
    with pytest.raises(Misconfigured) as caught:
        ActivityRegistry.load()
    assert "'other-package'" in str(caught.value)
    assert message in str(caught.value)


def test_entry_point_with_another_name_is_refused(packages: Path) -> None:
    install_example(packages)
    write_metadata(packages, "other-package", {"other.x = pinflow_example:GREET"})
    with pytest.raises(Misconfigured, match=r"its name is 'example\.greet'"):
        ActivityRegistry.load()


def test_two_types_of_one_name_are_refused() -> None:
    class Nothing(ActivityConfig):
        pass

    @activity_type(name="a.b", config=Nothing)
    async def one(config: Nothing, context: Any) -> None:
        """Do nothing."""

    with pytest.raises(Misconfigured, match=r"a\.b"):
        ActivityRegistry([one, one])


@pytest.mark.parametrize("name", ["", "A", "a-b", "a b", "a.", "pinflow.", "1a"])
def test_name_of_a_type(name: str) -> None:
    with pytest.raises(ValueError, match="must match"):
        activity_type(name=name, config=ActivityConfig)


def test_validator_knows_the_type_of_a_package(packages: Path) -> None:
    install_example(packages)
    good = b"name: greet\ntasks:\n  - id: hi\n    activity_type: example.greet\n    config: {name: '${{ run.id }}'}\n"
    assert check(good, "greet.yaml", ActivityTypes.default()).problems == []
    bad = good.replace(b"name: '$", b"tone: loud, name: '$")
    (problem,) = check(bad, "greet.yaml", ActivityTypes.default()).problems
    assert (problem.line, problem.path) == (5, "tasks.0.config.tone")


def test_docs_are_made_from_the_type_of_a_package(packages: Path) -> None:
    install_example(packages)
    type = ActivityRegistry.load().get("example.greet")
    assert type is not None
    page = activity_types_page([from_json(type.info())])
    assert "example.greet" in page
    assert "Who is greeted." in page
    assert "NOBODY_THERE" in page
