"""The action and the GitLab template, step by step as their files say, and the comment that they leave on a forge."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.planning.plans import from_json
from engine.planning.reports import MARKER, as_markdown
from tests.support.docs import blocks, steps
from tests.support.fake_forge import fake_forge
from tests.support.git import Repository
from tests.support.pipelines import ACTION, TEMPLATE, bash, environment, run_action, run_job

ONE = "name: one\ntasks: [{id: a, type: set, values: {x: 1}}]\n"
PLAN = ("Plan",)
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


def refused() -> dict[str, Any]:
    return {"github-token": "wrong"}


def gate(level: str) -> dict[str, Any]:
    return {"fail-on": level}


@pytest.mark.parametrize("kind", ["github", "gitea"])
async def test_the_action_checks_tests_plans_and_comments_once(
    clone: Repository, tmp_path: Path, kind: str
) -> None:
    async with fake_forge(kind) as forge:
        done = await run_action(forge, clone.path, tmp_path)
        assert {name: step.returncode for name, step in done.items()} == {
            "Validate": 0,
            "Test": 0,
            "Plan": 0,
        }, done
        again = await run_action(forge, clone.path, tmp_path, steps=PLAN)
        assert again["Plan"].returncode == 0
    [comment] = forge.comments
    assert comment["number"] == 7
    assert comment["body"].startswith(MARKER)
    assert "tasks.a.values.x" in comment["body"]
    assert "two" not in comment["body"], "what main has got meanwhile is no part of the pull request"


async def test_the_plan_of_the_action_is_that_of_the_command(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        await run_action(forge, clone.path, tmp_path, steps=PLAN)
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
        done = await run_action(forge, clone.path, tmp_path)
    assert done["Validate"].returncode == 1
    assert "::error file=workflows/one.yaml,line=2," in done["Validate"].stdout
    assert done["Plan"].returncode == 1
    assert "This change would be refused" in forge.comments[0]["body"]


async def test_a_risk_can_fail_the_job(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        assert (await run_action(forge, clone.path, tmp_path, steps=PLAN, **gate("high")))[
            "Plan"
        ].returncode == 0
        assert (await run_action(forge, clone.path, tmp_path, steps=PLAN, **gate("low")))[
            "Plan"
        ].returncode == 1


async def test_a_push_has_a_plan_and_no_comment(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        event = {"before": clone.git("rev-parse", "HEAD^1")}
        done = await run_action(forge, clone.path, tmp_path, steps=PLAN, event=event)
    assert done["Plan"].returncode == 0, done["Plan"].stderr
    assert forge.comments == []
    assert "tasks.a.values.x" in (tmp_path / "summary").read_text()


async def test_a_token_that_may_not_comment_is_told_in_words(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        done = await run_action(forge, clone.path, tmp_path, steps=PLAN, **refused())
    assert done["Plan"].returncode == 1
    assert "the forge answers 401" in done["Plan"].stderr
    assert "wrong" not in done["Plan"].stderr


async def test_inputs_are_no_code(clone: Repository, tmp_path: Path) -> None:
    async with fake_forge("github") as forge:
        hostile = f"$(touch {tmp_path}/ran) `touch {tmp_path}/ran` ; touch {tmp_path}/ran"
        await run_action(forge, clone.path, tmp_path, paths=hostile, range=hostile, server=hostile)
    assert not (tmp_path / "ran").exists()


async def test_the_jobs_of_gitlab_check_test_plan_and_comment_once(clone: Repository, tmp_path: Path) -> None:
    base = clone.git("merge-base", "HEAD^1", "topic")
    clone.git("checkout", "-q", "topic")  # GitLab checks the branch out, not the merge
    async with fake_forge("gitlab") as forge:
        for job in ("pinflow-validate", "pinflow-test", "pinflow-plan", "pinflow-plan"):
            done = await run_job(job, forge, clone.path, base, environment())
            assert done.returncode == 0, (job, done.stdout, done.stderr)
    [comment] = forge.comments
    told = from_json(json.loads((clone.path / "pinflow-plan.json").read_text()))
    assert comment["body"] == as_markdown(told)
    assert (clone.path / "pinflow-tests.xml").exists()


async def test_a_pipeline_for_merged_results_tells_of_the_merge_request_alone(clone: Repository) -> None:
    base = clone.git("merge-base", "HEAD^1", "topic")
    async with fake_forge("gitlab") as forge:
        done = await run_job("pinflow-plan", forge, clone.path, base, environment(), "merged_result")
    assert done.returncode == 0, done.stderr
    assert "tasks.a.values.x" in forge.comments[0]["body"]
    assert "two" not in forge.comments[0]["body"], "what main has got meanwhile is no part of it"


async def test_a_shallow_checkout_is_told_in_the_step(clone: Repository, tmp_path: Path) -> None:
    """As `actions/checkout` leaves it behind without `fetch-depth`: one commit, and no branch."""
    shallow = Repository(tmp_path / "shallow")
    shallow.git("fetch", "-q", "--depth", "1", f"file://{clone.path}", "main:refs/remotes/pull/7/merge")
    shallow.git("checkout", "-q", "--detach", "refs/remotes/pull/7/merge")
    async with fake_forge("github") as forge:
        done = await run_action(forge, shallow.path, tmp_path, steps=PLAN)
    assert done["Plan"].returncode == 1
    assert "`fetch-depth: 0` of actions/checkout" in done["Plan"].stderr
    assert forge.comments == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--builtin-schema", "vendor.github-actions", str(ACTION)],
        ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(TEMPLATE), "GITLAB"],
        ["--builtin-schema", "vendor.github-workflows", "GUIDE", "TUTORIAL"],
    ],
)
def test_the_files_fit_the_schemas_of_the_forges(arguments: list[str], tmp_path: Path) -> None:
    """Ours, and those that the pages have their readers write."""
    guide, gitlab = blocks("how-to/plan-on-a-pull-request.md", "yaml")
    tutorial = next(
        step.content
        for step in steps("tutorial/from-pull-request-to-production.md")
        if step.file.endswith("pinflow.yml")
    )
    for name, content in (("GUIDE", guide), ("GITLAB", gitlab), ("TUTORIAL", tutorial)):
        (tmp_path / f"{name}.yml").write_text(content)
    arguments = [str(tmp_path / f"{each}.yml") if each.isupper() else each for each in arguments]
    tool = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    assert tool is not None
    done = subprocess.run([tool, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_input_is_put_into_a_script() -> None:
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        assert "${{" not in step["run"]
