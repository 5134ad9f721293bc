"""`pinflow plan` in a clone, on real git."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.main import run
from tests.support.git import Repository

ONE = "name: one\ntasks: [{id: a, type: set, values: {x: 1}}]\n"
CALLS = 'name: calls\ntasks: [{id: a, activity_type: python_function, config: {function: "m:f"}}]\n'


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A clone with one definition on `main`, and the working folder."""
    made = Repository(tmp_path / "clone")
    made.commit({"workflows/one.yaml": ONE, "README.md": "hello"})
    monkeypatch.chdir(made.path)
    return made


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(["plan", *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_a_branch_is_compared_with_main(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    repository.git("checkout", "-q", "-b", "topic")
    repository.commit({"workflows/one.yaml": ONE.replace("x: 1", "x: 2")})
    code, said = plan(capsys, "main..HEAD")
    assert code == 0
    assert "1 changed; risk: low" in said
    assert "tasks.a.values.x: 1 → 2" in said
    assert "workflows/one.yaml:2: it does its work with other values" in said


def test_what_is_not_committed_does_not_count(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.write({"workflows/one.yaml": "broken: ["})
    code, said = plan(capsys, "main")
    assert (code, said.splitlines()[0].partition(": ")[2]) == (0, "no definition changes")


def test_two_dots_show_what_main_has_got_since_and_three_do_not(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.git("checkout", "-q", "-b", "topic")
    repository.commit({"notes.md": "x"})
    repository.git("checkout", "-q", "main")
    repository.commit({"workflows/two.yaml": ONE.replace("one", "two")})
    repository.git("checkout", "-q", "topic")
    assert "1 retired" in plan(capsys, "main..topic")[1]
    assert "no definition changes" in plan(capsys, "main...topic")[1]


def test_an_invalid_head_is_told_as_validate_tells_it(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit({"workflows/one.yaml": ONE.replace("type: set", "type: sett")})
    code, said = plan(capsys, "HEAD~1..HEAD")
    assert code == 1
    capsys.readouterr()
    assert run(["validate"]) == 1
    problem = capsys.readouterr().out.splitlines()[0]
    assert problem in said.splitlines()


def test_a_name_that_stands_twice_is_a_problem(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit({"workflows/deep/again.yaml": ONE})
    code, said = plan(capsys, "HEAD~1..HEAD")
    assert code == 1
    assert "DUPLICATE_NAME the workflow `one` stands already in workflows/one.yaml" in said


def test_a_symbolic_link_is_a_problem(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink("/etc/passwd", repository.path / "workflows" / "evil.yaml")
    repository.commit()
    code, said = plan(capsys, "HEAD~1..HEAD")
    assert code == 1
    assert "workflows/evil.yaml" in said


def test_a_function_that_changes_is_a_change_of_who_calls_it(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit({"workflows/calls.yaml": CALLS, "workflows/functions/m.py": "def f(): return 1\n"})
    repository.commit({"workflows/functions/m.py": "def f(): return 2\n"})
    code, said = plan(capsys, "HEAD~1..HEAD")
    assert code == 0
    assert 'CODE_CHANGED  functions: ["workflows/functions/m.py"]' in said
    assert "one  " not in said


def test_a_path_is_taken_from_where_one_stands(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"team/flows/two.yaml": ONE.replace("one", "two")})
    monkeypatch.chdir(repository.path / "team")
    assert "+ two  team/flows/two.yaml" in plan(capsys, "HEAD~1..HEAD", "flows")[1]
    assert "+ two  team/flows/two.yaml" in plan(capsys, "HEAD~1..HEAD", "flows/two.yaml")[1]
    assert "no definition changes" in plan(capsys, "HEAD~1..HEAD", "../workflows")[1]


def test_a_file_that_moves_keeps_its_name(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    repository.commit({"workflows/one.yaml": None, "workflows/deep/one.yaml": ONE})
    assert "> one  workflows/deep/one.yaml (from workflows/one.yaml): moved" in plan(capsys, "HEAD~1")[1]


def test_json_and_markdown_are_for_programs_and_forges(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit({"workflows/one.yaml": None})
    form = json.loads(plan(capsys, "HEAD~1..HEAD", "--format", "json")[1])
    assert (form["valid"], form["level"], form["head"]) == (True, "high", repository.head())
    told = plan(capsys, "HEAD~1..HEAD", "--format", "markdown")[1]
    assert told.startswith("<!-- pinflow-plan -->\n### Pinflow plan\n")


@pytest.mark.parametrize(("level", "code"), [("high", 0), ("medium", 0), ("low", 1)])
def test_a_gate_can_ask_for_a_level(
    repository: Repository, capsys: pytest.CaptureFixture[str], level: str, code: int
) -> None:
    repository.commit({"workflows/one.yaml": ONE.replace("x: 1", "x: 2")})
    assert plan(capsys, "HEAD~1", "--fail-on", level)[0] == code


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("nowhere..HEAD", "`git fetch origin nowhere` brings it, if it is a branch"),
        ("HEAD~9..HEAD", "`git log` lists the commits that there are"),
        ("--upload-pack=touch x..HEAD", "is no commit in this clone"),
        ("HEAD..HEAD^{tree}", "'HEAD^{tree}' is no commit in this clone"),
    ],
)
def test_what_is_no_commit_is_told(
    repository: Repository, capsys: pytest.CaptureFixture[str], asked: str, said: str
) -> None:
    code, told = plan(capsys, "--", asked)
    assert code == 1
    assert said in told
    assert not (repository.path / "x").exists()


def test_a_folder_that_is_nowhere_is_told(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = plan(capsys, "HEAD", "nowhere")
    assert code == 1
    assert "nowhere stands at neither end of the range" in told
    assert plan(capsys, "HEAD", "../../etc")[0] == 1


@pytest.fixture
def merged(repository: Repository) -> Repository:
    """A pull request, merged as a forge does."""
    repository.git("checkout", "-q", "-b", "topic")
    repository.commit({"workflows/one.yaml": ONE.replace("x: 1", "x: 2")})
    repository.git("checkout", "-q", "main")
    repository.commit({"workflows/two.yaml": ONE.replace("one", "two")})
    repository.merge("topic")
    return repository


def clone(
    of: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str, branch: str = "main"
) -> Repository:
    """A clone that a pipeline makes, and the working folder."""
    of.git("config", "uploadpack.allowFilter", "true")
    of.git("clone", "-q", *options, "--branch", branch, f"file://{of.path}", str(folder))
    monkeypatch.chdir(folder)
    return Repository(folder)


@pytest.mark.parametrize("asked", ["HEAD^..HEAD", "HEAD^1...HEAD", "1234567..HEAD", "auto"])
def test_a_shallow_clone_is_told_with_the_way_out(
    merged: Repository,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
) -> None:
    clone(merged, tmp_path / "shallow", monkeypatch, "--depth", "1")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    code, told = plan(capsys, asked)
    assert code == 1
    assert "is no commit in this clone" in told
    assert "`git fetch --unshallow`" in told
    assert "`fetch-depth: 0`" in told


def test_a_clone_of_depth_two_is_enough_for_a_merge(
    merged: Repository, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone(merged, tmp_path / "shallow", monkeypatch, "--depth", "2")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    code, told = plan(capsys, "auto")
    assert code == 0
    assert "tasks.a.values.x: 1 → 2" in told


def test_a_branch_that_stands_at_the_remote_alone_is_named(
    merged: Repository, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone(merged, tmp_path / "another", monkeypatch, branch="topic")
    code, told = plan(capsys, "main..HEAD")
    assert code == 1
    assert "origin/main is one" in told
    assert plan(capsys, "origin/main...HEAD")[0] == 0


def test_a_partial_clone_is_told_with_the_way_out(
    merged: Repository, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = clone(merged, tmp_path / "partial", monkeypatch, "--filter=blob:none", "--no-checkout")
    code, told = plan(capsys, "HEAD^1..HEAD")
    assert code == 1
    assert "the clone lacks some of what the range is made of" in told
    assert "`git fetch --refetch --no-filter`" in told
    made.git("fetch", "--quiet", "--refetch", "--no-filter")
    assert "tasks.a.values.x: 1 → 2" in plan(capsys, "HEAD^1..HEAD")[1]


def test_nothing_is_planned_before_the_first_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Repository(tmp_path / "empty").path)
    assert "nothing is committed here yet" in plan(capsys, "main..HEAD")[1]


def test_a_detached_head_a_bare_repository_and_sha256_are_repositories_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Repository(tmp_path / "clone", object_format="sha256")
    made.commit({"workflows/one.yaml": ONE})
    made.commit({"workflows/one.yaml": ONE.replace("x: 1", "x: 2")})
    made.git("checkout", "-q", "--detach")
    made.git("clone", "-q", "--bare", str(made.path), str(tmp_path / "bare"))
    for folder in (made.path, tmp_path / "bare"):
        monkeypatch.chdir(folder)
        code, told = plan(capsys, "HEAD~1..HEAD")
        assert code == 0
        assert "tasks.a.values.x: 1 → 2" in told
        assert "note:" not in told


def test_what_is_not_committed_is_named(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"workflows/deep/gone.yaml": ONE.replace("one", "gone"), "workflows/notes.md": "x"})
    assert "note:" not in plan(capsys, "HEAD")[1]
    repository.write(
        {
            "workflows/one.yaml": ONE.replace("x: 1", "x: 7"),
            "workflows/new.yaml": ONE,
            "workflows/deep/gone.yaml": None,
            "workflows/notes.md": "y",
            "workflows/functions/data.yaml": "y",
            "workflows/.hidden/new.yaml": "y",
        }
    )
    told = "note: what is not committed does not count: {}workflows/new.yaml, {}workflows/one.yaml\n"
    said = plan(capsys, "HEAD")[1]
    assert told.format("workflows/deep/gone.yaml, ", "") in said
    monkeypatch.chdir(repository.path / "workflows")
    assert "does not count: workflows/one.yaml\n" in plan(capsys, "HEAD", "one.yaml")[1]
    assert "note:" not in plan(capsys, "HEAD~1..HEAD~1", ".")[1]


def test_files_with_the_line_ends_of_another_system_are_committed(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.write({"workflows/one.yaml": ONE.replace("\n", "\r\n")})
    assert "note:" not in plan(capsys, "HEAD")[1]


def test_folders_of_two_sources_may_hold_the_same_name(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit({"staging/one.yaml": ONE, "production/one.yaml": ONE})
    two = ONE.replace("x: 1", "x: 2")
    repository.commit({"staging/one.yaml": two, "production/one.yaml": two})
    code, told = plan(capsys, "HEAD~1", "staging", "production")
    assert code == 0
    assert "2 changed" in told
    code, told = plan(capsys, "HEAD~1", ".")
    assert code == 1
    assert "DUPLICATE_NAME" in told


def test_outside_of_a_repository_there_is_nothing_to_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = plan(capsys, "main")
    assert code == 1
    assert "lies in no git repository" in told


def test_nothing_of_the_clone_is_run(
    repository: Repository, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    canary = tmp_path / "ran"
    script = tmp_path / "canary"
    script.write_text(f"#!/bin/sh\ntouch {canary}\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "diff.external", "core.sshCommand", "core.editor"):
        repository.git("config", key, str(script))
    assert plan(capsys, "HEAD")[0] == 0
    assert not canary.exists()


def test_a_plan_imports_neither_temporal_nor_a_database(repository: Repository) -> None:
    seen = "import sys; from engine.cli.main import run; run(['plan', 'HEAD']); "
    seen += "print(sorted({'temporalio', 'sqlalchemy', 'fastapi', 'asyncpg'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", seen], cwd=repository.path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
