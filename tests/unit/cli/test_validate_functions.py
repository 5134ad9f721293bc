"""`pinflow validate` looks at the folder `functions/` beside the definitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli.main import run

DEFINITION = (
    "name: a\ntasks:\n  - {id: f, activity_type: python_function, config: {function: 'deploys:aply'}}\n"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "workflows"
    (folder / "team" / "functions").parent.mkdir(parents=True)
    (folder / "functions").mkdir()
    (folder / "functions" / "deploys.py").write_text("def apply(): ...\n")
    (folder / "team" / "a.yaml").write_text(DEFINITION)
    return folder


@pytest.mark.parametrize("path", [".", "team/a.yaml"])
def test_a_function_that_is_not_there_is_told(
    source: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", str(source / path)]) == 1
    said = capsys.readouterr().out
    assert "a.yaml:3:" in said
    assert "FUNCTION module `deploys` has no function `aply` (did you mean `apply`?)" in said


def test_without_the_folder_nothing_is_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "team" / "a.yaml").rename(tmp_path / "a.yaml")
    assert run(["validate", str(tmp_path / "a.yaml")]) == 0


def test_a_source_without_the_folder_has_no_functions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text(DEFINITION)
    assert run(["validate", str(tmp_path)]) == 1
    assert "FUNCTION there is no module `deploys` in `functions/`" in capsys.readouterr().out
    monkeypatch.setenv("PINFLOW_FUNCTION_PACKAGES", '["deploys"]')
    assert run(["validate", str(tmp_path)]) == 0


@pytest.mark.parametrize("path", [".", "team/a.yaml", "functions/requirements.txt"])
def test_a_lock_that_is_none_is_told_at_its_line(
    source: Path, path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "functions" / "requirements.txt").write_text("idna==3.7\nhttpx>=0.28\n")
    (source / "team" / "a.yaml").write_text(DEFINITION.replace("aply", "apply"))
    monkeypatch.chdir(source.parent)
    assert run(["validate", f"workflows/{path}"]) == 1
    said = capsys.readouterr().out
    assert "workflows/functions/requirements.txt:2:1: FUNCTION_LOCK `httpx>=0.28` is no" in said


def test_a_changed_module_stands_for_the_definitions_that_call_functions(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "plain.yaml").write_text("name: plain\ntasks: []\n")
    monkeypatch.chdir(source)
    assert run(["validate", "functions/deploys.py"]) == 1
    said = capsys.readouterr().out
    assert "team/a.yaml:3:" in said
    assert "plain.yaml" not in said
