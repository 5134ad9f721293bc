"""Every fault of a remote and of our own disk: what the source then says, since when, what helps, and that it heals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.settings import Credential
from engine.sync import conditions, mirror
from engine.sync.git_source import Limits
from engine.sync.repository import Repository as Remote
from engine.sync.standing import Standing
from tests.support.git import Repository
from tests.support.git_servers import https_server
from tests.support.syncing import Syncing, flow

Make = Callable[..., Syncing]
TOKEN = "let-me-in"


async def breaks(syncing: Syncing, reason: str) -> Standing:
    """A look that finds the fault, with all that a person needs to know; nothing live changes."""
    live = await syncing.live()
    standing = await syncing.sync()
    assert standing.reason == reason, standing
    assert standing.condition == conditions.UNREACHABLE
    assert standing.message
    first = await syncing.row()
    assert (first["condition"], first["reason"]) == (standing.condition, reason)
    assert conditions.action(reason)
    assert (await syncing.sync()).reason == reason
    again = await syncing.row()
    assert again["condition_since"] == first["condition_since"], "since when it is so"
    assert again["checked_at"] > first["checked_at"]
    assert await syncing.live() == live
    return standing


async def heals(syncing: Syncing, sha: str) -> None:
    """Within two looks, and what came meanwhile is live."""
    if (await syncing.sync()).condition != "Synced":
        assert (await syncing.sync()).condition == "Synced"
    row = await syncing.row()
    assert (row["condition"], row["reason"], row["live_sha"]) == ("Synced", "UpToDate", sha)


async def test_what_a_server_does_is_told_and_heals(
    make_syncing: Make, git_repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca_file, token = tmp_path / "ca.pem", tmp_path / "token"
    git_repo.commit({"workflows/a.yaml": flow("a")})
    with https_server(git_repo.path.parent, tmp_path / "tls", TOKEN) as server:
        good = server.ca_file.read_bytes()
        ca_file.write_bytes(good)
        token.write_text(TOKEN)
        host = server.url.partition("://")[2]
        credential = Credential(hosts=(host,), token_file=token, ca_file=ca_file)
        syncing = make_syncing(url=f"{server.url}/source/.git", credential=credential)
        await heals(syncing, git_repo.head())
        remote = syncing.reconciler._repository
        assert remote._mirror is not None
        remote.mirror._git._limits = Limits(memory=64 * 1024**2)

        with https_server(tmp_path, tmp_path / "other", TOKEN) as other:
            faults: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
                ("Network", lambda: fail(503), lambda: fail(0)),
                ("RepositoryNotFound", lambda: fail(404), lambda: fail(0)),
                ("AccessDenied", lambda: fail(403), lambda: fail(0)),
                ("FetchFailed", lambda: fail(200), lambda: fail(0)),
                ("Redirected", lambda: move(server.url + "/elsewhere"), lambda: move("")),
                ("AccessDenied", lambda: token.write_text("wrong"), lambda: token.write_text(TOKEN)),
                ("NoCredential", token.unlink, lambda: token.write_text(TOKEN)),
                (
                    "CertificateRefused",
                    lambda: ca_file.write_bytes(other.ca_file.read_bytes()),
                    lambda: ca_file.write_bytes(good),
                ),
                ("TimedOut", lambda: drip(2.0), lambda: drip(60.0)),
                ("TooLarge", lambda: name_refs(True), lambda: name_refs(False)),
                ("TooLarge", lambda: send_huge_pack(True), lambda: send_huge_pack(False)),
            ]

            def fail(status: int) -> None:
                server.fail_with = status

            def move(url: str) -> None:
                server.redirect_to = url

            def drip(limit: float) -> None:
                monkeypatch.setattr(mirror, "FETCH_LIMIT", limit)
                server.drip = limit < 60

            def name_refs(value: bool) -> None:
                server.many_refs = value

            def send_huge_pack(value: bool) -> None:
                server.huge_pack = value

            for number, (reason, begin, end) in enumerate(faults):
                begin()
                sha = git_repo.commit({"workflows/a.yaml": flow("a", str(number))})
                standing = await breaks(syncing, reason)
                assert TOKEN not in standing.message
                end()
                await heals(syncing, sha)


async def test_what_a_repository_lacks_is_told_and_heals(make_syncing: Make, tmp_path: Path) -> None:
    place = tmp_path / "place"
    syncing = make_syncing(url=str(place), branch="release")
    await breaks(syncing, "RepositoryNotFound")
    repository = Repository(place)
    await breaks(syncing, "RepositoryEmpty")
    good = repository.commit({"workflows/a.yaml": flow("a")})
    await breaks(syncing, "BranchNotFound")
    repository.git("branch", "release")
    await heals(syncing, good)
    raw = repository.git("cat-file", "commit", "HEAD").replace(" <ada@example.test>", "", 1)
    (tmp_path / "raw").write_text(raw + "\n")
    bad = repository.git("hash-object", "--literally", "-t", "commit", "-w", str(tmp_path / "raw"))
    (place / ".git/refs/heads/release").write_text(f"{bad}\n")
    await breaks(syncing, "UnsafeObjects")
    better = repository.commit({"workflows/a.yaml": flow("a", "2")})
    repository.git("update-ref", "refs/heads/release", better)
    await heals(syncing, better)


async def test_a_data_folder_that_is_none_is_told_and_heals(
    make_syncing: Make, git_repo: Repository, tmp_path: Path
) -> None:
    sha = git_repo.commit({"workflows/a.yaml": flow("a")})
    data = tmp_path / "data"
    data.mkdir()
    (data / "mirrors").write_text("a file")
    syncing = make_syncing(data_dir=data)
    assert "mirrors" in (await breaks(syncing, "MirrorBroken")).message
    (data / "mirrors").unlink()
    await heals(syncing, sha)
    shutil.rmtree(data / "mirrors")
    (data / "mirrors").write_text("a file")
    await breaks(syncing, "MirrorBroken")
    (data / "mirrors").unlink()
    (data / "mirrors").mkdir()
    await heals(syncing, sha)


async def test_a_source_that_nobody_has_looked_at_says_so(syncing: Syncing) -> None:
    await syncing.reconciler.begin()
    row = await syncing.row()
    assert (row["condition"], row["reason"]) == ("Unknown", "NotLooked")
    assert row["message"]


async def test_that_many_commits_are_under_way_is_told(
    syncing: Syncing, git_repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    seen: list[tuple[str, str]] = []
    real = syncing.reconciler._report

    async def noted(standing: Standing, cursor: Any) -> None:
        await real(standing, cursor)
        row = await syncing.row()
        seen.append((row["condition"], row["reason"]))

    monkeypatch.setattr(syncing.reconciler, "_report", noted)
    await syncing.sync()
    assert seen == [("OutOfSync", "Registering"), ("Synced", "UpToDate")]


async def test_a_fetch_that_we_fail_at_ends_no_other_and_is_no_silence(tmp_path: Path) -> None:
    remote = Remote("/nowhere", ["main"], tmp_path / "data")
    try:
        (tmp_path / "data").write_text("a file")
        error = (await remote.fetched()).error
        assert error is not None
        assert error.reason == "MirrorBroken"
    finally:
        await remote.aclose()
