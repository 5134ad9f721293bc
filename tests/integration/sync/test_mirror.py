"""The mirror of a repository: what is read, what is refused, and what must never run."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import SourceError
from engine.sync import mirror as mirrors
from engine.sync.git_reader import Reader
from engine.sync.git_source import _INHERITED, DEFAULT_LIMITS, Limits
from engine.sync.mirror import Mirror
from tests.support.git import Repository

Open = Callable[..., Mirror]


@pytest.fixture
def open_mirror(git_repo: Repository, tmp_path: Path) -> Iterator[Open]:
    """Opens mirrors of the test's repository, or of another."""
    opened: list[Mirror] = []

    def open_(
        url: str = str(git_repo.path), branch: str = "main", *more: str, limits: Limits = DEFAULT_LIMITS
    ) -> Mirror:
        opened.append(Mirror(url, [branch, *more], tmp_path / "data", None, limits))
        return opened[-1]

    yield open_
    for mirror in opened:
        mirror.close()


def tip(mirror: Mirror) -> str:
    with mirror.reader() as reader:
        return reader.tip()


def files(mirror: Mirror) -> dict[str, tuple[str, bytes | None]]:
    """Path → (kind, content if it is a file) of everything at the tip."""

    def read(reader: Reader, sha: str) -> bytes | None:
        return next(reader.blobs([sha], 1000))

    with mirror.reader() as reader:
        commit = reader.commit(reader.tip())
        return {
            path: (now.kind, read(reader, now.sha) if now.is_file else None)
            for path, (_, now) in reader.diff("", commit.tree).items()
            if now is not None
        }


def reason_of(mirror: Mirror) -> str:
    with pytest.raises(SourceError) as caught:
        mirror.fetch()
    return caught.value.reason


def test_contents_come_as_they_are(git_repo: Repository, open_mirror: Open) -> None:
    git_repo.commit(
        {"a": "text\r\n", "b/c": b"\0\xff\n", "empty": "", ".gitattributes": "* text eol=lf filter=x\n"}
    )
    mirror = open_mirror()
    mirror.fetch()
    found = files(mirror)
    assert found["b/c"] == ("file", b"\0\xff\n")
    assert found["empty"] == ("file", b"")


def test_a_blob_above_the_limit_is_left_and_the_next_one_read(
    git_repo: Repository, open_mirror: Open
) -> None:
    git_repo.commit({"big": "x" * 3_000_000, "small": "y"})
    mirror = open_mirror()
    mirror.fetch()
    with mirror.reader() as reader:
        commit = reader.commit(reader.tip())
        entries = {path: now.sha for path, (_, now) in reader.diff("", commit.tree).items() if now}
        assert list(reader.blobs([entries["big"], entries["small"]], 1000)) == [None, b"y"]


def test_history_follows_first_parents_only(git_repo: Repository, open_mirror: Open) -> None:
    first = git_repo.commit({"a": "1"})
    second = git_repo.commit({"a": "2"})
    git_repo.git("checkout", "--quiet", "-b", "side")
    git_repo.commit({"b": "1"})
    git_repo.git("checkout", "--quiet", "main")
    third = git_repo.merge("side")
    mirror = open_mirror()
    mirror.fetch()
    assert mirror.history(first, third) == ([second, third], False)
    assert mirror.history(third, first) == ([first], True)
    assert mirror.history("0" * 40, third) == ([third], True)


def test_links_and_submodules_are_told_from_files(git_repo: Repository, open_mirror: Open) -> None:
    git_repo.write({"a": "1"})
    (git_repo.path / "link").symlink_to("/etc/passwd")
    git_repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git_repo.git("add", "a", "link")
    git_repo.git("commit", "--quiet", "--message", "odd")
    mirror = open_mirror()
    mirror.fetch()
    assert files(mirror) == {"a": ("file", b"1"), "link": ("symbolic link", None), "sub": ("submodule", None)}


def test_names_of_any_bytes_are_read(git_repo: Repository, open_mirror: Open) -> None:
    names = ["new\nline", "--upload-pack=x", "$(touch canary)", " blank ", "esc\x1b[0m", "ünï"]
    git_repo.commit(dict.fromkeys(names, "x"))
    (git_repo.path / os.fsdecode(b"raw\xff")).write_bytes(b"x")
    git_repo.commit()
    mirror = open_mirror()
    mirror.fetch()
    assert set(files(mirror)) == {*names, os.fsdecode(b"raw\xff")}


def test_nothing_configured_in_a_watched_repository_runs(
    git_repo: Repository, open_mirror: Open, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    script = tmp_path / "run"
    script.write_text(f'#!/bin/sh\necho "$0 $@" >> {canary}\ncat\n')
    script.chmod(0o755)
    git_repo.commit({"a": "1", ".gitattributes": "* filter=evil diff=evil\n", ".lfsconfig": "[lfs]\nurl=x\n"})
    for key in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy",
        "core.alternateRefsCommand", "diff.external", "diff.evil.textconv", "filter.evil.smudge", "filter.evil.clean",
        "filter.evil.process", "gpg.program", "credential.helper", "uploadpack.packObjectsHook",
        "alias.upload-pack", "alias.fetch", "remote.origin.uploadpack", "sequence.editor", "interactive.diffFilter",
    ):  # fmt: skip
        git_repo.git("config", key, str(script))
    git_repo.git("config", f"url.ext::{script}.insteadOf", "file://")
    git_repo.git("config", "protocol.ext.allow", "always")
    git_repo.git("config", "core.attributesFile", str(tmp_path / "attributes"))
    (tmp_path / "attributes").write_text("* filter=evil\n")
    included = tmp_path / "included"
    included.write_text(f"[core]\n\tfsmonitor = {script}\n[uploadpack]\n\tpackObjectsHook = {script}\n")
    git_repo.git("config", "include.path", str(included))
    git_repo.git("config", f"includeIf.gitdir:{git_repo.path}/.path", str(included))
    git_repo.git("config", "core.hooksPath", str(tmp_path / "hooks"))
    (tmp_path / "hooks").mkdir()
    hooks = (
        "pre-auto-gc", "post-checkout", "reference-transaction", "fsmonitor-watchman", "post-index-change",
        "pre-receive", "update", "post-update", "post-rewrite",
    )  # fmt: skip
    for folder in (tmp_path / "hooks", git_repo.path / ".git" / "hooks"):
        folder.mkdir(exist_ok=True)
        for hook in hooks:
            (folder / hook).symlink_to(script)
    mirror = open_mirror()
    mirror.fetch()
    mirror.fetch()
    assert files(mirror)["a"] == ("file", b"1")
    assert not canary.exists(), canary.read_text()


def test_what_a_watched_repository_lacks_is_fetched_from_nowhere(
    git_repo: Repository, open_mirror: Open, tmp_path: Path
) -> None:
    git_repo.commit({"a": "1"})
    blob = git_repo.git("rev-parse", "HEAD:a")
    (git_repo.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    canary = tmp_path / "canary"
    for key, value in {
        "core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::touch {canary}", "remote.origin.uploadpack": f"touch {canary}",
        "protocol.ext.allow": "always",
    }.items():  # fmt: skip
        git_repo.git("config", key, value)
    assert reason_of(open_mirror()) in ("FetchFailed", "Network")
    assert not canary.exists()


@pytest.mark.parametrize("way", ["alternates", "objects", "pack"])
def test_objects_that_a_watched_repository_borrows_are_not_read(
    git_repo: Repository, open_mirror: Open, tmp_path: Path, way: str
) -> None:
    secret = Repository(tmp_path / "secret")
    sha = secret.commit({"a": "not yours"})
    secret.git("repack", "-q", "-a", "-d")
    theirs, ours = secret.path / ".git/objects", git_repo.path / ".git/objects"
    if way == "alternates":
        (ours / "info").mkdir(exist_ok=True)
        (ours / "info/alternates").write_text(f"{theirs}\n")
    elif way == "objects":
        shutil.rmtree(ours)
        ours.symlink_to(theirs)
    else:
        for file in (theirs / "pack").iterdir():
            (ours / "pack" / file.name).symlink_to(file)
    git_repo.git("update-ref", "refs/heads/main", sha)
    assert reason_of(open_mirror()) == "InvalidSource"


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_nothing_but_git_is_executed_and_nothing_written_outside_of_the_data_folder(
    git_repo: Repository, tmp_path: Path
) -> None:
    git_repo.commit({"a": "1", ".gitattributes": "* filter=evil\n", ".gitmodules": '[submodule "x"]\n'})
    git_repo.git("config", "core.fsmonitor", "touch canary")
    data, trace = tmp_path / "data", tmp_path / "trace"
    code = (
        "import os; from pathlib import Path; from engine.sync.mirror import Mirror\n"
        f"mirror = Mirror({str(git_repo.path)!r}, ['main'], Path({str(data)!r}))\n"
        "os.write(2, b'begin')\n"
        "mirror.fetch(); mirror.fetch(); mirror.close()"
    )
    calls = "execve,openat,open,creat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,link,linkat"
    done = subprocess.run(
        [
            *("strace", "-f", "-qq", "-s", "4096", "-e", f"trace={calls},write", "-o", str(trace)),
            *(sys.executable, "-c", code),
        ],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine lets nobody trace")
    assert done.returncode == 0, done.stderr
    said = trace.read_text("utf-8", "replace")
    lines = said[said.index('"begin"') :].splitlines()
    run = {
        found[1]
        for line in lines
        if line.endswith("= 0") and (found := re.search(r'execve\("([^"]*)"', line))
    }
    assert {Path(each).name for each in run} <= {"sh", "env", "git", "git-upload-pack", "git-remote-https"}, (
        run
    )
    assert run
    changing = re.compile(r"\b(creat|unlink\w*|rename\w*|mkdir\w*|link\w*)\(|O_WRONLY|O_RDWR|O_CREAT")
    changed = [line for line in lines if changing.search(line) and not line.rstrip().endswith(")")]
    outside = [
        line
        for line in changed
        if (path := re.search(r'"([^"]*)"', line))
        and not path[1].startswith((str(data.resolve()), "/dev/null", "/proc/self/", "/dev/tty"))
    ]
    assert len(changed) > 20
    assert not outside, outside


def test_the_work_tree_and_the_index_are_not_looked_at(git_repo: Repository, open_mirror: Open) -> None:
    git_repo.commit({"a": "1"})
    git_repo.write({"a": "uncommitted", "new": "x"})
    (git_repo.path / ".git" / "index").write_bytes(b"garbage")
    mirror = open_mirror()
    mirror.fetch()
    assert files(mirror) == {"a": ("file", b"1")}


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=touch canary",
        "-oProxyCommand=touch canary",
        "ext::sh -c 'touch canary'",
        "fd::17",
        "ssh://-oProxyCommand=touch/x",
        "ssh://-l@host/x",
        "ssh://host name/x",
        "git://host/x",
        "http://host/x",
        "ftp://host/x",
        "user@host:path",
        "https://host/x?token=secret",
        "https://host/x\n--upload-pack=y",
        "https:///x",
        "file://host/etc",
        "",
        "https://host:99999/x",
    ],
)
def test_urls_beyond_the_allowed_ones_are_refused(open_mirror: Open, url: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_mirror(url=url)
    assert caught.value.reason == "InvalidSource"


@pytest.mark.parametrize(
    "branch", ["", "a..b", "a b", "x.lock", "a\nb", "a~1", "@{-1}", "a^{tree}", "/a", "a:b", "*"]
)
def test_branches_that_are_no_names_are_refused(open_mirror: Open, branch: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_mirror(branch=branch)
    assert caught.value.reason == "InvalidSource"


@pytest.mark.parametrize("branch", ["--upload-pack=touch", "-x", "$(id)", "release/1.0", "refs/heads/plain"])
def test_branches_with_odd_legal_names_are_fetched_as_they_are(
    git_repo: Repository, open_mirror: Open, branch: str
) -> None:
    sha = git_repo.commit({"a": "1"})
    git_repo.git("update-ref", f"refs/heads/{branch.removeprefix('refs/heads/')}", sha)
    mirror = open_mirror(branch=branch)
    mirror.fetch()
    assert tip(mirror) == sha


def test_an_empty_repository_an_absent_branch_and_an_absent_repository_are_told_apart(
    git_repo: Repository, open_mirror: Open, tmp_path: Path
) -> None:
    assert reason_of(open_mirror()) == "RepositoryEmpty"
    git_repo.commit({"a": "1"})
    assert reason_of(open_mirror(branch="gone")) == "BranchNotFound"
    assert reason_of(open_mirror(url=str(tmp_path / "nowhere"))) == "RepositoryNotFound"
    (tmp_path / "plain").mkdir()
    assert reason_of(open_mirror(url=str(tmp_path / "plain"))) == "RepositoryNotFound"


def test_no_message_holds_a_credential(open_mirror: Open) -> None:
    mirror = open_mirror(url="https://someone:s3cr%40t@127.0.0.1:1/x.git")
    with pytest.raises(SourceError) as caught:
        mirror.fetch()
    assert caught.value.reason == "Network"
    for secret in ("s3cr", "someone"):
        assert secret not in str(caught.value)
    assert mirror.remote.shown == "https://127.0.0.1:1/x.git"


def test_a_server_that_never_answers_is_left_with_all_its_processes(
    open_mirror: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "FIRST_FETCH_LIMIT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/x.git"
        assert reason_of(open_mirror(url=url)) == "TimedOut"
    while _processes_over(
        url
    ):  # killed; the kernel may take a moment to end them, and the test's own limit ends us
        time.sleep(0.05)


def test_a_fetch_can_be_interrupted_from_another_thread(open_mirror: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mirror = open_mirror(url=f"https://127.0.0.1:{server.getsockname()[1]}/x.git")

        def interrupt() -> None:
            connection, _ = server.accept()
            mirror.interrupt()
            connection.close()

        thread = threading.Thread(target=interrupt)
        thread.start()
        reason_of(mirror)
        thread.join(10)
        assert not thread.is_alive()


def test_a_damaged_mirror_is_made_again(git_repo: Repository, open_mirror: Open, tmp_path: Path) -> None:
    first = git_repo.commit({"a": "1"})
    mirror = open_mirror()
    mirror.fetch()
    folder = mirror.path
    for file in [*folder.glob("objects/??/*"), *folder.glob("objects/pack/*")]:
        file.chmod(stat.S_IWUSR | stat.S_IRUSR)
        file.write_bytes(b"garbage")
    second = git_repo.commit({"a": "2"})
    mirror.fetch()
    assert tip(mirror) == second
    assert mirror.history(first, second) == ([second], False)


@pytest.mark.parametrize("lost", ["HEAD", "config", "objects", "refs"])
def test_a_mirror_that_lost_a_part_is_made_again(
    git_repo: Repository, open_mirror: Open, tmp_path: Path, lost: str
) -> None:
    sha = git_repo.commit({"a": "1"})
    mirror = open_mirror()
    mirror.fetch()
    folder = mirror.path
    (folder / lost).rename(tmp_path / "lost")
    mirror.fetch()
    assert tip(mirror) == sha


def test_locks_of_a_killed_process_do_not_stop_the_next(
    git_repo: Repository, open_mirror: Open, tmp_path: Path
) -> None:
    git_repo.commit({"a": "1"})
    mirror = open_mirror()
    mirror.fetch()
    mirror.close()
    folder = mirror.path
    for lock in ("refs/heads/main.lock", "packed-refs.lock", "config.lock", "HEAD.lock"):
        (folder / lock).write_text("")
    sha = git_repo.commit({"a": "2"})
    again = open_mirror()
    again.fetch()
    assert tip(again) == sha


def test_a_second_process_gets_a_mirror_of_its_own(
    git_repo: Repository, open_mirror: Open, tmp_path: Path
) -> None:
    sha = git_repo.commit({"a": "1"})
    one, two = open_mirror(), open_mirror()
    one.fetch()
    two.fetch()
    assert tip(one) == tip(two) == sha
    assert one.path.parent == two.path.parent == tmp_path / "data" / "mirrors"
    assert one.path != two.path


def test_variables_of_the_environment_do_not_reach_git(
    git_repo: Repository, open_mirror: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = git_repo.commit({"a": "1"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "touch canary")
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    mirror = open_mirror()
    mirror.fetch()
    assert tip(mirror) == sha
    assert not (tmp_path / "trace").exists()


def test_git_gets_no_variable_that_it_does_not_need(
    open_mirror: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINFLOW_SECRET_DEPLOY", "canary")
    monkeypatch.setenv("PINFLOW_DATABASE_URL", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("https_proxy", "http://proxy.test")
    mirror = open_mirror()
    done = mirror._git.run(["-c", "alias.shown=!env", "shown"], limit=30, git_dir=None)
    got = {line.partition("=")[0] for line in done.stdout.decode().splitlines()}
    assert {"PATH", "https_proxy", "GIT_CONFIG_GLOBAL"} <= got
    of_git = {name for name in got if name.startswith("GIT_")}
    rest = got - of_git - _INHERITED - {"LC_ALL", "LANGUAGE", "SSH_ASKPASS", "PWD", "OLDPWD", "SHLVL", "_"}
    assert not rest
    assert b"canary" not in done.stdout


def test_malformed_objects_are_refused_on_receipt(
    git_repo: Repository, open_mirror: Open, tmp_path: Path
) -> None:
    blob = git_repo.git("hash-object", "-w", "--", _file(tmp_path, b"x"))
    tree = tmp_path / "tree"
    tree.write_bytes(b"100644 ..\0" + bytes.fromhex(blob))
    bad = git_repo.git("hash-object", "-t", "tree", "-w", "--literally", "--", str(tree))
    commit = git_repo.git("commit-tree", bad, "-m", "bad")
    git_repo.git("update-ref", "refs/heads/main", commit)
    assert reason_of(open_mirror()) == "UnsafeObjects"


def test_a_shallow_clone_can_be_a_source(git_repo: Repository, open_mirror: Open, tmp_path: Path) -> None:
    git_repo.commit({"a": "1"})
    sha = git_repo.commit({"a": "2"})
    shallow = tmp_path / "shallow"
    git_repo.git("clone", "--quiet", "--depth", "1", f"file://{git_repo.path}", str(shallow))
    mirror = open_mirror(url=str(shallow))
    mirror.fetch()
    assert tip(mirror) == sha


def test_a_path_with_odd_characters_can_be_a_source(open_mirror: Open, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "a b%20c #ü?")
    sha = repository.commit({"a": "1"})
    mirror = open_mirror(url=str(repository.path))
    mirror.fetch()
    assert tip(mirror) == sha


def _file(folder: Path, content: bytes) -> str:
    path = folder / "content"
    path.write_bytes(content)
    return str(path)


def _processes_over(url: str) -> list[int]:
    """Processes that live and have the URL among their words; other tests start the same programs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()  # empty once it has ended
        except OSError:
            continue
        if url.encode() in words:
            found.append(int(entry.name))
    return found


def authors(mirror: Mirror, old: str, new: str, count: int = 200) -> list[tuple[str, str]]:
    with mirror.reader() as reader:
        found = reader.authors(mirror.brought(old, new), count)
        assert reader.tip()  # nothing is left in the pipe
        return found


def test_a_merge_brought_the_commits_of_its_branch(git_repo: Repository, open_mirror: Open) -> None:
    git_repo.commit({"a": "1"}, author="Old <old@x>")
    git_repo.git("checkout", "--quiet", "-b", "side")
    git_repo.commit({"b": "1"}, author="Pat <pat@x>", message="m" * 100_000)
    git_repo.commit({"b": "2"}, author="DROP'; \x1b[31m \N{SNOWMAN} <\N{SNOWMAN} x@y>")
    git_repo.commit({"b": "3"}, author="Pat <pat@x>")
    git_repo.git("checkout", "--quiet", "main")
    before = git_repo.commit({"a": "2"}, author="Other <other@x>")
    merged = git_repo.merge("side")
    mirror = open_mirror()
    mirror.fetch()
    odd = ("DROP'; \x1b[31m \N{SNOWMAN}", "\N{SNOWMAN} x@y")
    ada, pat = ("Ada Author", "ada@example.test"), ("Pat", "pat@x")
    assert authors(mirror, before, merged) == [ada, pat, odd]
    assert authors(mirror, before, merged, 2) == [ada, pat]


def test_a_merge_at_the_end_of_a_shallow_repository_has_an_author(
    git_repo: Repository, open_mirror: Open
) -> None:
    before = git_repo.commit({"a": "1"}, author="Old <old@x>")
    git_repo.git("checkout", "--quiet", "-b", "side")
    git_repo.commit({"b": "1"}, author="Pat <pat@x>")
    git_repo.git("checkout", "--quiet", "main")
    merged = git_repo.merge("side")
    shallow = git_repo.path.with_name("shallow")
    git_repo.git("clone", "--quiet", "--depth", "1", f"file://{git_repo.path}", str(shallow))
    mirror = open_mirror(url=str(shallow))
    mirror.fetch()
    assert authors(mirror, before, merged) == [("Ada Author", "ada@example.test")]


def test_a_mirror_that_is_closed_twice_closes_nothing_of_others(open_mirror: Open, tmp_path: Path) -> None:
    mirror = open_mirror()
    mirror.close()
    with (tmp_path / "other").open("w") as other:  # gets the number that has just become free
        mirror.close()
        other.write("still open")
    assert (tmp_path / "other").read_text() == "still open"


# --- what is too large ------------------------------------------------------------------------------------------------

MB = 1024 * 1024


def halves(mirror: Mirror) -> list[Path]:
    """Files that a git which did not come to its end leaves."""
    return [*mirror.path.rglob("tmp_*"), *mirror.path.rglob("*.lock")]


def test_a_repository_above_the_limit_is_told_and_fetched_again_when_it_has_changed(
    git_repo: Repository, open_mirror: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = git_repo.commit({"a": "1"})
    git_repo.git("branch", "small")
    git_repo.commit({"big": os.urandom(3 * MB)})
    mirror = open_mirror(str(git_repo.path), "main", "small", limits=Limits(disk=MB))
    real = Mirror._run_fetch
    fetched: list[tuple[str, ...]] = []

    def counted(self: Mirror, branches: list[str], limit: float, *, tidy: bool) -> object:
        fetched.append(tuple(branches))
        return real(self, branches, limit, tidy=tidy)

    monkeypatch.setattr(Mirror, "_run_fetch", counted)
    failed = mirror.fetch()
    assert {name: error.reason for name, error in failed.items()} == {"main": "TooLarge"}
    assert "PINFLOW_GIT_MB" in str(failed["main"])
    assert not halves(mirror)
    fetched.clear()
    assert list(mirror.fetch()) == ["main"]
    assert fetched == [("small",)], "what has not changed is not fetched in vain"
    assert mirror.tip("small") == small
    git_repo.git("reset", "--quiet", "--hard", "HEAD~1")
    assert mirror.fetch() == {}
    assert tip(mirror) == small


def test_what_a_git_that_was_killed_leaves_does_not_fill_the_disk(
    git_repo: Repository, open_mirror: Open
) -> None:
    git_repo.commit({"big": os.urandom(3 * MB)})
    mirror = open_mirror(limits=Limits(disk=MB))
    for number in range(2):
        git_repo.commit({"a": str(number)})
        assert reason_of(mirror) == "TooLarge"
        assert not halves(mirror)


def test_a_mirror_that_grew_by_forced_pushes_is_made_again(git_repo: Repository, open_mirror: Open) -> None:
    base = git_repo.commit({"a": "1"})
    mirror = open_mirror(limits=Limits(disk=3 * MB))
    for _ in range(3):
        git_repo.git("reset", "--quiet", "--hard", base)
        sha = git_repo.commit({"big": os.urandom(2 * MB)})
        mirror.fetch()
        assert tip(mirror) == sha
        assert mirror._size() <= 3 * MB


def test_very_many_refs_cost_the_mirror_nothing(git_repo: Repository, open_mirror: Open) -> None:
    sha = git_repo.commit({"a": "1"})
    refs = "".join(f"{sha} refs/heads/x{n:07d}\n" for n in range(200_000))
    (git_repo.path / ".git/packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{refs}")
    mirror = open_mirror(limits=Limits(memory=64 * MB))
    mirror.fetch()
    assert tip(mirror) == sha
    assert [path.name for path in (mirror.path / "refs/heads").iterdir()] == ["main"]
    assert not (mirror.path / "packed-refs").exists()
    assert reason_of(open_mirror(branch="gone", limits=Limits(memory=64 * MB))) == "BranchNotFound"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_is_told_and_heals(git_repo: Repository, tmp_path: Path) -> None:
    git_repo.commit({"a": "1"})
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        mirror = Mirror(str(git_repo.path), ["main"], disk)
        mirror.fetch()
        before = tip(mirror)
        (disk / "filler").write_bytes(b"x" * 3 * MB)
        sha = git_repo.commit({"big": os.urandom(2 * MB)})
        for _ in range(2):
            assert reason_of(mirror) == "DiskFull"
            assert tip(mirror) == before, "what was fetched stays"
            assert not halves(mirror)
        (disk / "filler").unlink()
        mirror.fetch()
        assert tip(mirror) == sha
        mirror.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
