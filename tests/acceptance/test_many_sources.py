"""The page on many signed sources, command for command, on the whole stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.docs import ROOT, commands
from tests.support.stack import PINFLOW, Up, environment, open_folder

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed"),
]

PAGE = "how-to/run-many-sources.md"
_SIGN = 'git -C flows -c gpg.format=ssh -c user.signingKey="$PWD/release" commit --quiet'


def shell(folder: Path, line: str) -> str:
    identity = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.test"}
    identity |= {"GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.test"}
    path = f"{PINFLOW.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env=environment() | identity | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_works_as_it_is_written() -> None:
    text = (ROOT / "docs" / PAGE).read_text("utf-8")
    found = re.search(r"<!-- sources\.yaml -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert found
    with open_folder() as folder:
        (folder / "sources.yaml").write_text(found[1])
        lines = commands(PAGE)
        start, confirm = lines.index("pinflow up --sources sources.yaml"), lines[-1]
        assert confirm == "pinflow sync confirm production"
        for line in lines[:start]:
            said = shell(folder, line)
        assert "production: production of " in said

        up = Up(folder)
        up.start("--sources", "sources.yaml")
        try:

            def stands(name: str, reason: str) -> None:
                up.until(lambda: source(name)["reason"] == reason, f"{name}: {reason}")

            def source(name: str) -> dict[str, str]:
                listed = json.loads(shell(folder, "pinflow sync status -o json"))
                return next(each for each in listed if each["name"] == name)

            stands("staging", "UpToDate")
            stands("production", "UpToDate")
            assert source("staging")["live_sha"] != source("production")["live_sha"]
            run = json.loads(shell(folder, "pinflow run production/hello -i name=Ada -o json"))
            shown = json.loads(shell(folder, f"pinflow executions show {run['id']} -o json"))
            assert shown["source"] == "production"
            # The version's commit is the first that production was synced at, which Ada signed.
            assert shown["signer"] == "ada@example.test"

            shell(folder, "git -C flows commit --quiet --allow-empty --message Unsigned")
            stands("production", "Untrusted")
            shell(folder, f"{_SIGN} --allow-empty -S --message 'On top'")
            stands("production", "UpToDate")
            shell(folder, "git -C flows reset --quiet --hard HEAD~2")
            shell(folder, f"{_SIGN} --allow-empty -S --message 'Another history'")
            stands("production", "HistoryRewritten")
            assert "HISTORY_REWRITTEN" in shell(folder, confirm)
            stands("production", "UpToDate")
            assert "source.confirmed" in shell(folder, "pinflow audit ls")
        finally:
            up.stop()
        up.start()  # what was watched last time
        try:
            assert {each["name"] for each in json.loads(shell(folder, "pinflow sync status -o json"))} == {
                "staging",
                "production",
            }
        finally:
            up.stop()
