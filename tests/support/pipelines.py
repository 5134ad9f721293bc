"""The pipelines of the forges: what their runners do around our action and our template, and nothing more."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.docs import ROOT
from tests.support.fake_forge import FakeForge

ACTION = ROOT / "action.yml"
TEMPLATE = ROOT / "templates" / "pinflow.gitlab-ci.yml"


def environment(**more: str) -> dict[str, str]:
    """Nothing of the pipeline that this test itself may run in."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("GITHUB_", "CI", "GITLAB_", "GIT_"))
    }
    bin = Path(sys.executable).parent
    return kept | {"PATH": f"{bin}:{kept['PATH']}"} | more


async def bash(
    script: str, folder: Path, env: dict[str, str], shell: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    """Run a script as a runner does."""
    return await asyncio.to_thread(
        subprocess.run, [*shell, script], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )


async def run_action(
    forge: FakeForge,
    clone: Path,
    scratch: Path,
    *,
    event: dict[str, Any] | None = None,
    steps: tuple[str, ...] = ("Validate", "Test", "Plan"),
    **inputs: str,
) -> dict[str, subprocess.CompletedProcess[str]]:
    """Steps of the action, all but for the installation, with its inputs put in as the runner does.

    Without an `event` the pipeline is that of pull request 7 against `main`. A step without a condition of its own is
    left out once one has failed.
    """
    action = yaml.safe_load(ACTION.read_text())
    values = (
        {name: spec["default"] for name, spec in action["inputs"].items()}
        | {"github-token": forge.token}
        | inputs
    )
    about = event or {"pull_request": {"number": 7}}
    (scratch / "event.json").write_text(json.dumps(about))
    env = environment(
        GITHUB_ACTIONS="true",
        GITHUB_API_URL=forge.api,
        GITHUB_REPOSITORY=forge.repository,
        GITHUB_EVENT_PATH=str(scratch / "event.json"),
        GITHUB_BASE_REF=about["pull_request"].get("base", {}).get("ref", "main") if "pull_request" in about else "",
        GITHUB_WORKSPACE=str(clone),
        GITHUB_OUTPUT=str(scratch / "output"),
        GITHUB_STEP_SUMMARY=str(scratch / "summary"),
        RUNNER_TEMP=str(scratch),
    )  # fmt: skip
    if forge.kind == "gitea":
        env["GITEA_ACTIONS"] = "true"
    done: dict[str, subprocess.CompletedProcess[str]] = {}
    for step in (each for each in action["runs"]["steps"] if each["name"] in steps):
        if "if" not in step and any(each.returncode for each in done.values()):
            continue
        own = dict(step.get("env", {}))
        for key, value in own.items():
            name = value.removeprefix("${{ inputs.").removesuffix(" }}")
            own[key] = values[name]
        done[step["name"]] = await bash(
            step["run"], clone, env | own, ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
        )
    return done


async def run_job(
    job: str, forge: FakeForge, clone: Path, base: str, env: dict[str, str], kind: str = "detached"
) -> subprocess.CompletedProcess[str]:
    """A job of the GitLab template, for merge request 7, whose branch began at `base`: it is what is checked out, or, in a
    pipeline of the kind `merged_result`, what the merge would be."""
    template = yaml.safe_load(TEMPLATE.read_text())
    given = {
        "GITLAB_CI": "true",
        "CI_API_V4_URL": forge.api,
        "CI_PROJECT_PATH": forge.repository,
        "CI_MERGE_REQUEST_IID": "7",
        "CI_MERGE_REQUEST_EVENT_TYPE": kind,
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": base,
        "PINFLOW_GITLAB_TOKEN": forge.token,
    }
    return await bash(
        "\n".join(template[job]["script"]), clone, env | template["variables"] | given, ("sh", "-ec")
    )
