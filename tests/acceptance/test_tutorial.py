"""The tutorial, word for word: every command in it is typed as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.docs import ROOT, commands
from tests.support.stack import PINFLOW, Up, environment, open_folder

pytestmark = pytest.mark.timeout(600)

PAGE = "tutorial/first-workflow.md"


class Reader:
    """Types what the page says, and does by hand what it describes in words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.up: Up | None = None
        self.said: dict[str, str] = {}

    def type(self, line: str) -> None:
        """One command. Placeholders in capitals are filled in from what was shown before."""
        words = shlex.split(line)
        if words[0] == "cd":
            self.folder /= words[1]
        elif words[:2] == ["pinflow", "up"]:
            self.up = Up(self.folder)
            self.up.start(*words[2:])
        else:
            if words[:3] == ["git", "commit", "--all"]:
                self._edit()
            if words[:3] == ["pinflow", "approvals", "approve"]:
                self._wait_for_the_edit()
            self.said[line] = self._run([self._filled_in(word) for word in words])
            if words[:2] == ["pinflow", "run"]:
                self._wait_for_the_request()
            if words[:3] == ["pinflow", "approvals", "approve"]:
                self._wait_for_the_end()

    def _edit(self) -> None:
        file = self.folder / "workflows" / "functions" / "greetings.py"
        before = file.read_text()
        assert "Hello" in before
        file.write_text(before.replace("Hello", "Good day"))

    def _filled_in(self, word: str) -> str:
        if word not in ("ID", "RUN", "COMMIT"):
            return word
        if word == "ID":
            return str(json.loads(self._run(["pinflow", "approvals", "ls", "-o", "json"]))[0]["id"])
        run = json.loads(self._run(["pinflow", "executions", "ls", "-o", "json"]))[-1]
        return str(run["id"] if word == "RUN" else run["commit_sha"])

    def _wait_for_the_request(self) -> None:
        assert self.up
        client = self.up.client()
        self.up.until(lambda: list(client.pages("/approvals", 1)), "a request")

    def _wait_for_the_edit(self) -> None:
        assert self.up
        head = self._run(["git", "rev-parse", "HEAD"]).strip()
        self.up.live("hello", head)

    def _wait_for_the_end(self) -> None:
        run = self._filled_in("RUN")
        assert (
            subprocess.run(
                [PINFLOW, "executions", "watch", run], cwd=self.folder, capture_output=True
            ).returncode
            == 0
        )

    def _run(self, words: list[str]) -> str:
        identity = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.test"}
        identity |= {"GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.test"}
        path = f"{PINFLOW.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment() | identity | {"PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


def test_the_tutorial_works_as_it_is_written() -> None:
    with open_folder() as folder:
        reader = Reader(folder)
        try:
            for line in commands(PAGE):
                reader.type(line)

            shown = reader.said["pinflow executions show RUN"]
            assert "Hello, Ada!" in shown
            assert "Good day" not in shown
            assert "approval.decided" in reader.said["pinflow audit ls --commit COMMIT"]
            assert reader.up is not None
            reader._run(["pinflow", "run", "hello", "-i", "name=Eve"])
            reader.up.until(
                lambda: "Good day, Eve!" in reader._run(["pinflow", "approvals", "ls"]), "a new greeting"
            )
        finally:
            if reader.up is not None and reader.up.process is not None:
                reader.up.stop()


def test_the_mistake_that_the_tutorial_makes_is_told_with_its_place(tmp_path: Path) -> None:
    subprocess.run([PINFLOW, "init"], cwd=tmp_path, check=True, capture_output=True)
    wrong, right = "depends_on: [great]", "depends_on: [greet]"
    page = (ROOT / "docs" / PAGE).read_text()
    assert wrong in page
    assert right in page
    file = tmp_path / "workflows" / "hello.yaml"
    file.write_text(file.read_text().replace(right, wrong))

    done = subprocess.run([PINFLOW, "validate", "workflows"], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 1
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if wrong in text)
    assert re.search(rf"hello\.yaml:{line}:\d+: ", done.stdout + done.stderr)
