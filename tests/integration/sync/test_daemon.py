"""The daemon as a whole: watching, several sources, kills at every fault point, two of a kind."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from engine.errors import Misconfigured
from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import Settings, SourceSettings
from engine.storage.database import Database
from engine.sync.daemon import serve_sync
from tests.support.git import Repository
from tests.support.syncing import DaemonProcess, flow, until


def source(repository: Repository, name: str = "main", **more: Any) -> SourceSettings:
    return SourceSettings.model_validate({"name": name, "url": str(repository.path), **more})


@asynccontextmanager
async def daemon(database_url: str, data_dir: Path, *sources: SourceSettings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    settings = Settings(database_url=database_url, data_dir=data_dir, sources=sources)
    task = asyncio.create_task(serve_sync(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.fixture
def registry(database: Database) -> WorkflowRegistry:
    return WorkflowRegistry(database)


async def condition_of(registry: WorkflowRegistry, name: str = "main") -> str:
    rows = {row["name"]: row for row in await registry.sources()}
    return str(rows[name]["reason"]) if name in rows else ""


async def live_at(registry: WorkflowRegistry, sha: str, name: str = "main", seconds: float = 60) -> None:
    async def condition() -> bool:
        return any(row["name"] == name and row["live_sha"] == sha for row in await registry.sources())

    await until(condition, f"{name} live at {sha[:12]}", seconds)


async def revisions(registry: WorkflowRegistry, name: str = "main") -> list[str]:
    return [row["sha"] for row in reversed(await registry.revisions(limit=1000, source=name))]


async def test_a_commit_in_a_watched_repository_is_live_without_waiting_for_a_poll(
    database_url: str, registry: WorkflowRegistry, git_repo: Repository, tmp_path: Path
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    async with daemon(database_url, tmp_path, source(git_repo, poll_interval=3600)):
        await live_at(registry, git_repo.head())
        for n in range(3):
            await live_at(
                registry, git_repo.commit({"workflows/a.yaml": flow("a", f"again {n}")}), seconds=20
            )
        git_repo.git("pack-refs", "--all")
        git_repo.git("gc", "--quiet")
        await live_at(registry, git_repo.commit({"workflows/a.yaml": flow("a", "packed")}), seconds=20)


async def test_what_is_edited_and_not_committed_is_not_seen(
    database_url: str, registry: WorkflowRegistry, git_repo: Repository, tmp_path: Path
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a")})
    async with daemon(database_url, tmp_path, source(git_repo, poll_interval=0.2)):
        await live_at(registry, first)
        git_repo.write({"workflows/a.yaml": "name: [", "workflows/b.yaml": flow("b")})
        git_repo.git("add", "--all")
        checked = (await registry.sources())[0]["checked_at"]

        async def looked_twice() -> bool:
            return bool((await registry.sources())[0]["checked_at"] > checked)

        await until(looked_twice, "another pass")
    assert await revisions(registry) == [first]
    assert [row["name"] for row in await registry.workflows()] == ["a"]


@pytest.mark.parametrize("kind", ["bare", "worktree"])
async def test_bare_repositories_and_linked_work_trees_are_watched(
    database_url: str, registry: WorkflowRegistry, git_repo: Repository, tmp_path: Path, kind: str
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a")})
    place = tmp_path / "place"
    if kind == "bare":
        git_repo.git("clone", "--quiet", "--bare", str(git_repo.path), str(place))
        git_repo.git("remote", "add", "origin", str(place))
    else:
        git_repo.git("worktree", "add", "--quiet", "--detach", str(place))
    settings = SourceSettings(name="main", url=str(place), poll_interval=3600)
    async with daemon(database_url, tmp_path / "data", settings):
        await live_at(registry, first)
        second = git_repo.commit({"workflows/a.yaml": flow("a", "2")})
        if kind == "bare":
            git_repo.git("push", "--quiet", "origin", "main")
        await live_at(registry, second, seconds=20)


async def test_sync_now_does_not_wait_for_the_poll(
    database_url: str, registry: WorkflowRegistry, git_repo: Repository, tmp_path: Path
) -> None:
    absent = tmp_path / "later"
    settings = SourceSettings(name="main", url=str(absent), poll_interval=3600)
    async with daemon(database_url, tmp_path / "data", settings):

        async def unreachable() -> bool:
            return await condition_of(registry) == "RepositoryNotFound"

        await until(unreachable, "the absence is noted")
        git_repo.commit({"workflows/a.yaml": flow("a")})
        git_repo.path.rename(absent)
        assert await registry.request_sync("main") == ["main"]

        async def answered() -> bool:
            (row,) = await registry.sources()
            return row["sync_requested_at"] is None and row["condition"] == "Synced"

        await until(answered, "the request is answered")


async def test_a_request_is_heard_at_once_also_after_the_connection_that_listens_was_lost(
    database: Database,
    database_url: str,
    registry: WorkflowRegistry,
    git_repo: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.sync.daemon._REQUESTS_EVERY", 3600)
    monkeypatch.setattr("engine.storage.database._LISTEN_AGAIN", 0.05)
    git_repo.commit({"workflows/a.yaml": flow("a")})

    async def answered() -> bool:
        (row,) = await registry.sources()
        return row["sync_requested_at"] is None

    async def ended_listeners() -> bool:
        """Whether there was a connection that listens; there is none now."""
        async with database.begin() as connection:
            ended = await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                )
            )
            return bool(ended.all())

    async with daemon(database_url, tmp_path / "data", source(git_repo, poll_interval=3600)):
        await live_at(registry, git_repo.head())
        for _ in range(2):
            await registry.request_sync("main")
            await until(answered, "the request is answered")
            await until(ended_listeners, "the connection that listens is lost")


async def test_a_hanging_and_a_hostile_source_stop_no_other(
    database_url: str, registry: WorkflowRegistry, git_repo: Repository, tmp_path: Path
) -> None:
    hostile = Repository(tmp_path / "hostile")
    hostile.commit({f"workflows/{n}.yaml": "[" * 200_000 for n in range(20)})
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"https://127.0.0.1:{hanging.getsockname()[1]}/x.git"
        sources = (
            SourceSettings(name="hanging", url=url, poll_interval=0.2),
            source(hostile, "hostile", poll_interval=0.2),
            SourceSettings(name="refused", url="ext::sh -c x", poll_interval=0.2),
            source(git_repo, poll_interval=0.2),
        )
        git_repo.commit({"workflows/a.yaml": flow("a")})
        async with daemon(database_url, tmp_path / "data", *sources):
            await live_at(registry, git_repo.head())
            await live_at(registry, git_repo.commit({"workflows/b.yaml": flow("b")}))

            async def noted() -> bool:
                return (await condition_of(registry, "hostile"), await condition_of(registry, "refused")) == (
                    "InvalidRevision",
                    "InvalidSource",
                )

            await until(noted, "both are shown")
            began = time.monotonic()
        assert time.monotonic() - began < 10, "a hanging fetch does not hold up the end"


async def test_two_sources_of_one_name_are_refused(
    database_url: str, git_repo: Repository, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured, match="several sources"):
        async with daemon(database_url, tmp_path, source(git_repo), source(git_repo)):
            await asyncio.sleep(1)


# --- kills -------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def start(
    database_url: str, git_repo: Repository, tmp_path: Path
) -> AsyncIterator[Callable[..., DaemonProcess]]:
    """Starts daemons over the test's repository as processes of their own."""
    started: list[DaemonProcess] = []

    def start_(faults: str = "", data: str = "data") -> DaemonProcess:
        settings = {"name": "main", "url": str(git_repo.path), "poll_interval": 0.3}
        started.append(DaemonProcess(database_url, tmp_path / data, settings))
        started[-1].start(faults)
        return started[-1]

    yield start_
    for each in started:
        each.kill()


@pytest.mark.chaos
@pytest.mark.parametrize("visit", [1, 2])
@pytest.mark.parametrize("point", ["sync.after_fetch", "publish.before_commit", "publish.after_commit"])
async def test_a_kill_loses_and_doubles_nothing(
    registry: WorkflowRegistry,
    database: Database,
    git_repo: Repository,
    start: Callable[..., DaemonProcess],
    point: str,
    visit: int,
) -> None:
    shas = [git_repo.commit({"workflows/a.yaml": flow("a")})]
    killed = start(f"{point}=kill:{visit}")
    if visit == 2:
        await live_at(registry, shas[0])
        shas += [git_repo.commit({"workflows/a.yaml": flow("a", str(n))}) for n in range(3)]
    assert await killed.ended() == -signal.SIGKILL
    start()
    await live_at(registry, shas[-1])
    seen = await revisions(registry)
    assert len(seen) == len(set(seen)), "no revision twice"
    assert seen == [sha for sha in shas if sha in seen], "in order"
    assert set(seen) >= {shas[0], shas[-1]}
    if visit == 2:
        assert seen == shas
    deployed = [row for row in await audit(database) if row[0] == "definition.deployed"]
    assert len(deployed) == len(set(deployed)) == len(seen)


@pytest.mark.chaos
async def test_a_fault_in_a_pass_is_shown_and_heals(
    registry: WorkflowRegistry, git_repo: Repository, start: Callable[..., DaemonProcess]
) -> None:
    sha = git_repo.commit({"workflows/a.yaml": flow("a")})
    start("sync.after_fetch=error:1")

    async def failed() -> bool:
        return await condition_of(registry) in ("PassFailed", "UpToDate")

    await until(failed, "the failed pass is noted")
    await live_at(registry, sha)


@pytest.mark.chaos
async def test_two_daemons_register_each_commit_once(
    registry: WorkflowRegistry, git_repo: Repository, start: Callable[..., DaemonProcess]
) -> None:
    shas = [git_repo.commit({"workflows/a.yaml": flow("a")})]
    start()
    start()
    start(data="another")
    await live_at(registry, shas[0])
    for n in range(8):
        shas.append(git_repo.commit({f"workflows/w{n}.yaml": flow(f"w{n}")}))
        if n % 3 == 0:
            await live_at(registry, shas[-1])
    await live_at(registry, shas[-1])
    assert await revisions(registry) == shas


@pytest.mark.chaos
async def test_a_daemon_that_wakes_up_late_takes_nothing_back(
    registry: WorkflowRegistry, git_repo: Repository, start: Callable[..., DaemonProcess]
) -> None:
    shas = [git_repo.commit({"workflows/a.yaml": flow("a")})]
    sleeper = start("publish.before_commit=hang:2")
    await live_at(registry, shas[0])
    shas.append(git_repo.commit({"workflows/a.yaml": flow("a", "2")}))
    other = start(data="another")
    sleeper.signal(signal.SIGSTOP)
    sleeper.kill()
    await live_at(registry, shas[1])
    shas.append(git_repo.commit({"workflows/a.yaml": flow("a", "3")}))
    await live_at(registry, shas[2])
    assert await revisions(registry) == shas
    assert other.process is not None
    assert other.process.poll() is None


@pytest.mark.chaos
async def test_sigterm_ends_it_cleanly_in_the_middle_of_a_pass(
    registry: WorkflowRegistry, git_repo: Repository, start: Callable[..., DaemonProcess]
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    process = start("sync.after_fetch=hang:2")
    await live_at(registry, git_repo.head())
    process.signal(signal.SIGTERM)
    assert await process.ended(20) == 0


async def audit(database: Database) -> list[tuple[str, str, str]]:
    from sqlalchemy import text

    async with database.read() as connection:
        rows = await connection.execute(text("SELECT action, workflow, commit_sha FROM audit ORDER BY id"))
        return [(row.action, row.workflow, row.commit_sha) for row in rows]
