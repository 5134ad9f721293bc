"""`pinflow init` writes a source that is right from the start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.cli import init
from engine.cli.main import run
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check


def test_the_starter_is_a_valid_definition() -> None:
    text = init.starter()["workflows/hello.yaml"].encode()
    assert check(text, "workflows/hello.yaml", ActivityTypes.default()).problems == []


def test_a_folder_that_is_no_repository_becomes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(tmp_path / "new")]) == 0

    head = subprocess.run(
        ["git", "symbolic-ref", "HEAD"], cwd=tmp_path / "new", capture_output=True, text=True
    )
    assert head.stdout.strip() == "refs/heads/main"
    assert "pinflow up --repo ." in capsys.readouterr().out


def test_in_a_repository_it_says_which_folder_to_watch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)

    assert run(["init", str(tmp_path / "team" / "flows")]) == 0

    assert f"--repo {tmp_path} --folder team/flows/workflows" in capsys.readouterr().out
    assert not (tmp_path / "team" / "flows" / ".git").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".pre-commit-config.yaml").write_text("mine")

    assert run(["init", str(tmp_path)]) == 1

    assert (tmp_path / ".pre-commit-config.yaml").read_text() == "mine"
    assert not (tmp_path / "workflows").exists()
    assert ".pre-commit-config.yaml" in capsys.readouterr().err
