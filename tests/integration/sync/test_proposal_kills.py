"""A proposal whose pusher dies: the row, the branch and the audit come to one and the same end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.registry.workflow_registry import WorkflowRegistry
from engine.storage import blobs, proposals, sources
from engine.storage.database import Database
from engine.sync.commit_message import TRAILER, message
from tests.support.git import Repository
from tests.support.git_servers import https_server
from tests.support.syncing import DaemonProcess, flow, until

ID = "0190-kill"
pytestmark = pytest.mark.chaos


@pytest.fixture
def over(request: pytest.FixtureRequest, git_repo: Repository, tmp_path: Path) -> Iterator[Path]:
    """The operator's file, for a repository on this machine or one behind HTTPS and a token."""
    file = tmp_path / "sources.yaml"
    if getattr(request, "param", "file") == "file":
        file.write_text(f"sources: [{{name: main, url: '{git_repo.path}', poll_interval: 0.3}}]\n")
        yield file
        return
    (tmp_path / "token").write_text("a-token")
    with https_server(git_repo.path.parent, tmp_path / "tls", "a-token") as server:
        host = server.url.removeprefix("https://")
        file.write_text(
            f"credentials: {{forge: {{hosts: ['{host}'], token_file: '{tmp_path}/token', ca_file: '{server.ca_file}'}}}}\n"
            f"sources: [{{name: main, url: '{server.url}/{git_repo.path.name}/.git', poll_interval: 0.3, credential: forge}}]\n"
        )
        yield file


@pytest.fixture
def daemons(database_url: str, over: Path, tmp_path: Path) -> Iterator[list[DaemonProcess]]:
    made = [DaemonProcess(database_url, tmp_path / name, file=over) for name in ("one", "two")]
    yield made
    for each in made:
        each.kill()


async def propose(database: Database, *, direct: bool) -> None:
    """The row that `POST /workflows` leaves, with nothing pushed yet."""
    text = flow("release", "2").encode()
    async with database.begin() as connection:
        source = await sources.ensure(connection, name="main", url="/r", branch="main", folder="workflows")
        await blobs.put(connection, "definition", {blobs.digest_of(text): text})
        await proposals.add(
            connection, id=ID, kind="proposal", source_id=source, name="release", path="workflows/release.yaml",
            branch="main" if direct else f"pinflow/proposals/{ID}", direct=direct, message=message("Change it", "", ID),
            digest=blobs.digest_of(text), requested_by="ada", created_at=datetime(2026, 6, 1, tzinfo=UTC),
        )  # fmt: skip


async def standing(database: Database) -> tuple[str, str]:
    async with database.read() as connection:
        row = await proposals.by_id(connection, ID)
    assert row is not None
    return row["status"], row["commit_sha"]


@pytest.mark.parametrize(
    ("point", "direct", "over"),
    [
        ("propose.before_push", False, "file"),
        ("propose.before_push", True, "file"),
        ("propose.after_push", False, "https"),
        ("propose.after_push", True, "https"),
    ],
    indirect=["over"],
)
async def test_a_killed_push_is_finished_by_another_daemon_once(
    database: Database, git_repo: Repository, daemons: list[DaemonProcess], point: str, direct: bool
) -> None:
    git_repo.commit({"workflows/release.yaml": flow("release", "1")})
    git_repo.git("checkout", "-q", "--detach")
    await propose(database, direct=direct)
    daemons[0].start(f"{point}=kill:1")
    assert await daemons[0].ended() == -signal.SIGKILL
    async with database.begin() as connection:  # its lease would have to pass first
        await proposals.postpone(connection, ID, delay=0, error="")
    daemons[1].start()

    async def done() -> bool:
        return (await standing(database))[0] == "PROPOSED"

    await until(done, "the proposal is pushed")
    listed = git_repo.git(
        "log", "--all", f"--format=%H %(trailers:key={TRAILER},valueonly,separator=)"
    ).splitlines()
    made = [line.split()[0] for line in listed if line.endswith(ID)]
    assert made == [(await standing(database))[1]], "one commit, and the row names it"
    rows = [row for row in await WorkflowRegistry(database).revisions() if row["sha"] == made[0]]
    assert len(rows) <= int(direct)


async def test_a_proposal_that_nobody_pushed_is_pushed_by_whoever_watches_the_source(
    database: Database, git_repo: Repository, daemons: list[DaemonProcess]
) -> None:
    """What is left if the API dies at `propose.after_commit`."""
    git_repo.commit({"workflows/release.yaml": flow("release", "1")})
    await propose(database, direct=False)
    daemons[0].start()

    async def done() -> bool:
        return (await standing(database))[0] == "PROPOSED"

    await until(done, "the proposal is pushed")
    assert git_repo.git("rev-parse", f"pinflow/proposals/{ID}") == (await standing(database))[1]
