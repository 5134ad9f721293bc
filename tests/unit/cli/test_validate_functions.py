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
