"""The tutorial from an empty repository to production, word for word.

GitHub is played by a real `git http-backend` over TLS, a forge that answers on its API, and a key that signs merges.  What
a command or a file says of github.com is said of these instead (`GitHub.here`); `pinflow up` is `pinflow serve all` on
the servers of the tests.  All else is typed as it stands on the page.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from engine.cli.client import Client
from engine.errors import Unavailable
from engine.planning.plans import from_json
from engine.planning.reports import as_markdown
from engine.services.tokens import ensure_local_token
from engine.stack.processes import free_port
from engine.storage.database import Database
from tests.support.docs import Step, general, steps
from tests.support.fake_forge import FakeForge, fake_forge
from tests.support.git import Repository
from tests.support.git_servers import HttpsServer, https_server
from tests.support.pipelines import environment, run_action
from tests.support.signing import GpgKey, forget, gpg_key
from tests.support.terminal import Terminal

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("ssh-keygen", "gpg", "curl", "openssl"))), reason="a tool of the tutorial is missing"
)  # fmt: skip

PAGE = "tutorial/from-pull-request-to-production.md"
TOKEN = "github-canary-token"
YOU = "You <you@example.test>"
GATE = re.compile(r"  - id: gate\n.*?(?=  - id: said)", re.DOTALL)


class GitHub:
    """The forge of the tutorial: one repository, its API, and the key that signs what is merged on its pages."""

    def __init__(self, folder: Path, server: HttpsServer, forge: FakeForge, key: GpgKey) -> None:
        self.server = server
        self.forge = forge
        self._key = key
        self._folder = folder
        self.bare = folder / "you" / "flows.git"
        Repository(folder / "seed").git(
            "init", "--quiet", "--bare", "--initial-branch", "main", str(self.bare)
        )
        server.public["/web-flow.gpg"] = key.gpg("--armor", "--export")
        self.desk: Repository | None = None

    def here(self, text: str) -> str:
        """A text of the page with the addresses at which GitHub is played."""
        for theirs, ours in (
            ("https://api.github.com", self.forge.api),
            ("https://github.com", self.server.url),
            ("[github.com]", f"[{self.server.url.removeprefix('https://')}]"),
            ('["github.com"]', f'["{self.server.url.removeprefix("https://")}"]'),
            ("token_env: GITHUB_TOKEN}", f'token_env: GITHUB_TOKEN, ca_file: "{self.server.ca_file}"}}'),
        ):
            text = text.replace(theirs, ours)
        return text

    def merge(self, number: int, branch: str, base: str) -> str:
        """Merge a pull request with the button, and return the merge commit."""
        desk = self._at(base)
        subject = f"Merge pull request #{number} from you/{branch}"
        merge = ("merge", "--quiet", "--no-ff", "-S", "-m", subject, f"origin/{branch}")
        desk.git(*self._key.options(), *merge, author=YOU)
        desk.git("push", "--quiet", "origin", f"HEAD:refs/heads/{base}")
        return desk.head()

    def revert(self, merge: str, base: str) -> str:
        """The button Revert: a branch with the revert of a merge; its name."""
        desk = self._at(base)
        desk.git(*self._key.options(), "revert", "--mainline", "1", "--no-edit", "-S", merge, author=YOU)
        desk.git("push", "--quiet", "origin", "HEAD:refs/heads/revert")
        return "revert"

    def check_out(self, number: int, branch: str, base: str, folder: Path) -> Path:
        """What `actions/checkout` leaves behind for a pull request: all branches, and HEAD at what the merge would be."""
        desk = self._at(base)
        desk.git("merge", "--quiet", "--no-ff", "-m", f"Merge {branch} into {base}", f"origin/{branch}")
        desk.git("push", "--quiet", "origin", f"HEAD:refs/pull/{number}/merge")
        made = Repository(folder)
        made.git("fetch", "--quiet", str(self.bare), "+refs/heads/*:refs/remotes/origin/*")
        made.git("fetch", "--quiet", str(self.bare), f"refs/pull/{number}/merge")
        made.git("checkout", "--quiet", "--detach", "FETCH_HEAD")
        return made.path

    def tip(self, branch: str) -> str:
        """The commit of a branch."""
        return (self.bare / "refs" / "heads" / branch).read_text().strip()

    def _at(self, branch: str) -> Repository:
        if self.desk is None:
            self.desk = Repository(self._folder / "desk")
            self.desk.git("remote", "add", "origin", str(self.bare))
        self.desk.git("fetch", "--quiet", "--prune", "origin")
        self.desk.git("checkout", "--quiet", "--force", "--detach", f"origin/{branch}")
        self.desk.tick()
        return self.desk


class Reader:
    """Types what the page says, and does by hand what it says in words."""

    def __init__(self, folder: Path, terminal: Terminal, github: GitHub, client: Client) -> None:
        self.folder = folder
        self.terminal = terminal
        self.client = client
        self.github = github
        self.said: dict[str, list[str]] = {}
        self.merges: list[str] = []
        self.server = 0
        self.wrong: list[str] = []

    async def do(self, step: Step) -> None:
        """One step of the page."""
        if step.file:
            file = self.folder / step.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.github.here(step.content))
            return
        line, times = step.command, len(self.said.get(step.command, ()))
        await asyncio.to_thread(self._by_hand, line, times)
        typed = self.github.here(await asyncio.to_thread(self._filled_in, line))
        if line.startswith("pinflow up "):
            said = ""
            self.server = await asyncio.to_thread(
                self.terminal.start, typed.replace("pinflow up", "pinflow serve all"), self.folder / "up.log"
            )
            await self.until(self._seen, "both sources to be looked at")
        else:
            said = await asyncio.to_thread(self.terminal.type, typed)
        self.said.setdefault(line, []).append(said)
        if step.shown and general(said) != general(self.github.here(step.shown)):
            self.wrong.append(f"$ {line}\n{said}")
        await self._afterwards(line)

    def _by_hand(self, line: str, times: int) -> None:
        """What the page says in words before a line, by how often it was typed before."""
        match line, times:
            case 'git commit --quiet --all --message "Ask nobody"', _:
                self._edit(
                    lambda text: GATE.sub("", text).replace("depends_on: [gate]", "depends_on: [greet]")
                )
            case 'git commit --quiet --all --message "Wait two days at most"', _:
                self._edit(lambda text: re.sub(r"( +)(message: .*\n)", r"\1\2\1deadline: 48h\n", text))
            case "pinflow sync now", 0:
                self.merges.append(self.github.merge(7, "change", "main"))
            case "pinflow sync now", 1:
                branch = self.github.forge.pulls[0]["head"]["ref"]
                self.merges.append(self.github.merge(8, branch, "production"))
            case "pinflow sync now", 2:
                branch = self.github.revert(self.merges[-1], "production")
                self.merges.append(self.github.merge(9, branch, "production"))

    async def _afterwards(self, line: str) -> None:
        """What a person waits for before the next line."""
        if line.startswith("pinflow sync now"):
            await self.until(self._seen, "the sources to be looked at")
        elif line.startswith("pinflow run "):
            await self.until(lambda: self._listed("/approvals", status="PENDING"), "a request")
        elif line.startswith("pinflow approvals approve "):
            await self.until(lambda: self._listed("/executions")[0]["status"] == "COMPLETED", "the end")
        elif line.startswith("pinflow promote "):
            await self.until(lambda: self.github.forge.pulls, "a pull request")

    def _filled_in(self, line: str) -> str:
        line = line.replace("=TOKEN", f"={TOKEN}")
        if " ID " in line:
            line = line.replace(" ID ", f" {self._listed('/approvals', status='PENDING')[0]['id']} ")
        if line.endswith(" RUN"):
            line = line.replace(" RUN", f" {self._listed('/executions')[0]['id']}")
        return line

    def _seen(self) -> bool:
        known = {each["name"]: each["observed_sha"] for each in self._listed("/sources")}
        tips = {"staging": self.github.tip("main"), "production": self.github.tip("production")}
        return bool(known == tips)

    def _listed(self, path: str, **query: str) -> list[dict[str, Any]]:
        try:
            return list(self.client.pages(path, 10, **query))
        except Unavailable:
            return []  # the server is not up yet

    def _edit(self, edit: Callable[[str], str]) -> None:
        file = self.folder / "flows" / "workflows" / "hello.yaml"
        before = file.read_text()
        assert edit(before) != before
        file.write_text(edit(before))

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition; fails with what the server said."""
        deadline = time.monotonic() + 60
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                log = (self.folder / "up.log").read_text()
                raise AssertionError(f"waited for {what}\n{log[-4000:]}")
            await asyncio.sleep(0.1)


@pytest.fixture
def key(tmp_path: Path) -> Any:
    made = gpg_key(tmp_path, "GitHub <noreply@github.com>")
    yield made
    forget(made)


@pytest_asyncio.fixture(loop_scope="session")
async def github(tmp_path: Path, key: GpgKey) -> AsyncIterator[GitHub]:
    with https_server(tmp_path / "github", tmp_path / "tls", TOKEN) as server:
        async with fake_forge("github", "you/flows") as forge:
            forge.token = TOKEN
            yield GitHub(tmp_path / "github", server, forge, key)


@pytest_asyncio.fixture(loop_scope="session")
async def reader(
    tmp_path: Path, github: GitHub, database: Database, database_url: str, temporal: str
) -> AsyncIterator[Reader]:
    home, folder, port = tmp_path / "home", tmp_path / "work", free_port()
    for each in (home, folder):
        each.mkdir()
    (home / ".gitconfig").write_text("[user]\n  name = You\n  email = you@example.test\n")
    password = home / "password"
    password.write_text(f"#!/bin/sh\necho {TOKEN}\n")
    password.chmod(0o755)
    url, token = f"http://127.0.0.1:{port}", await ensure_local_token(database, home / "token", subject="you")
    terminal = Terminal(
        folder,
        environment(
            HOME=str(home),
            GIT_ASKPASS=str(password),
            GIT_SSL_CAINFO=str(github.server.ca_file),
            CURL_CA_BUNDLE=str(github.server.ca_file),
            PINFLOW_DATABASE_URL=database_url,
            PINFLOW_TEMPORAL_ADDRESS=temporal,
            PINFLOW_TASK_QUEUE=f"test-{uuid.uuid4().hex[:8]}",
            PINFLOW_API_PORT=str(port),
            PINFLOW_DATA_DIR=str(tmp_path / "data"),
            PINFLOW_TOKEN=token,
            PINFLOW_URL=url,
        ),
    )

    made = Reader(folder, terminal, github, Client(url, token))
    yield made
    if made.server:
        os.kill(made.server, signal.SIGTERM)
        await asyncio.to_thread(terminal.type, f"wait {made.server}; true")
    await asyncio.to_thread(terminal.close)


async def test_the_tutorial_works_as_it_is_written(reader: Reader, github: GitHub, tmp_path: Path) -> None:
    forge = github.forge
    for step in steps(PAGE):
        await reader.do(step)
        if step.command.startswith("git push") and step.command.endswith("origin change"):
            await _the_action_plans_the_pull_request(reader, github, tmp_path)
    assert not reader.wrong, "\n\n".join(reader.wrong)

    held = reader.said["pinflow sync status"][0]
    assert "Held" in held
    assert "what helps: " in held
    assert '{"greeting": "Hello, Ada!"}' in reader.said["pinflow executions show RUN"][0]
    change, promotion, _ = reader.merges
    assert forge.pulls[0]["said"]["base"] == "production"
    promoted = reader.said["pinflow history production/hello"][0]
    assert re.search(rf"{promotion[:12]}\s+live\s.*GitHub <noreply@github.com>", promoted)
    await reader.until(lambda: forge.last(change, "pinflow/staging") == "success", "the status of the merge")
    await reader.until(
        lambda: [c for c in forge.comments if c["number"] == 7][1:], "the comment on the merge"
    )
    told = "".join([*itertools.chain(*reader.said.values()), (reader.folder / "up.log").read_text()])
    assert TOKEN not in told


async def _the_action_plans_the_pull_request(reader: Reader, github: GitHub, scratch: Path) -> None:
    clone = await asyncio.to_thread(github.check_out, 7, "change", "main", scratch / "runner")
    asked = yaml.safe_load((reader.folder / "flows/.github/workflows/pinflow.yml").read_text())
    done = await run_action(github.forge, clone, scratch, **asked["jobs"]["pinflow"]["steps"][-1]["with"])
    assert all(each.returncode == 0 for each in done.values()), done
    plan = from_json(json.loads((scratch / "pinflow-plan.json").read_text()))
    [comment] = github.forge.comments
    assert (comment["number"], comment["body"]) == (7, as_markdown(plan))
    assert [change.path for change in plan.definitions[0].changes] == ["tasks.gate.config.deadline"]
