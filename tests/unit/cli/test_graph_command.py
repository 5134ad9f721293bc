"""`pinflow graph`: by path and by name, to the terminal and to a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli.main import run

GOOD = "name: good\ntasks: [{id: a, type: set, values: {x: 1}}]\n"
BAD = "name: bad\ntasks: [{id: a, type: set, values: {x: 1}, depends_on: [ghost]}]\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workflows/team").mkdir(parents=True)
    (tmp_path / "workflows/team/good.yaml").write_text(GOOD)
    (tmp_path / "workflows/bad.yaml").write_text(BAD)
    monkeypatch.chdir(tmp_path)


def test_a_file_is_drawn_as_svg(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "workflows/team/good.yaml"]) == 0
    assert capsys.readouterr().out.startswith("<svg ")


def test_a_name_is_looked_up_in_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "good", "--format", "mermaid"]) == 0
    assert capsys.readouterr().out == 'flowchart LR\n  t_a["a<br/>set"]\n'


def test_the_picture_can_go_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "good", "-o", "good.svg"]) == 0
    assert (tmp_path / "good.svg").read_text().startswith("<svg ")
    assert capsys.readouterr().out == ""


def test_an_unknown_name_is_told_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "goood"]) == 1
    assert "there are: bad, good" in capsys.readouterr().err


def test_a_definition_with_problems_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "bad"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("workflows/bad.yaml:2:")


def test_a_place_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "good", "-o", "nowhere/good.svg"]) == 1
    assert "nowhere/good.svg cannot be written" in capsys.readouterr().err
