"""What the commands about runs send and print; the server is a stand-in here, the acceptance tests use the real one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli import executions, run, watching
from engine.cli.client import Client
from engine.errors import InvalidInput


class Server(Client):
    """Replies that are given, and what was asked."""

    def __init__(self, replies: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:9")
        object.__setattr__(self, "replies", replies)
        object.__setattr__(self, "asked", [])

    replies: dict[str, Any]
    asked: list[tuple[str, Any]]

    def get(self, path: str, **query: Any) -> Any:
        self.asked.append((path, {name: value for name, value in query.items() if value}))
        found = self.replies[path]
        return found.pop(0) if isinstance(found, list) else found

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        self.asked.append((path, body))
        return self.replies[path]


def command(server: Server, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run `pinflow executions WORDS`."""
    monkeypatch.setattr(Client, "from_environment", classmethod(lambda cls: server))
    parser = argparse.ArgumentParser()
    executions.configure(parser)
    return executions.run(parser.parse_args(words))


def a_run(id: str = "r1", **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "workflow": "release",
        "commit_sha": "a" * 40,
        "status": "RUNNING",
        "created_at": f"2026-01-01T00:00:0{id[-1]}Z",
        "parent_id": "",
        "parent_task": "",
        "root_id": "",
        **more,
    }


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_steering_sends_the_reason(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server({f"/executions/r1/{verb}": {"id": "r1", "status": "PAUSED"}})
    assert command(server, monkeypatch, verb, "r1", "--reason", "freeze") == 0
    assert server.asked == [(f"/executions/r1/{verb}", {"reason": "freeze"})]
    assert capsys.readouterr().out.startswith("r1: ")
    command(server, monkeypatch, verb, "r1", "-o", "json")
    assert json.loads(capsys.readouterr().out)["status"] == "PAUSED"


def test_a_signal_carries_its_payload_and_correlation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = {"id": "s1", "execution_id": "r1", "name": "go", "repeated": False}
    server = Server({"/executions/r1/signal": said})
    command(server, monkeypatch, "signal", "r1", "go", "--payload", '{"a": 1}', "--correlation", "eu")
    (tmp_path / "p.json").write_text("[1]")
    command(server, monkeypatch, "signal", "r1", "go", "--payload-file", str(tmp_path / "p.json"))
    assert [body for _, body in server.asked] == [
        {"name": "go", "payload": {"a": 1}, "correlation": "eu"},
        {"name": "go", "payload": [1], "correlation": ""},
    ]
    assert "go was sent" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="--payload is not JSON"):
        command(server, monkeypatch, "signal", "r1", "go", "--payload", "yes!")
    with pytest.raises(InvalidInput, match="cannot be read"):
        command(server, monkeypatch, "signal", "r1", "go", "--payload-file", str(tmp_path / "none"))


def test_a_rerun_tells_what_is_reused_and_what_runs_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [
        {"task": "build", "verdict": "reuse", "reason": "definition and inputs are the same"},
        {"task": "deploy", "verdict": "run", "reason": "it had failed"},
    ]
    server = Server({"/executions/r1/rerun": a_run("r2", tasks=tasks, rerun_of="r1")})
    assert command(server, monkeypatch, "rerun", "r1", "--from-failed", "--at", "latest") == 0
    assert server.asked == [("/executions/r1/rerun", {"ref": "latest", "from_failed": True})]
    said = capsys.readouterr().out
    assert "r2  release at aaaaaaaaaaaa, once more" in said
    assert "build   reused  definition and inputs are the same" in said
    assert "deploy  runs    it had failed" in said


def test_a_tree_shows_all_that_stands_below_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    below = [
        a_run("r4", parent_id="r2", parent_task="m[0].leaf", root_id="r1", workflow="leaf"),
        a_run("r3", parent_id="r1", parent_task="b", root_id="r1", workflow="two", status="FAILED"),
        a_run("r2", parent_id="r1", parent_task="a", root_id="r1", workflow="one"),
    ]
    server = Server({"/executions/r1": a_run(), "/executions": {"items": below}, "/executions/r2": below[2]})
    command(server, monkeypatch, "tree", "r1")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" at ")[0] for line in lines] == [
        "release",
        "├─ a → one",
        "│  └─ m[0].leaf → leaf",
        "└─ b → two",
    ]
    command(server, monkeypatch, "tree", "r2", "-o", "json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["id"], [child["id"] for child in shown["children"]]) == ("r2", ["r4"])
    assert server.asked[-1] == ("/executions", {"root": "r1", "limit": 100})


def test_the_tasks_inside_of_a_task_are_asked_for_by_its_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"id": "rollout[3].deploy", "status": "FAILED", "error": {"type": "X", "message": "no"}}
    server = Server({"/executions/r1/tasks": {"items": [task]}})
    command(server, monkeypatch, "tasks", "r1", "--under", "rollout[3]", "--status", "failed")
    assert server.asked == [
        ("/executions/r1/tasks", {"limit": 50, "under": "rollout[3]", "status": "FAILED"})
    ]
    assert "rollout[3].deploy  FAILED" in capsys.readouterr().out


def test_a_run_is_shown_with_what_it_waits_for_and_its_relatives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = {
        "task": "hook",
        "kind": "signal",
        "signal": "deployed",
        "correlation": "eu",
        "callback_url": "https://x/1",
    }
    tasks = [
        {"id": "rollout", "status": "RUNNING", "items": {"total": 9, "completed": 4, "failed": 1}},
        {"id": "build", "status": "COMPLETED", "reused_from": "r0"},
    ]
    found = a_run(
        tasks=tasks,
        task_count=2000,
        waiting=[waiting],
        children=[a_run("r2", task="smoke")],
        reruns=[],
        signals=[],
        closure={"x": {}},
    )
    command(Server({"/executions/r1": found}), monkeypatch, "show", "r1")
    said = capsys.readouterr().out
    assert "hook: waits for the signal deployed" in said
    assert "pinflow executions signal r1 deployed --correlation eu" in said
    assert "https://x/1" in said
    assert "4 of 9 done, 1 failed" in said
    assert "reused: r0" in said
    assert "and 1998 tasks inside of them" in said
    assert "r2     smoke" in said
    assert "{" not in said


def test_watching_tells_nested_tasks_pauses_and_how_far_a_map_is(capsys: pytest.CaptureFixture[str]) -> None:
    def look(status: str, completed: int, *tasks: dict[str, Any], waiting: Any = ()) -> dict[str, Any]:
        items = {"total": 100, "completed": completed, "failed": 0}
        outer = {"id": "m", "status": "RUNNING", "items": items}
        return a_run(status=status, tasks=[outer, *tasks], waiting=list(waiting))

    hook = {"id": "m[1].hook", "status": "WAITING"}
    awaited = {"task": "m[1].hook", "kind": "signal", "signal": "deployed"}
    server = Server(
        {
            "/executions/r1": [
                look("QUEUED", 0),
                look("RUNNING", 1),
                look("PAUSED", 9, hook, waiting=[awaited]),
                look("RUNNING", 55, hook),
                a_run(status="COMPLETED", tasks=[]),
            ],
            "/approvals": {"items": []},
        }
    )
    assert watching.follow(server, "r1", interval=0.001) == 0
    said = capsys.readouterr().out
    assert said.count("0 of 100 done") == 1
    assert said.count("55 of 100 done") == 1
    assert "  m[1].hook" in said
    assert "pinflow executions signal r1 deployed" in said
    assert [word for word in ("QUEUED", "PAUSED") if said.count(word) != 1] == []


def test_targets_are_sent_with_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server({"/executions/workflows/w/execute": a_run()})
    monkeypatch.setattr(Client, "from_environment", classmethod(lambda cls: server))
    parser = argparse.ArgumentParser()
    run.configure(parser)
    run.run(parser.parse_args(["w", "--target", "a", "--target", "b"]))
    assert server.asked == [("/executions/workflows/w/execute", {"inputs": {}, "targets": ["a", "b"]})]
