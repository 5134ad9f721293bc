"""The hooks that other repositories use, in a real `pre-commit run` of such a repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.git import Repository

ROOT = Path(__file__).parents[2]
PARTS = ("engine", "hooks", "pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml")
GOOD = 'name: good\ntasks: [{id: a, type: set, values: {r: "${{ run.id }}"}}]\n'
BAD = "name: bad\ntasks: [{id: a, type: set, values: {}, needs: [b]}]\n"
TESTS = "workflow: good\ncases: [{name: sets, expect: {status: COMPLETED, tasks: {a: COMPLETED}}}]\n"
UNORDERED = "name: unordered\ntasks: [{id: a, type: set, values: {}, depends_on: [b]}]\n"


def _published(folder: Path) -> tuple[Path, str]:
    """This project as it stands here, as a repository with one commit: its path and the commit."""
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, folder / part)
    _git(folder, "init", "--quiet", "--initial-branch", "main")
    _git(folder, "add", "--all")
    _git(
        folder,
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.test",
        "commit",
        "--quiet",
        "--message",
        "as it stands",
    )
    return folder, _git(folder, "rev-parse", "HEAD").strip()


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def _run_hook(repository: Path, cache: Path, hook: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PRE_COMMIT_HOME": str(cache)}
    return subprocess.run(
        [Path(sys.executable).with_name("pre-commit"), "run", hook, "--all-files"],
        cwd=repository, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_the_hooks_refuse_bad_definitions_and_install_the_language_alone(tmp_path: Path) -> None:
    hooks, commit = _published(tmp_path / "hooks")
    config = f"repos: [{{repo: '{hooks}', rev: {commit}, hooks: [{{id: pinflow-validate}}, {{id: pinflow-schema}}, {{id: pinflow-test}}]}}]\n"
    user = Repository(tmp_path / "user")
    user.commit(
        {
            ".pre-commit-config.yaml": config,
            "workflows/good.yaml": GOOD,
            "workflows/good.test.yaml": TESTS,
            "other/bad.yaml": BAD,
        },
        message="good",
    )
    cache = tmp_path / "cache"

    for hook in ("pinflow-validate", "pinflow-schema", "pinflow-test"):
        done = _run_hook(user.path, cache, hook)
        assert done.returncode == 0, done.stdout + done.stderr

    user.commit({"workflows/bad.yaml": BAD, "workflows/unordered.yaml": UNORDERED}, message="bad")
    validated = _run_hook(user.path, cache, "pinflow-validate")
    assert validated.returncode == 1
    assert (
        "workflows/bad.yaml:2:40: UNKNOWN_KEY unknown key `needs` (did you mean `depends_on`?)"
        in validated.stdout
    )
    assert "workflows/unordered.yaml:2:53: UNKNOWN_TASK there is no task `b`" in validated.stdout
    assert "other/bad.yaml" not in validated.stdout

    shaped = _run_hook(user.path, cache, "pinflow-schema")
    assert shaped.returncode == 1
    assert "workflows/bad.yaml:2:40: UNKNOWN_KEY" in shaped.stdout
    assert "UNKNOWN_TASK" not in shaped.stdout

    failing = TESTS.replace("tasks: {a: COMPLETED}", "tasks: {a: SKIPPED}")
    user.commit({"workflows/good.test.yaml": failing}, message="failing")
    tested = _run_hook(user.path, cache, "pinflow-test")
    assert tested.returncode == 1
    assert "FAIL  sets  (workflows/good.test.yaml:2)" in tested.stdout

    (python,) = cache.glob("repo*/py_env-*/bin/python")
    found = subprocess.run(
        [python, "-c", "import importlib.util as u; print([n for n in ('temporalio', 'sqlalchemy', 'fastapi', 'git') if u.find_spec(n)])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "[]\n"
