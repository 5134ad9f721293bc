"""Commits made by plumbing and pushed, on real git."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import SourceError
from engine.settings import SourceSettings
from engine.sync.commit_message import TRAILER, author, message
from engine.sync.pushing import Pusher, Refused, TooLate
from tests.support.git import Repository
from tests.support.orders import ORDER, PATH
from tests.support.syncing import flow


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    """A repository with one definition, a folder of functions and a file that must never change."""
    made = Repository(tmp_path / "remote")
    made.commit(
        {
            PATH: flow("release"),
            "workflows/other.yaml": flow("other"),
            "workflows/functions/old.py": "x = 1\n",
            ".github/workflows/ci.yml": "on: push\n",
        }
    )
    return made


@pytest.fixture
def pusher(remote: Repository, tmp_path: Path) -> Pusher:
    return Pusher(SourceSettings(name="main", url=str(remote.path)), tmp_path / "data")


def touched(remote: Repository, sha: str) -> list[str]:
    return remote.git("diff-tree", "-r", "--name-only", "--no-renames", f"{sha}^", sha).splitlines()


def test_a_proposal_is_one_commit_on_a_branch_of_its_own(remote: Repository, pusher: Pusher) -> None:
    main = remote.head()
    pushed = pusher.push(ORDER)
    assert pushed.base_sha == main == remote.head()
    assert remote.git("rev-parse", "pinflow/proposals/0190-a") == pushed.commit_sha
    assert touched(remote, pushed.commit_sha) == [PATH]
    assert remote.git("show", f"{pushed.commit_sha}:{PATH}") == flow("release", "2").strip()
    assert (
        remote.git("log", "-1", "--format=%an <%ae>|%cn", pushed.commit_sha)
        == "ada <ada@pinflow.invalid>|Pinflow"
    )
    assert (
        remote.git("log", "-1", f"--format=%(trailers:key={TRAILER},valueonly)", pushed.commit_sha)
        == "0190-a"
    )


def test_made_twice_it_is_the_same_commit_and_pushed_once(remote: Repository, pusher: Pusher) -> None:
    first = pusher.push(ORDER)
    remote.commit({"notes.md": "main has moved"})
    assert pusher.push(replace(ORDER, again=True)) == first


def test_a_branch_of_that_name_with_something_else_is_left_alone(remote: Repository, pusher: Pusher) -> None:
    remote.git("branch", ORDER.branch)
    with pytest.raises(Refused, match="holds something else"):
        pusher.push(ORDER)


def test_directly_it_moves_the_branch_by_one_commit(tmp_path: Path) -> None:
    origin = Repository(tmp_path / "work")
    origin.commit({PATH: flow("release")})
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(origin.path), str(bare)], check=True)
    pusher = Pusher(SourceSettings(name="main", url=str(bare)), tmp_path / "data")
    order = replace(ORDER, direct=True, branch="main")
    pushed = pusher.push(order)
    assert origin.git("ls-remote", str(bare), "main").split()[0] == pushed.commit_sha
    # The outcome was lost, and meanwhile somebody committed on top: it is found by its trailer.
    origin.git("pull", "-q", str(bare), "main")
    origin.commit({"notes.md": "x"})
    origin.git("push", "-q", str(bare), "main")
    assert pusher.push(replace(order, again=True)) == pushed


def test_who_is_late_is_told_and_takes_nothing_back(
    remote: Repository, pusher: Pusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.git("checkout", "-q", "-b", "elsewhere")  # git refuses pushes to the branch that is checked out

    def race(name: str) -> None:
        if name == "propose.before_push":
            remote.git("update-ref", "refs/heads/main", remote.commit({"faster.md": "x"}))

    monkeypatch.setattr("engine.sync.pushing.faults.hit", race)
    with pytest.raises(TooLate):
        pusher.push(replace(ORDER, direct=True, branch="main"))
    assert remote.git("log", "-1", "--format=%s", "main") == "Change"


def test_functions_go_along_and_replace_those_that_were_there(remote: Repository, pusher: Pusher) -> None:
    folder = "workflows/functions"
    pushed = pusher.push(replace(ORDER, files={**ORDER.files, f"{folder}/new.py": b"y = 2\n"}, clears=folder))
    assert touched(remote, pushed.commit_sha) == [f"{folder}/new.py", f"{folder}/old.py", PATH]
    listed = remote.git("ls-tree", "-r", "--name-only", pushed.commit_sha, "--", folder)
    assert listed == f"{folder}/new.py"


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("workflows/other.yaml", "another definition stands at"),
        ("workflows/link.yaml", "is no plain file"),
        ("linked/x.yaml", "cannot stand on the branch"),
        ("workflows/release.yaml/x.yaml", "cannot stand on the branch"),
        ("workflows/release.yaml", "just that already"),
        ("workflows/sources.yaml", "no definition of release stands at"),
        (
            "workflows/Other.yaml",
            "differs from workflows/other.yaml on the branch in upper and lower case only",
        ),
        ("Workflows/new.yaml", "differs from workflows on the branch in upper and lower case only"),
    ],
)
def test_what_cannot_be_is_refused(remote: Repository, pusher: Pusher, place: str, why: str) -> None:
    (remote.path / "workflows" / "link.yaml").symlink_to("/etc/passwd")
    (remote.path / "linked").symlink_to("/etc")
    (remote.path / "workflows" / "sources.yaml").write_text("sources:\n  - {name: release, url: /x}\n")
    remote.commit()
    content = flow("release", "1" if "already" in why else "2").encode()
    with pytest.raises(Refused, match=why):
        pusher.push(replace(ORDER, path=place, files={place: content}))
    assert remote.git("for-each-ref", "refs/heads/pinflow") == ""


def test_a_definition_that_is_live_is_written_over_however_it_spells_its_name(
    remote: Repository, pusher: Pusher
) -> None:
    remote.commit({PATH: '"name": release\ntasks: [{id: a, type: set, values: {}}]\n'})
    with pytest.raises(Refused, match="no definition of release"):
        pusher.push(ORDER)
    assert touched(remote, pusher.push(replace(ORDER, live=True)).commit_sha) == [PATH]


def test_a_remote_without_the_branch_is_refused(remote: Repository, tmp_path: Path) -> None:
    other = Pusher(SourceSettings(name="main", url=str(remote.path), branch="nowhere"), tmp_path / "data")
    with pytest.raises(Refused, match="no branch nowhere"):
        other.push(ORDER)


def test_a_remote_that_is_away_may_come_back(tmp_path: Path) -> None:
    away = Pusher(SourceSettings(name="main", url=str(tmp_path / "nothing")), tmp_path / "data")
    with pytest.raises(SourceError):
        away.push(ORDER)


def test_what_the_remote_says_is_passed_on(remote: Repository, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(remote.path), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "config", "receive.fsckObjects", "true"], check=True)
    subprocess.run(["git", "-C", str(bare), "config", "transfer.hideRefs", "refs/heads/pinflow"], check=True)
    refused = Pusher(SourceSettings(name="main", url=str(bare)), tmp_path / "data")
    with pytest.raises(Refused, match="deny updating a hidden ref"):
        refused.push(ORDER)


def test_nothing_of_a_local_repository_is_run(remote: Repository, pusher: Pusher, tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    hooks = remote.path / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    script = f"#!/bin/sh\ntouch {canary}\nexit 0\n"
    for name in (
        "pre-receive",
        "update",
        "post-receive",
        "post-update",
        "reference-transaction",
        "proc-receive",
    ):
        (hooks / name).write_text(script)
        (hooks / name).chmod(0o755)
    command = tmp_path / "command"
    command.write_text(script)
    command.chmod(0o755)
    remote.git("config", "core.hooksPath", str(hooks))
    remote.git("config", "core.fsmonitor", str(command))
    remote.git("config", "core.alternateRefsCommand", str(command))
    remote.git("config", "receive.procReceiveRefs", "refs/heads/pinflow")
    try:
        pusher.push(ORDER)
    except (Refused, SourceError):
        pass  # proc-receive wants its hook, and must not get it
    assert not canary.exists()


def test_nothing_is_left_on_the_disk(remote: Repository, pusher: Pusher, tmp_path: Path) -> None:
    pusher.push(ORDER)
    assert list((tmp_path / "data" / "proposals").iterdir()) == []


# --- hostile words ----------------------------------------------------------------------------------------------------

_NASTY = [
    "\n", "\r\n", "\0", "\x1b[2J", "\u2028", "<", ">", "--", "-", "../", "$(touch x)", "`x`", "'", '"', ";", "\\",
    "Pinflow-Confirm-Deletions: yes", "Pinflow-Proposal: other", "author Eve <eve@x> 1 +0000", "tree ", "\ud800", "é", "💥",
    "\n\nSigned-off-by: Eve <e@x>\n", "#", "%s", ":", "~", "^", "..", "@{", " ", "a" * 300,
]  # fmt: skip


def test_no_word_of_a_caller_is_a_header_a_trailer_or_a_path(remote: Repository, pusher: Pusher) -> None:
    chance = random.Random(7)
    for number in range(40):
        title, body, subject = ("".join(chance.choices(_NASTY, k=chance.randrange(6))) for _ in range(3))
        id = f"fuzz-{number}"
        order = replace(
            ORDER, id=id, branch=f"pinflow/proposals/{id}", author=subject, message=message(title, body, id, more={"Proposed-by": subject})
        )  # fmt: skip
        sha = pusher.push(order).commit_sha
        assert touched(remote, sha) == [PATH]
        headers = remote.git("cat-file", "commit", sha).partition("\n\n")[0].splitlines()
        assert [line.split()[0] for line in headers] == ["tree", "parent", "author", "committer"]
        trailers = remote.git("log", "-1", "--format=%(trailers:unfold)", sha).splitlines()
        assert [line.partition(":")[0] for line in trailers] == [TRAILER, "Proposed-by"]
        assert trailers[0] == f"{TRAILER}: {id}"


def test_ten_thousand_messages_keep_their_last_paragraph() -> None:
    chance = random.Random(11)
    for number in range(10_000):
        title, body, subject = ("".join(chance.choices(_NASTY, k=chance.randrange(8))) for _ in range(3))
        said = message(title, body, f"id-{number}", more={"Proposed-by": subject})
        last = said.strip().rpartition("\n\n")[2].splitlines()
        assert [line.partition(":")[0] for line in last] == [TRAILER, "Proposed-by"]
        assert said.splitlines()[0].strip()
        assert said.isprintable() is False or "\n" in said
        assert not {letter for letter in said if not letter.isprintable()} - {"\n"}
        name, email = author(subject)
        assert name
        assert not set("<>\n\0") & set(name + email)
