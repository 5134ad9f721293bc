"""`pinflow init`, `pinflow up` and the client commands, as a person uses them; and `kill -9` of all of it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from engine.stack.processes import HeldLock
from tests.support.git import Repository
from tests.support.processes import runs
from tests.support.stack import Up, open_folder

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """A stack on a source that `pinflow init` wrote, shared by the tests of this file in their order."""
    with open_folder() as folder:
        stack = Up(folder)
        written = stack.pinflow("init")
        assert written.returncode == 0, written.stderr
        Repository(folder).commit(message="First workflow")
        stack.start("--repo", ".")
        yield stack
        if stack.process is not None:
            stack.stop()


@pytest.fixture
def source(up: Up) -> Repository:
    return Repository(up.folder)


def _start(up: Up, *words: str) -> str:
    done = up.pinflow("run", "hello", *words, "--output", "json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["id"])


def _waits(up: Up, run: str) -> None:
    up.until(
        lambda: list(up.client().pages("/approvals", 10, execution_id=run, status="PENDING")), "a request"
    )


def test_what_init_wrote_is_valid_and_live(up: Up, source: Repository) -> None:
    assert up.pinflow("validate", "workflows").returncode == 0
    up.live("hello", source.head())
    assert "hello" in up.pinflow("workflows", "ls").stdout
    assert "Synced" in up.pinflow("sync", "status").stdout


def test_init_overwrites_nothing(up: Up) -> None:
    again = up.pinflow("init")
    assert again.returncode == 1
    assert "nothing is overwritten" in again.stderr


def test_a_run_is_started_watched_and_approved_from_the_command_line(up: Up) -> None:
    run = _start(up, "-i", "name=Ada")
    _waits(up, run)

    approved = up.pinflow("approvals", "approve", run, "--comment", "go")
    watched = up.pinflow("executions", "watch", run)

    assert approved.returncode == 0, approved.stderr
    assert watched.returncode == 0, watched.stderr
    assert "Hello, Ada!" in watched.stdout
    assert "✓ gate" in watched.stdout
    shown = json.loads(up.pinflow("executions", "show", run, "-o", "json").stdout)
    assert shown["outputs"] == {"greeting": "Hello, Ada!"}
    rows = json.loads(up.pinflow("audit", "ls", "--commit", shown["commit_sha"], "-o", "json").stdout)
    assert {"execution.requested", "approval.decided"} <= {
        row["action"] for row in rows if row["execution_id"] == run
    }


def test_a_run_that_is_refused_ends_the_command_with_1(up: Up) -> None:
    run = _start(up)
    _waits(up, run)
    assert up.pinflow("approvals", "reject", run).returncode == 0

    watched = up.pinflow("executions", "watch", run)

    assert watched.returncode == 1
    assert "ApprovalRejected" in watched.stdout


def test_a_run_is_cancelled(up: Up) -> None:
    run = _start(up)
    _waits(up, run)
    assert up.pinflow("executions", "cancel", run, "--reason", "not today").returncode == 0
    up.until(
        lambda: up.client().get(f"/executions/{run}")["status"] == "CANCELLED", "the run to be cancelled"
    )


def test_what_does_not_exist_is_told_with_code_1(up: Up) -> None:
    for words in (["run", "nope"], ["executions", "show", "nope"], ["run", "hello", "--at", "0000"]):
        done = up.pinflow(*words)
        assert done.returncode == 1, words
        assert done.stderr.startswith("pinflow: ")
        assert "Traceback" not in done.stderr


def test_inputs_that_do_not_fit_are_told_by_pointer(up: Up, tmp_path: object) -> None:
    done = up.pinflow("run", "hello", "--inputs-file", _inputs(up, {"name": 3}))
    assert done.returncode == 1
    assert "/name" in done.stderr


def _inputs(up: Up, inputs: object) -> str:
    file = up.folder / ".pinflow" / "inputs.json"
    file.write_text(json.dumps(inputs))
    return str(file)


def test_tokens_are_made_listed_and_revoked(up: Up) -> None:
    made = up.pinflow("token", "create", "--subject", "bob", "--role", "viewer", "-o", "json")
    assert made.returncode == 0, made.stderr
    token = json.loads(made.stdout)

    assert token["token"].startswith("pf_")
    listed = up.pinflow("token", "ls")
    assert "bob" in listed.stdout
    assert token["token"] not in listed.stdout
    assert up.pinflow("token", "revoke", token["id"]).returncode == 0


def test_sync_now_is_taken(up: Up) -> None:
    assert up.pinflow("sync", "now").returncode == 0


def test_secrets_are_for_their_owner_only(up: Up) -> None:
    for name in ("client.json", "token", "postgres/password"):
        assert (up.data / name).stat().st_mode & 0o077 == 0, name


def test_a_second_up_on_the_same_folder_says_who_is_there(up: Up) -> None:
    second = up.pinflow("up")
    assert second.returncode == 1
    assert "runs already" in second.stderr
    assert str(up.client().url) in second.stderr


@pytest.mark.chaos
@pytest.mark.parametrize("victim", ["pinflow", "temporal", "postgres"])
def test_a_part_that_is_killed_comes_back_and_the_run_goes_on(up: Up, victim: str) -> None:
    run = _start(up)
    _waits(up, run)
    before = up.pids()[victim]

    os.kill(before, signal.SIGKILL)

    up.until(lambda: _other(up, victim, before), f"another {victim}")
    _finishes(up, run)


def _other(up: Up, name: str, pid: int) -> bool:
    try:
        return up.pids()[name] != pid
    except (OSError, ValueError, IndexError, KeyError):  # just being written
        return False


def _finishes(up: Up, run: str) -> None:
    def approved() -> bool:
        done = up.pinflow("approvals", "approve", run)
        return done.returncode == 0 or "409" in done.stderr

    up.until(approved, "the decision to be taken")
    assert up.pinflow("executions", "watch", run).returncode == 0


@pytest.mark.chaos
def test_up_itself_killed_leaves_no_process_of_ours_and_the_next_one_continues(up: Up) -> None:
    run = _start(up)
    _waits(up, run)
    before = up.pids()
    url = up.client().url

    up.stop(signal.SIGKILL)
    up.start()

    after = up.pids()
    assert (after["postgres"], after["temporal"]) == (before["postgres"], before["temporal"]), (
        "they are taken over"
    )
    assert not runs(before["pinflow"])
    assert up.client().url == url
    _finishes(up, run)


@pytest.mark.chaos
def test_everything_killed_at_once_continues(up: Up) -> None:
    run = _start(up)
    _waits(up, run)
    victims = up.pids()

    up.stop(signal.SIGKILL)
    for pid in victims.values():
        os.kill(pid, signal.SIGKILL)
    up.start()

    _finishes(up, run)


def test_an_end_by_ctrl_c_is_clean_and_leaves_nothing_running(up: Up) -> None:
    pids = up.pids()

    assert up.stop() == 0

    deadline = time.monotonic() + 20
    while alive := [name for name, pid in pids.items() if runs(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)
    assert not HeldLock(up.data / "up.lock").is_held()
    assert up.pinflow("workflows", "ls").returncode == 75
