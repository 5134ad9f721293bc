"""The action and the GitLab template, step by step as their files say, and the comment that they leave on a forge."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.planning.plans import from_json
from engine.planning.reports import MARKER, as_markdown
from tests.support.fake_forge import FakeForge, fake_forge
from tests.support.git import Repository

ROOT = Path(__file__).parents[3]
ACTION = ROOT / "action.yml"
TEMPLATE = ROOT / "templates" / "pinflow.gitlab-ci.yml"
ONE = "name: one\ntasks: [{id: a, type: set, values: {x: 1}}]\n"
CASES = "workflow: one\ncases: [{name: sets, expect: {status: COMPLETED, tasks: {a: COMPLETED}}}]\n"


@pytest.fixture
def clone(tmp_path: Path) -> Repository:
    """What a forge checks out for a pull request: the commit that the merge would be."""
    made = Repository(tmp_path / "clone")
    made.commit({"workflows/one.yaml": ONE, "workflows/one.test.yaml": CASES})
    made.git("checkout", "-q", "-b", "topic")
    made.commit({"workflows/one.yaml": ONE.replace("x: 1", "x: 2")})
    made.git("checkout", "-q", "main")
    made.commit({"workflows/two.yaml": ONE.replace("one", "two")})
    made.merge("topic")
    return made


def environment(**more: str) -> dict[str, str]:
    """Nothing of the pipeline that this test itself may run in."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("GITHUB_", "CI", "GITLAB_", "GIT_"))
    }
    bin = Path(sys.executable).parent
    return kept | {"PATH": f"{bin}:{kept['PATH']}"} | more


def refused() -> dict[str, Any]:
    return {"github-token": "wrong"}


def gate(level: str) -> dict[str, Any]:
    return {"fail-on": level}


async def bash(
    script: str, folder: Path, env: dict[str, str], shell: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, [*shell, script], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )


async def run_action(
    forge: FakeForge, clone: Repository, scratch: Path, *, event: dict[str, Any] | None = None, **inputs: str
) -> dict[str, subprocess.CompletedProcess[str]]:
    """The action's steps but for the installation, with its inputs put in as the runner does."""
    action = yaml.safe_load(ACTION.read_text())
    values = (
        {name: spec["default"] for name, spec in action["inputs"].items()}
        | {"github-token": forge.token}
        | inputs
    )
    (scratch / "event.json").write_text(json.dumps(event or {"pull_request": {"number": 7}}))
    env = environment(
        GITHUB_ACTIONS="true",
        GITHUB_API_URL=forge.api,
        GITHUB_REPOSITORY="ada/flows",
        GITHUB_EVENT_PATH=str(scratch / "event.json"),
        GITHUB_BASE_REF="main" if event is None else "",
        GITHUB_OUTPUT=str(scratch / "output"),
        GITHUB_STEP_SUMMARY=str(scratch / "summary"),
        RUNNER_TEMP=str(scratch),
    )
    if forge.kind == "gitea":
        env["GITEA_ACTIONS"] = "true"
    done = {}
    for step in action["runs"]["steps"][1:]:
        own = dict(step.get("env", {}))
        for key, value in own.items():
            name = value.removeprefix("${{ inputs.").removesuffix(" }}")
            own[key] = values[name]
        done[step["name"]] = await bash(
            step["run"], clone.path, env | own, ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
        )
    return done


@pytest.mark.parametrize("kind", ["github", "gitea"])
async def test_the_action_checks_tests_plans_and_comments_once(
    clone: Repository, tmp_path: Path, kind: str
) -> None:
    async with fake_forge(kind) as forge:
        done = await run_action(forge, clone, tmp_path)
        assert {name: step.returncode for name, step in done.items()} == {
            "Validate": 0,
            "Test": 0,
            "Plan": 0,
        }, done
        again = await run_action(forge, clone, tmp_path)
        assert again["Plan"].returncode == 0
    [comment] = forge.comments
    assert comment["number"] == 7
    assert comment["body"].startswith(MARKER)
    assert "tasks.a.values.x" in comment["body"]
    assert "two" not in comment["body"], "what main has got meanwhile is no part of the pull request"


async def test_the_plan_of_the_action_is_that_of_the_command(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        await run_action(forge, clone, tmp_path)
    told = from_json(json.loads((tmp_path / "pinflow-plan.json").read_text()))
    by_hand = await bash("pinflow plan HEAD^1..HEAD --format json", clone.path, environment(), ("bash", "-c"))
    assert told == from_json(json.loads(by_hand.stdout))
    assert forge.comments[0]["body"] == as_markdown(told)
    assert as_markdown(told) in (tmp_path / "summary").read_text()


async def test_an_invalid_head_fails_and_is_told_on_the_pull_request(
    clone: Repository, tmp_path: Path
) -> None:
    clone.git("checkout", "-q", "topic")
    clone.commit({"workflows/one.yaml": ONE.replace("type: set", "type: sett")})
    clone.git("checkout", "-q", "main")
    clone.merge("topic")
    async with fake_forge("github") as forge:
        done = await run_action(forge, clone, tmp_path)
    assert done["Validate"].returncode == 1
    assert "::error file=workflows/one.yaml,line=2," in done["Validate"].stdout
    assert done["Plan"].returncode == 1
    assert "This change would be refused" in forge.comments[0]["body"]


async def test_a_risk_can_fail_the_job(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        assert (await run_action(forge, clone, tmp_path, **gate("high")))["Plan"].returncode == 0
        assert (await run_action(forge, clone, tmp_path, **gate("low")))["Plan"].returncode == 1


async def test_a_push_has_a_plan_and_no_comment(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        event = {"before": clone.git("rev-parse", "HEAD^1")}
        done = await run_action(forge, clone, tmp_path, event=event)
    assert done["Plan"].returncode == 0, done["Plan"].stderr
    assert forge.comments == []
    assert "tasks.a.values.x" in (tmp_path / "summary").read_text()


async def test_a_token_that_may_not_comment_is_told_in_words(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        done = await run_action(forge, clone, tmp_path, **refused())
    assert done["Plan"].returncode == 1
    assert "the forge answers 401" in done["Plan"].stderr
    assert "wrong" not in done["Plan"].stderr


async def test_inputs_are_no_code(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        hostile = f"$(touch {tmp_path}/ran) `touch {tmp_path}/ran` ; touch {tmp_path}/ran"
        await run_action(forge, clone, tmp_path, paths=hostile, range=hostile, server=hostile)
    assert not (tmp_path / "ran").exists()


async def test_the_jobs_of_gitlab_check_test_plan_and_comment_once(clone: Repository, tmp_path: Path) -> None:
    template = yaml.safe_load(TEMPLATE.read_text())
    async with fake_forge("gitlab") as forge:
        env = environment(
            **template["variables"],
            GITLAB_CI="true",
            CI_API_V4_URL=forge.api,
            CI_PROJECT_PATH="ada/flows",
            CI_MERGE_REQUEST_IID="7",
            CI_MERGE_REQUEST_DIFF_BASE_SHA=clone.git("merge-base", "HEAD^1", "topic"),
            PINFLOW_GITLAB_TOKEN=forge.token,
        )
        clone.git("checkout", "-q", "topic")  # GitLab checks the branch out, not the merge
        for _ in range(2):
            for job in ("pinflow-validate", "pinflow-test", "pinflow-plan"):
                done = await bash("\n".join(template[job]["script"]), clone.path, env, ("sh", "-ec"))
                assert done.returncode == 0, (job, done.stdout, done.stderr)
    [comment] = forge.comments
    told = from_json(json.loads((clone.path / "pinflow-plan.json").read_text()))
    assert comment["body"] == as_markdown(told)
    assert (clone.path / "pinflow-tests.xml").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--builtin-schema", "vendor.github-actions", str(ACTION)],
        ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(TEMPLATE)],
    ],
)
def test_the_files_fit_the_schemas_of_the_forges(arguments: list[str]) -> None:
    tool = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    assert tool is not None
    done = subprocess.run([tool, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_input_is_put_into_a_script() -> None:
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        assert "${{" not in step["run"]
