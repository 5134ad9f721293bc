"""Proposals pushed with credentials to a real sshd and a real `git http-backend`: taken, late, refused, and what is said."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text

from engine.errors import SourceError
from engine.settings import Credential, SourceSettings
from engine.storage import blobs, proposals, sources
from engine.storage.database import Database
from engine.sync.commit_message import message
from engine.sync.proposer import Proposer
from engine.sync.pushing import Pusher, Refused, TooLate
from tests.support.git import Repository
from tests.support.git_servers import SSHD, HttpsServer, SshServer, https_server, ssh_server
from tests.support.orders import ORDER, PATH
from tests.support.signing import ssh_key
from tests.support.syncing import flow

TOKEN = "pf-canary+/42 ok"
DIRECT = replace(ORDER, direct=True, branch="main")


@dataclass
class Remote:
    """A bare repository behind a server, and the way in."""

    bare: Path
    url: str
    credential: Credential
    wrong: Credential

    def pusher(self, data_dir: Path, credential: Credential | None = None) -> Pusher:
        source = SourceSettings(name="main", url=self.url)
        return Pusher(source, data_dir, credential or self.credential)

    def git(self, *arguments: str) -> str:
        """A command in the bare repository."""
        done = subprocess.run(
            ["git", "-C", str(self.bare), *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def hook(self, name: str, script: str) -> None:
        """A hook of the server."""
        file = self.bare / "hooks" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    folder = tmp_path_factory.mktemp("https")
    (folder / "served").mkdir()
    with https_server(folder / "served", folder / "tls", TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if not os.access(SSHD, os.X_OK):
        pytest.skip("no sshd on this machine")
    with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    return file


def over_https(server: HttpsServer, bare: Path, token: Path) -> Remote:
    wrong = token.with_name("wrong")
    wrong.write_text("not-this-one")
    hosts = (server.url.removeprefix("https://"),)
    fits = Credential(hosts=hosts, token_file=token, ca_file=server.ca_file)
    return Remote(bare, f"{server.url}/{bare.name}", fits, fits.model_copy(update={"token_file": wrong}))


def over_ssh(server: SshServer, bare: Path, token: Path) -> Remote:
    hosts = (f"127.0.0.1:{server.port}",)
    fits = Credential(hosts=hosts, ssh_key=server.key.file, known_hosts=server.known_hosts)
    other = ssh_key(token.parent, "other")
    return Remote(bare, server.url(bare), fits, fits.model_copy(update={"ssh_key": other.file}))


@pytest.fixture(params=["https", "ssh"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, token: Path) -> Remote:
    server = request.getfixturevalue(request.param)
    work = Repository(tmp_path / "work")
    work.commit({PATH: flow("release"), "ci.yml": "on: push\n"})
    root = server.ca_file.parent.parent / "served" if request.param == "https" else tmp_path
    bare = root / f"{tmp_path.name}.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(work.path), str(bare)], check=True)
    return (over_https if request.param == "https" else over_ssh)(server, bare, token)


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have something done between the commit and its push."""

    def arrange(what: Callable[[], None]) -> None:
        def hit(name: str) -> None:
            if name == "propose.before_push":
                what()

        monkeypatch.setattr("engine.sync.pushing.faults.hit", hit)

    return arrange


def test_a_proposal_and_a_direct_commit_are_pushed_and_found_again(remote: Remote, tmp_path: Path) -> None:
    pusher = remote.pusher(tmp_path / "data")
    proposed = pusher.push(ORDER)
    assert remote.git("rev-parse", ORDER.branch) == proposed.commit_sha
    assert remote.git("diff-tree", "-r", "--name-only", proposed.base_sha, proposed.commit_sha) == PATH
    assert pusher.push(replace(ORDER, again=True)) == proposed
    direct = pusher.push(replace(DIRECT, id="0190-b", message=message("Change it", "", "0190-b")))
    assert remote.git("rev-parse", "main") == direct.commit_sha
    assert list((tmp_path / "data" / "proposals").iterdir()) == []


def test_a_branch_that_moves_meanwhile_keeps_what_it_got(
    remote: Remote, tmp_path: Path, race: Callable[[Callable[[], None]], None]
) -> None:
    def faster() -> None:
        tree = remote.git("rev-parse", "main^{tree}")
        who = ["-c", "user.name=Eve", "-c", "user.email=eve@example.test"]
        remote.git(
            "update-ref",
            "refs/heads/main",
            remote.git(*who, "commit-tree", tree, "-p", "main", "-m", "Faster"),
        )

    race(faster)
    with pytest.raises(TooLate, match="main has moved meanwhile"):
        remote.pusher(tmp_path / "data").push(DIRECT)
    assert remote.git("log", "-1", "--format=%s", "main") == "Faster"


def test_a_credential_that_is_refused_is_waited_for(remote: Remote, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        remote.pusher(tmp_path / "data", remote.wrong).push(ORDER)
    assert caught.value.reason == "AccessDenied"
    assert "not-this-one" not in str(caught.value)


def test_what_the_servers_hook_says_is_passed_on(remote: Remote, tmp_path: Path) -> None:
    remote.hook("pre-receive", "echo 'only release managers may push here' >&2\nexit 1")
    with pytest.raises(Refused, match="pre-receive hook declined; only release managers may push here"):
        remote.pusher(tmp_path / "data").push(ORDER)
    assert remote.git("for-each-ref", "refs/heads/pinflow") == ""


@pytest.mark.parametrize("remote", ["https"], indirect=True)
async def test_of_a_credential_nothing_is_in_rows_logs_errors_or_files(
    remote: Remote, https: HttpsServer, database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A token that may only read, a wrong one, and a server that says aloud what it was given."""
    source = SourceSettings(name="main", url=remote.url)
    definition = flow("release", "2").encode()
    async with database.begin() as connection:
        found = await sources.ensure(
            connection, name="main", url=remote.url, branch="main", folder="workflows"
        )
        await blobs.put(connection, "definition", {blobs.digest_of(definition): definition})
        await proposals.add(
            connection, id=ORDER.id, kind="proposal", source_id=found, name="release", path=PATH, branch=ORDER.branch,
            message=ORDER.message, digest=blobs.digest_of(definition), requested_by="ada",
        )  # fmt: skip
    credential = remote.wrong
    proposer = Proposer(database, lambda: {"main": source}, tmp_path / "data", lambda _: credential)

    async def after_a_pass() -> tuple[str, str]:
        async with database.begin() as connection:
            await proposals.postpone(connection, ORDER.id, delay=0, error="")
        assert await proposer.pass_once() == 1
        async with database.read() as connection:
            row = await proposals.by_id(connection, ORDER.id)
        assert row is not None
        return row["status"], row["error"]

    status, said = await after_a_pass()
    assert (status, said.startswith("AccessDenied: ")) == ("PROPOSING", True)
    https.read_only, credential = True, remote.credential
    status, said = await after_a_pass()
    assert status == "PROPOSING"
    assert said.endswith(f"the daemon's credential of main must be allowed to push {ORDER.branch}")
    https.read_only = False
    remote.hook("pre-receive", f"echo 'you are {TOKEN}' >&2\nexit 1")
    status, said = await after_a_pass()
    assert (status, "you are ***" in said) == ("FAILED", True)
    kept = [*await everything(database), *capfd.readouterr()]
    kept += [file.read_bytes().decode("latin-1") for file in (tmp_path / "data").rglob("*") if file.is_file()]
    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    for form in (TOKEN, quote(TOKEN, safe=""), basic, "not-this-one"):
        assert not [each for each in kept if form in each], form


async def everything(database: Database) -> list[str]:
    """All rows of the tables that a proposal writes, as text."""
    async with database.read() as connection:
        rows: list[Any] = []
        for table in ("proposals", "audit", "sources", "forge_messages"):
            rows += (await connection.execute(text(f"SELECT t::text FROM {table} t"))).scalars().all()
    return [str(row) for row in rows]
