"""Private repositories over a real sshd and a real `git http-backend`, and where a credential must never turn up."""

from __future__ import annotations

import base64
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text

from engine.errors import SourceError
from engine.settings import Credential
from engine.storage.database import Database
from engine.sync import mirror as mirrors
from engine.sync.mirror import Mirror
from tests.support.git import Repository
from tests.support.git_servers import SSHD, HttpsServer, SshServer, https_server, ssh_server
from tests.support.syncing import Syncing, flow

Make = Callable[..., Syncing]
TOKEN = "pf-canary+/42 ok"
needs_sshd = pytest.mark.skipif(not os.access(SSHD, os.X_OK), reason="no sshd on this machine")


@pytest.fixture
def https(git_repo: Repository, tmp_path: Path) -> Iterator[HttpsServer]:
    with https_server(git_repo.path.parent, tmp_path / "tls", TOKEN) as server:
        yield server


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    with ssh_server(tmp_path / "ssh") as server:
        yield server


def host(url: str) -> str:
    return url.partition("://")[2].rpartition("@")[2].partition("/")[0]


def by_file(server: HttpsServer, tmp_path: Path, token: str = TOKEN) -> Credential:
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    return Credential(hosts=(host(server.url),), token_file=file, ca_file=server.ca_file)


def of(server: HttpsServer) -> str:
    return f"{server.url}/source/.git"


def fetch(url: str, tmp_path: Path, credential: Credential | None) -> None:
    mirror = Mirror(url, ["main"], tmp_path / "data", credential)
    try:
        assert mirror.fetch() == {}
    finally:
        mirror.close()


def reason_of(url: str, tmp_path: Path, credential: Credential | None) -> tuple[str, str]:
    with pytest.raises(SourceError) as caught:
        fetch(url, tmp_path, credential)
    return caught.value.reason, str(caught.value)


# --- HTTPS -------------------------------------------------------------------------------------------------------


async def test_a_token_from_a_file_opens_a_private_repository(
    https: HttpsServer, make_syncing: Make, git_repo: Repository, tmp_path: Path
) -> None:
    sha = git_repo.commit({"workflows/a.yaml": flow("a")})
    syncing = make_syncing(url=of(https), credential=by_file(https, tmp_path))
    assert (await syncing.sync()).condition == "Synced"
    assert await syncing.live() == {"a": (sha, "workflows/a.yaml")}
    assert {password for _, password in https.requests} == {"", TOKEN}


async def test_a_token_from_the_environment_is_read_anew_at_each_fetch(
    https: HttpsServer, make_syncing: Make, git_repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    credential = Credential(hosts=(host(https.url),), token_env="FLOWS_TOKEN", ca_file=https.ca_file)
    syncing = make_syncing(url=of(https), credential=credential)
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Unreachable", "NoCredential")
    assert "FLOWS_TOKEN" in standing.message
    monkeypatch.setenv("FLOWS_TOKEN", TOKEN)
    assert (await syncing.sync()).condition == "Synced"
    https.password = "rotated"
    assert (await syncing.sync()).reason == "AccessDenied"
    monkeypatch.setenv("FLOWS_TOKEN", "rotated")
    assert (await syncing.sync()).condition == "Synced"


@pytest.mark.parametrize("token", ["", "wrong", "two\nlines"])
def test_a_token_that_does_not_fit_is_said_without_being_shown(
    https: HttpsServer, git_repo: Repository, tmp_path: Path, token: str
) -> None:
    git_repo.commit({"a": "1"})
    reason, said = reason_of(of(https), tmp_path, by_file(https, tmp_path, token))
    assert reason == ("AccessDenied" if token == "wrong" else "NoCredential")
    assert not token or token not in said


def test_without_a_credential_git_asks_nobody(
    https: HttpsServer, git_repo: Repository, tmp_path: Path
) -> None:
    git_repo.commit({"a": "1"})
    other = Credential(hosts=(host(https.url),), token_env="NOT_SET", ca_file=https.ca_file)
    assert reason_of(of(https), tmp_path, other)[0] == "NoCredential"
    assert reason_of(of(https), tmp_path, None)[0] == "CertificateRefused"


def test_a_token_goes_to_its_own_host_alone(https: HttpsServer, git_repo: Repository, tmp_path: Path) -> None:
    git_repo.commit({"a": "1"})
    with https_server(git_repo.path.parent, tmp_path / "evil", "anything") as evil:
        credential = by_file(https, tmp_path)
        assert reason_of(of(evil), tmp_path, credential)[0] == "InvalidSource"
        # A host that sends us elsewhere is not followed: the other one sees no token, nor anything at all.
        https.redirect_to = evil.url
        reason_of(of(https), tmp_path, credential)
        assert evil.requests == []


def test_a_token_is_for_https_and_a_key_for_ssh(tmp_path: Path) -> None:
    token = Credential(hosts=("git.example.test",), token_env="X")
    assert reason_of("ssh://git.example.test/x.git", tmp_path, token)[0] == "InvalidSource"
    key = Credential(hosts=("git.example.test",), ssh_key=tmp_path / "k", known_hosts=tmp_path / "h")
    assert reason_of("https://git.example.test/x.git", tmp_path, key)[0] == "InvalidSource"


async def test_a_token_is_in_no_row_log_error_or_file(
    https: HttpsServer,
    make_syncing: Make,
    git_repo: Repository,
    database: Database,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    credential = by_file(https, tmp_path)
    in_url = quote(TOKEN, safe="")
    sources = [
        make_syncing(name="works", url=of(https), credential=credential),
        make_syncing(name="absent", url=f"{https.url}/nowhere.git", credential=credential),
        make_syncing(name="in-url", url=of(https).replace("://", f"://x:{in_url}@")),
    ]
    said = [str(await syncing.sync()) for syncing in sources]
    https.password = "changed"
    said += [str(await syncing.sync()) for syncing in sources]
    said += [repr(syncing.reconciler.declared) for syncing in sources[:2]]
    said += [*await everything(database), *capfd.readouterr()]
    mirrors_ = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
    said += [file.read_bytes().decode("latin-1") for file in mirrors_]
    basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    for form in (TOKEN, in_url, basic):
        assert not [each for each in said if form in each], form


async def everything(database: Database) -> list[str]:
    """All rows of all tables, as text."""
    async with database.read() as connection:
        tables = await connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        found = []
        for (table,) in tables.all():
            rows = await connection.execute(text(f'SELECT t::text FROM "{table}" t'))
            found += [str(row[0]) for row in rows]
        return found


@pytest.mark.parametrize("kind", ["drip", "endless"])
def test_a_server_without_an_end_is_left(
    https: HttpsServer, git_repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    git_repo.commit({"a": "1"})
    monkeypatch.setattr(mirrors, "FIRST_FETCH_LIMIT", 3.0)
    setattr(https, kind, True)
    reason, _ = reason_of(of(https), tmp_path, by_file(https, tmp_path))
    assert reason in ("TimedOut", "FetchFailed", "Network")


# --- SSH ---------------------------------------------------------------------------------------------------------


def with_key(server: SshServer, **more: Any) -> Credential:
    values: dict[str, Any] = {
        "hosts": (f"127.0.0.1:{server.port}",),
        "ssh_key": server.key.file,
        "known_hosts": server.known_hosts,
    }
    return Credential(**values | more)


@needs_sshd
async def test_a_key_opens_a_private_repository_over_ssh(
    ssh: SshServer, make_syncing: Make, git_repo: Repository
) -> None:
    sha = git_repo.commit({"workflows/a.yaml": flow("a")})
    syncing = make_syncing(url=ssh.url(git_repo.path), credential=with_key(ssh))
    standing = await syncing.sync()
    assert standing.condition == "Synced", standing.message
    assert await syncing.live() == {"a": (sha, "workflows/a.yaml")}
    row = await syncing.row()
    assert row["url"] == ssh.url(git_repo.path)


@needs_sshd
@pytest.mark.parametrize("known", ["nobody", "another key"])
def test_a_host_that_is_not_known_is_refused(
    ssh: SshServer, git_repo: Repository, tmp_path: Path, known: str
) -> None:
    git_repo.commit({"a": "1"})
    file = tmp_path / "known"
    file.write_text("" if known == "nobody" else f"[127.0.0.1]:{ssh.port} {ssh.key.public}\n")
    reason, said = reason_of(ssh.url(git_repo.path), tmp_path, with_key(ssh, known_hosts=file))
    assert reason == "AccessDenied"
    assert "Host key verification failed" in said
    assert file.read_text().count("\n") <= 1, "nothing is learnt by itself"


@needs_sshd
def test_another_key_is_refused_and_a_missing_one_told(
    ssh: SshServer, git_repo: Repository, tmp_path: Path
) -> None:
    from tests.support.signing import ssh_key

    git_repo.commit({"a": "1"})
    other = ssh_key(tmp_path, "other")
    reason, said = reason_of(ssh.url(git_repo.path), tmp_path, with_key(ssh, ssh_key=other.file))
    assert (reason, "Permission denied" in said) == ("AccessDenied", True)
    reason, said = reason_of(ssh.url(git_repo.path), tmp_path, with_key(ssh, ssh_key=tmp_path / "nowhere"))
    assert (reason, "nowhere" in said) == ("NoCredential", True)


@needs_sshd
def test_ssh_reads_no_configuration_of_the_user(
    ssh: SshServer, git_repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / ".ssh"
    home.mkdir(parents=True)
    (home / "config").write_text(f"Host *\n  ProxyCommand touch {tmp_path}/canary\n")
    monkeypatch.setenv("HOME", str(home.parent))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    git_repo.commit({"a": "1"})
    mirror = Mirror(ssh.url(git_repo.path), ["main"], tmp_path / "data", with_key(ssh))
    assert mirror.fetch() == {}
    mirror.close()
    assert not (tmp_path / "canary").exists()


@needs_sshd
def test_paths_with_blanks_and_quotes_are_taken_as_they_are(ssh: SshServer, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "a b")
    repository.commit({"a": "1"})
    folder = tmp_path / "it's here"
    folder.mkdir()
    key = folder / "the key"
    key.write_bytes(ssh.key.file.read_bytes())
    key.chmod(0o600)
    known = folder / "known hosts"
    known.write_bytes(ssh.known_hosts.read_bytes())
    credential = with_key(ssh, ssh_key=key, known_hosts=known)
    url = ssh.url(Path(quote(str(repository.path))))
    mirror = Mirror(url, ["main"], tmp_path / "data", credential)
    assert mirror.fetch() == {}
    mirror.close()


def test_a_silent_ssh_server_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "FIRST_FETCH_LIMIT", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()[0]), daemon=True)
        thread.start()
        url = f"ssh://git@127.0.0.1:{server.getsockname()[1]}/x.git"
        assert reason_of(url, tmp_path, None)[0] in ("TimedOut", "Network")
        for each in accepted:
            each.close()
