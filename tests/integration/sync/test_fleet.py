"""Many sources in one daemon: one fetch for those of a repository, lists of them in git, and none that stops another."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.errors import Misconfigured, SourceError
from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import Settings
from engine.stack.processes import free_port
from engine.storage.database import Database
from engine.sync import daemon as daemons
from engine.sync.daemon import serve_sync
from engine.sync.mirror import Mirror
from engine.sync.repository import Repository as Remote
from tests.support.git import Repository
from tests.support.signing import allowed_signers, signed_commit, ssh_key
from tests.support.syncing import DaemonProcess, flow, until


@asynccontextmanager
async def daemon(database_url: str, folder: Path, **settings: object) -> AsyncIterator[None]:
    stop = asyncio.Event()
    values = {"database_url": database_url, "data_dir": folder / "data", **settings}
    task = asyncio.create_task(serve_sync(Settings.model_validate(values), stop))
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.fixture
def registry(database: Database) -> WorkflowRegistry:
    return WorkflowRegistry(database)


async def standing(registry: WorkflowRegistry, name: str) -> tuple[str, str, str]:
    """(condition, reason, live commit) of a source."""
    rows = {row["name"]: row for row in await registry.sources()}
    row = rows.get(name, {"condition": "", "reason": "", "live_sha": ""})
    return row["condition"], row["reason"], row["live_sha"]


async def live_at(registry: WorkflowRegistry, **wanted: str) -> None:
    async def condition() -> bool:
        return all([(await standing(registry, name))[2] == sha for name, sha in wanted.items()])

    await until(condition, f"live: {wanted}")


async def stands(registry: WorkflowRegistry, name: str, reason: str) -> None:
    async def condition() -> bool:
        return (await standing(registry, name))[1] == reason

    await until(condition, f"{name}: {reason}")


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The branches of every fetch that git was started for."""
    seen: list[tuple[str, ...]] = []
    real = Mirror._fetch

    def counted(self: Mirror, branches: list[str], limit: float) -> object:
        seen.append(tuple(branches))
        return real(self, branches, limit)

    monkeypatch.setattr(Mirror, "_fetch", counted)
    return seen


async def test_sources_of_one_repository_share_its_fetch(
    database_url: str,
    registry: WorkflowRegistry,
    git_repo: Repository,
    tmp_path: Path,
    fetches: list[tuple[str, ...]],
) -> None:
    old = git_repo.commit({"workflows/a.yaml": flow("a"), "team/b.yaml": flow("b")})
    git_repo.git("branch", "production")
    new = git_repo.commit({"workflows/a.yaml": flow("a", "2")})
    url = str(git_repo.path)
    sources = [
        {"name": "staging", "url": url, "poll_interval": 3600},
        {"name": "production", "url": url, "branch": "production", "poll_interval": 3600},
        {"name": "team", "url": url, "folder": "team", "poll_interval": 3600},
    ]
    async with daemon(database_url, tmp_path, sources=sources):
        await live_at(registry, staging=new, production=old, team=new)
        assert fetches == [("main", "production")]
        assert len(list((tmp_path / "data/mirrors").glob("*.git"))) == 1
        git_repo.git("update-ref", "refs/heads/production", new)
        await live_at(registry, production=new)
        assert set(fetches) == {("main", "production")}
        assert len(fetches) <= 4, "a moved branch is one event of the file system, or two"


async def test_a_branch_that_is_gone_stops_no_other_branch_of_the_repository(
    database_url: str, registry: WorkflowRegistry, git_repo: Repository, tmp_path: Path
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    url = str(git_repo.path)
    sources = [
        {"name": "here", "url": url, "poll_interval": 0.3},
        {"name": "gone", "url": url, "branch": "gone", "poll_interval": 0.3},
    ]
    async with daemon(database_url, tmp_path, sources=sources):
        await live_at(registry, here=git_repo.head())
        await stands(registry, "gone", "BranchNotFound")
        await live_at(registry, here=git_repo.commit({"workflows/a.yaml": flow("a", "2")}))
        git_repo.git("branch", "gone")
        await live_at(registry, gone=git_repo.head())


@pytest.mark.chaos
@pytest.mark.parametrize("point", ["sync.after_fetch", "publish.before_commit"])
async def test_daemons_that_share_sources_survive_the_death_of_one(
    database_url: str, registry: WorkflowRegistry, git_repo: Repository, tmp_path: Path, point: str
) -> None:
    url = str(git_repo.path)
    git_repo.commit({"workflows/a.yaml": flow("a"), "team/b.yaml": flow("b")})
    git_repo.git("branch", "production")
    sources: list[dict[str, object]] = [
        {"name": "staging", "url": url, "poll_interval": 0.3},
        {"name": "production", "url": url, "branch": "production", "poll_interval": 0.3},
        {"name": "team", "url": url, "folder": "team", "poll_interval": 0.3},
    ]
    names = [str(source["name"]) for source in sources]
    one, other = (DaemonProcess(database_url, tmp_path / "data", *sources) for _ in range(2))
    shas = [git_repo.head()]
    try:
        one.start(f"{point}=kill:4")  # each source has been looked at
        await live_at(registry, **dict.fromkeys(names, shas[0]))
        other.start()
        while one.process is not None and one.process.poll() is None:
            shas.append(git_repo.commit({"workflows/a.yaml": flow("a", str(len(shas)))}))
            git_repo.git("update-ref", "refs/heads/production", shas[-1])
            await live_at(registry, **dict.fromkeys(names, shas[-1]))
        assert await one.ended() == -signal.SIGKILL
        shas.append(git_repo.commit({"workflows/a.yaml": flow("a", "after")}))
        git_repo.git("update-ref", "refs/heads/production", shas[-1])
        await live_at(registry, **dict.fromkeys(names, shas[-1]))
    finally:
        one.kill()
        other.kill()
    for name in names:
        seen = [row["sha"] for row in reversed(await registry.revisions(limit=1000, source=name))]
        assert seen == shas, f"{name}: each commit once, in order"
    assert len(list((tmp_path / "data/mirrors").glob("*.git"))) <= 2, "a mirror for each daemon"


async def test_a_branch_with_malformed_objects_stops_no_other_branch(
    git_repo: Repository, tmp_path: Path
) -> None:
    git_repo.commit({"a": "1"})
    git_repo.git("checkout", "--quiet", "-b", "bad")
    git_repo.commit({"b": "1"})
    raw = git_repo.git("cat-file", "commit", "HEAD").replace(" <ada@example.test>", "", 1)
    (tmp_path / "raw").write_text(raw + "\n")
    sha = git_repo.git("hash-object", "--literally", "-t", "commit", "-w", str(tmp_path / "raw"))
    (git_repo.path / ".git/refs/heads/bad").write_text(sha + "\n")
    mirror = Mirror(str(git_repo.path), ["main", "bad"], tmp_path / "data")
    for _ in range(2):
        assert {name: error.reason for name, error in mirror.fetch().items()} == {"bad": "UnsafeObjects"}
    mirror.close()


async def test_who_asks_while_a_fetch_runs_shares_the_next(
    git_repo: Repository, tmp_path: Path, fetches: list[tuple[str, ...]]
) -> None:
    git_repo.commit({"a": "1"})
    remote = Remote(str(git_repo.path), ["main"], tmp_path / "data")
    try:
        first = asyncio.create_task(remote.fetched())
        await asyncio.sleep(0)  # it has begun
        others = [asyncio.create_task(remote.fetched()) for _ in range(10)]
        for each in await asyncio.gather(first, *others):
            each.check("main")
        assert len(fetches) == 2
    finally:
        await remote.aclose()


async def test_an_error_of_a_fetch_is_each_sources_own(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "nowhere"), ["main"], tmp_path / "data")
    try:
        fetched = await remote.fetched()
        raised = []
        for _ in range(2):
            with pytest.raises(SourceError) as caught:
                fetched.check("main")
            raised.append(caught.value)
        assert raised[0] is not raised[1]
    finally:
        await remote.aclose()


async def test_a_sha256_repository_is_a_source(
    database_url: str, registry: WorkflowRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "sha256"
    path.mkdir()
    repository = Repository(path, object_format="sha256")
    first = repository.commit({"workflows/a.yaml": flow("a")})
    assert len(first) == 64
    sources = [{"name": "main", "url": str(path), "poll_interval": 0.3}]
    async with daemon(database_url, tmp_path, sources=sources):
        await live_at(registry, main=first)
        second = repository.commit({"workflows/deep/b.yaml": flow("b")})
        await live_at(registry, main=second)
    assert (await registry.resolve("a", first[:10])).pin.commit_sha == first
    assert (await registry.resolve("b")).pin.commit_sha == second


# --- the file, and lists in git ------------------------------------------------------------------------------------


async def test_a_changed_file_is_taken_and_a_bad_one_is_not(
    database_url: str, registry: WorkflowRegistry, git_repo: Repository, tmp_path: Path
) -> None:
    sha = git_repo.commit({"workflows/a.yaml": flow("a")})
    file = tmp_path / "sources.yaml"
    file.write_text("sources:\n  - {name: one, url: ./source, poll_interval: 0.3}\n")
    port = free_port()
    async with daemon(database_url, tmp_path, sources_file=file, sync_health_port=port):
        await live_at(registry, one=sha)
        assert await ready(port) == (200, {})
        file.write_text("sources:\n  - {name: one, ulr: ./source}\n")

        async def told() -> bool:
            return "sources file" in (await ready(port))[1]

        await until(told, "the bad file is told")
        status, problems = await ready(port)
        assert status == 503
        assert f"{file}:2:" in problems["sources file"]
        await live_at(registry, one=git_repo.commit({"workflows/a.yaml": flow("a", "2")}))

        async def shown() -> bool:
            (row,) = await registry.sources()
            return f"{file}:2:" in row["settings"].get("file_fault", "")

        await until(shown, "the fault is shown at the source")
        file.write_text("sources:\n  - {name: two, url: ./source, poll_interval: 0.3}\n")
        await live_at(registry, two=git_repo.head())
        assert (await ready(port))[0] == 200

        async def let_go() -> bool:
            rows = {row["name"]: row for row in await registry.sources()}
            return not rows["one"]["watched"] and not any(
                "file_fault" in each["settings"] for each in rows.values()
            )

        await until(let_go, "one is not watched any more, at once", seconds=20)


async def test_what_is_held_is_judged_anew_when_the_operator_changes_what_is_asked_for(
    database_url: str,
    registry: WorkflowRegistry,
    git_repo: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemons, "_FILE_EVERY", 0.1)
    ada, bob = ssh_key(tmp_path / "keys", "ada"), ssh_key(tmp_path / "keys", "bob")
    allowed_signers(tmp_path / "one", [("ada@x", ada)])
    allowed_signers(tmp_path / "both", [("ada@x", ada), ("bob@x", bob)])
    sha = signed_commit(git_repo, bob, {"workflows/a.yaml": flow("a")})
    file = tmp_path / "sources.yaml"

    def write(settings: str, signers: str = "both", group: str = "[ada@x]") -> None:
        trust = f"{{allowed_signers: {signers}, groups: {{release: {group}, ops: {group}}}}}"
        entry = f"name: main, url: ./source, poll_interval: 0.3, trust: team, {settings}"
        fresh = tmp_path / "fresh.yaml"
        fresh.write_text(f"trust:\n  team: {trust}\nsources:\n  - {{{entry}}}\n")
        fresh.replace(file)

    async def says(reason: str, words: str = "") -> None:
        async def condition() -> bool:
            rows = await registry.sources()
            return bool(rows) and rows[0]["reason"] == reason and words in rows[0]["message"]

        await until(condition, f"{reason}: {words}")

    rule = "rules: [{{paths: ['**'], group: {}}}]".format
    write("verify: tip", signers="one")
    async with daemon(database_url, tmp_path, sources_file=file):
        await says("Untrusted")
        write(f"verify: tip, {rule('release')}")  # another file of signers, and a rule
        await says("SignerNeeded", "group release")
        write(f"verify: tip, {rule('ops')}")
        await says("SignerNeeded", "group ops")
        write(f"verify: tip, {rule('ops')}", group="[ada@x, bob@x]")
        await live_at(registry, main=sha)
        write(f"verify: every_commit, {rule('ops')}", signers="one")  # what was taken stays
        git_repo.commit({f"workflows/{name}.yaml": flow(name) for name in "bcd"})
        await says("Untrusted")
        write("max_deletions: 1")
        await live_at(registry, main=git_repo.head())
        git_repo.commit({f"workflows/{name}.yaml": None for name in "bcd"})
        await says("MassDeletion")
        write("max_deletions: 3")
        await live_at(registry, main=git_repo.head())


async def ready(port: int) -> tuple[int, dict[str, str]]:
    def ask() -> tuple[int, dict[str, str]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
                return reply.status, json.load(reply)["problems"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)["problems"]

    return await asyncio.to_thread(ask)


async def test_a_file_that_cannot_be_read_at_the_start_ends_the_daemon(
    database_url: str, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        async with daemon(database_url, tmp_path, sources_file=tmp_path / "nowhere.yaml"):
            await asyncio.sleep(10)


@pytest.fixture
def teams(tmp_path: Path) -> Repository:
    """A repository of lists."""
    return Repository(tmp_path / "teams")


def including(tmp_path: Path, teams: Repository) -> Path:
    file = tmp_path / "operator.yaml"
    file.write_text(f"include:\n  - {{name: teams, url: {teams.path}, poll_interval: 0.3}}\n")
    return file


def listing(*names: str) -> str:
    entries = [
        f"  - {{name: {name}, url: 'https://127.0.0.1:1/{name}.git', poll_interval: 0.5}}\n" for name in names
    ]
    return "sources:\n" + "".join(entries) if entries else "sources: []\n"


async def test_a_list_in_git_declares_sources_and_a_bad_change_leaves_the_last_good_one(
    database_url: str, registry: WorkflowRegistry, teams: Repository, tmp_path: Path
) -> None:
    first = teams.commit({"sources.yaml": listing("one")})
    async with daemon(database_url, tmp_path, sources_file=including(tmp_path, teams)):
        await stands(registry, "one", "Network")
        assert (await standing(registry, "teams"))[0] == "Synced"
        bad = teams.commit({"sources.yaml": listing("two").replace("url", "ulr")})
        await stands(registry, "teams", "InvalidRevision")
        (revision,) = await registry.revision(bad)
        assert [(each["file"], each["line"], each["code"]) for each in revision["problems"]][:1] == [
            ("sources.yaml", 2, "SOURCES_FILE")
        ]
        assert (await standing(registry, "teams"))[2] == first
        assert await watched(registry) == {"teams": True, "one": True}
        good = teams.commit({"sources.yaml": listing("one", "two")})
        await stands(registry, "two", "Network")
        assert (await standing(registry, "teams"))[2] == good
        row = next(row for row in await registry.sources() if row["name"] == "two")
        assert row["settings"]["included_from"] == "teams"
        gone = teams.commit({"sources.yaml": None})
        await stands(registry, "teams", "InvalidRevision")
        assert (await registry.revision(gone))[0]["status"] == "REJECTED"


async def watched(registry: WorkflowRegistry) -> dict[str, bool]:
    return {row["name"]: row["watched"] for row in await registry.sources()}


async def test_the_last_good_list_holds_while_its_repository_is_away(
    database_url: str, registry: WorkflowRegistry, teams: Repository, tmp_path: Path
) -> None:
    teams.commit({"sources.yaml": listing("one")})
    file = including(tmp_path, teams)
    async with daemon(database_url, tmp_path, sources_file=file):
        await stands(registry, "one", "Network")
    teams.path.rename(tmp_path / "away")
    before = {row["name"]: row["checked_at"] for row in await registry.sources()}
    async with daemon(database_url, tmp_path / "another", sources_file=file):
        await stands(registry, "teams", "RepositoryNotFound")

        async def looked() -> bool:
            rows = {row["name"]: row["checked_at"] for row in await registry.sources()}
            return bool(rows["one"] > before["one"])

        await until(looked, "the listed source is still looked at")


async def test_a_source_that_leaves_the_list_is_no_longer_looked_at_and_stays_live(
    database_url: str, registry: WorkflowRegistry, teams: Repository, git_repo: Repository, tmp_path: Path
) -> None:
    teams.commit({"sources.yaml": listing("one", "two")})
    async with daemon(database_url, tmp_path, sources_file=including(tmp_path, teams)):
        await stands(registry, "two", "Network")
        teams.commit({"sources.yaml": listing("one")})
        await live_at(registry, teams=teams.head())

        async def quiet() -> bool:
            before = {row["name"]: row["checked_at"] for row in await registry.sources()}
            await asyncio.sleep(1.2)  # more than two polls of both
            after = {row["name"]: row["checked_at"] for row in await registry.sources()}
            return bool(before["two"] == after["two"] and before["one"] < after["one"])

        await until(quiet, "two is no longer looked at")
        assert await watched(registry) == {"teams": True, "one": True, "two": False}
