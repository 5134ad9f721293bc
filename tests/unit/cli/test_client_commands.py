"""What the client commands send and print; the server is a stand-in here, the acceptance tests use the real one."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.cli import executions, history, output, run, sync, watching, workflows
from engine.cli.client import Client
from engine.errors import InvalidInput, Misconfigured


class Answers(Client):
    """A client whose replies are given."""

    replies: dict[str, Any]

    def __init__(self, replies: dict[str, Any]) -> None:
        super().__init__("http://127.0.0.1:9")
        object.__setattr__(self, "replies", replies)

    def get(self, path: str, **query: Any) -> Any:
        found = self.replies[path]
        return found.pop(0) if isinstance(found, list) else found


def _task(name: str, status: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "status": status, **more}


def _run(status: str, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "workflow": "w",
        "commit_sha": "a" * 40,
        "status": status,
        "tasks": list(tasks),
        **more,
    }


def test_watching_tells_each_change_once_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    error = {"type": "HTTP_5XX", "message": "gone\x1b[31m"}
    client = Answers(
        {
            "/executions/r1": [
                _run("RUNNING", _task("a", "RUNNING"), _task("b", "PENDING")),
                _run("RUNNING", _task("a", "RUNNING"), _task("b", "PENDING")),
                _run(
                    "FAILED",
                    _task("a", "FAILED", attempts=2, error=error),
                    _task("b", "SKIPPED"),
                    error=error,
                ),
            ]
        }
    )

    assert watching.follow(client, "r1", interval=0.01) == 1

    said = capsys.readouterr().out
    assert said.count("RUNNING") == 1
    assert "attempt 2" in said
    assert "HTTP_5XX: gone" in said
    assert "\x1b" not in said
    assert said.count("PENDING") == 0


def test_watching_says_who_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    request = {"id": "q1", "execution_id": "r1", "task": "gate", "message": "Go?"}
    client = Answers(
        {
            "/executions/r1": [
                _run("WAITING", _task("gate", "WAITING")),
                _run("COMPLETED", outputs={"a": 1}),
            ],
            "/approvals": {"items": [request]},
        }
    )

    assert watching.follow(client, "r1", interval=0.01) == 0

    said = capsys.readouterr().out
    assert "Go?" in said
    assert "pinflow approvals approve q1" in said
    assert json.loads(said[said.index("{") :]) == {"a": 1}


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.configure(parser)
    return parser.parse_args(["w", *words])


def test_inputs_are_json_where_they_can_be_and_text_where_the_workflow_says_so() -> None:
    schema = {"properties": {"version": {"type": "string"}}}
    client = Answers({"/workflows/w": {"inputs": schema}})

    found = run._inputs(
        _arguments("-i", "version=1.0", "-i", "n=3", "-i", "who=Ada", "-i", "l=[1, 2]", "-i", "e=a=b"), client
    )

    assert found == {"version": "1.0", "n": 3, "who": "Ada", "l": [1, 2], "e": "a=b"}


def test_inputs_of_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "inputs.json"
    file.write_text('{"a": 1, "b": 2}')
    client = Answers({"/workflows/w": {}})

    assert run._inputs(_arguments("--inputs-file", str(file), "-i", "b=3"), client) == {"a": 1, "b": 3}


@pytest.mark.parametrize("content", ["[1]", "{", None])
def test_a_bad_inputs_file_is_the_callers_to_mend(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "inputs.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidInput, match=r"inputs\.json"):
        run._inputs(_arguments("--inputs-file", str(file)), Answers({}))


def test_an_input_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidInput, match="name=value"):
        run._inputs(_arguments("-i", "novalue"), Answers({"/workflows/w": {}}))


def test_a_table_lets_no_control_character_through(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table([{"a": "x\x1b]0;evil\x07\ny"}], [("A", lambda row: row["a"])])
    assert capsys.readouterr().out == "A\nx ]0;evil  y\n"


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    assert output.paint("red", "x") == "x"
    assert output.paint("red", "x", Terminal()) == "\033[31mx\033[0m"  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("red", "x", Terminal()) == "x"  # type: ignore[arg-type]


def _shown(arguments: list[str], module: Any, client: Client, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(Client, "from_environment", classmethod(lambda cls: client))
    parser = argparse.ArgumentParser()
    module.configure(parser)
    return int(module.run(parser.parse_args(arguments)))


def _source(**more: Any) -> dict[str, Any]:
    return {
        "name": "flows",
        "url": "/flows",
        "branch": "main",
        "folder": "workflows",
        "condition": "Synced",
        "message": "aaaa is live",
        "action": "",
        "checked_at": datetime.now(UTC).isoformat(),
        "live_sha": "a" * 40,
        "observed_sha": "a" * 40,
        **more,
    }


def _refused(**fault: Any) -> dict[str, Any]:
    located = {
        "file": "w.yaml",
        "line": 3,
        "column": 9,
        "code": "NAME",
        "message": "no",
        "hint": "b",
        **fault,
    }
    return {"items": [{"sha": "b" * 40, "status": "REJECTED", "subject": "x", "problems": [located]}]}


def test_sync_status_says_every_problem_and_what_helps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _source(condition="Rejected", observed_sha="b" * 40, action="Mend them in a new commit.")
    client = Answers({"/sources": {"items": [source]}, "/revisions": _refused()})

    assert _shown(["status"], sync, client, monkeypatch) == 0

    said = capsys.readouterr().out
    assert "w.yaml:3:9: NAME no (b)" in said
    assert "what helps: Mend them in a new commit." in said
    assert "is a sync daemon running" not in said


def test_sync_status_as_json_holds_the_problems(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Answers({"/sources": {"items": [_source(observed_sha="b" * 40)]}, "/revisions": _refused()})

    _shown(["status", "-o", "json"], sync, client, monkeypatch)

    assert json.loads(capsys.readouterr().out)[0]["problems"][0]["line"] == 3


def test_a_problem_of_the_whole_commit_is_shown_without_a_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    revisions = _refused(file="", line=0, column=0, code="EMPTY_FOLDER")
    client = Answers({"/sources": {"items": [_source(observed_sha="b" * 40)]}, "/revisions": revisions})

    _shown(["status"], sync, client, monkeypatch)

    said = capsys.readouterr().out
    assert "  EMPTY_FOLDER no" in said
    assert ":0:0" not in said


def test_a_source_that_nobody_looks_at_any_more_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = (datetime.now(UTC) - timedelta(minutes=12)).isoformat()
    client = Answers({"/sources": {"items": [_source(checked_at=long_ago)]}})

    _shown(["status"], sync, client, monkeypatch)

    assert "12 minutes: does a running sync daemon watch it?" in capsys.readouterr().out


def test_a_run_is_shown_with_its_error_and_who_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vote = {"at": "2026-01-02T03:04:05Z", "by": "ada", "decision": "approve", "comment": "go"}
    request = {"id": "q1", "task": "gate", "status": "PENDING", "message": "Deploy?", "decisions": [vote]}
    error = {"task": "build", "type": "HTTP_5XX", "message": "it " + "is " * 80 + "gone"}
    found = _run("WAITING", _task("build", "FAILED", error=error), error=error, approvals=[request])

    _shown(["show", "r1"], executions, Answers({"/executions/r1": found}), monkeypatch)

    said = capsys.readouterr().out
    assert "build: HTTP_5XX: it is" in said
    assert "is gone\n" in said
    assert "ada said approve: go" in said
    assert "pinflow approvals approve q1" in said
    assert "{" not in said


def test_history_tells_who_brought_a_version_and_how_it_did(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version: dict[str, Any] = {
        "from_at": "2026-06-01T12:00:00Z",
        "from_sha": "b" * 40,
        "commit_sha": "a" * 40,
        "live": True,
        "restored": True,
        "version": "1.2",
        "author": "Ada\x1b[31m",
        "signer": "ada@example.test",
        "pull_request": 12,
        "runs": 5,
        "runs_failed": 1,
        "failure_rate": 0.25,
        "subject": "Revert",
    }
    answers = Answers({"/workflows/release/versions": {"items": [version], "next_cursor": ""}})
    monkeypatch.setattr("engine.cli.history.Client.from_environment", lambda: answers)
    parser = argparse.ArgumentParser()
    history.configure(parser)

    assert history.run(parser.parse_args(["release"])) == 0

    said = capsys.readouterr().out
    assert "live, as of aaaaaaaaaaaa" in said
    assert "#12" in said
    assert "1 (25%)" in said
    assert "\x1b" not in said


class Posts(Answers):
    """Keeps what is posted."""

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        posted.append((path, body))
        return {"source": "main", "commit_sha": "b" * 40, "codes": ["MASS_DELETION"], "retired": ["a"]}


posted: list[tuple[str, Any]] = []


def test_a_confirmation_is_of_the_commit_that_was_seen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    posted.clear()
    client = Posts({"/sources": {"items": [_source(observed_sha="b" * 40)]}})

    _shown(["confirm", "flows"], sync, client, monkeypatch)
    _shown(["confirm", "flows", "--commit", "abcd"], sync, client, monkeypatch)
    _shown(["retire", "flows"], sync, client, monkeypatch)

    assert posted == [
        ("/sources/flows/confirm", {"commit_sha": "b" * 40}),
        ("/sources/flows/confirm", {"commit_sha": "abcd"}),
        ("/sources/flows/retire", None),
    ]
    assert "confirmed main bbbbbbbbbbbb" in capsys.readouterr().out


def test_a_file_of_sources_is_checked_without_a_server(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text("sources:\n  - {name: one, url: ./flows}\n")
    parser = argparse.ArgumentParser()
    sync.configure(parser)
    arguments = parser.parse_args(["check", str(file)])
    assert sync.run(arguments) == 0
    assert capsys.readouterr().out == f"one: main of {tmp_path}/flows, workflows\n"
    file.write_text("sources:\n  - {name: one, url: 'https://me:s3cret@git.example.test/x.git'}\n")
    assert sync.run(arguments) == 0
    assert capsys.readouterr().out == "one: main of https://git.example.test/x.git, workflows\n"
    file.write_text("sources:\n  - {name: one, ulr: ./flows}\n")
    with pytest.raises(Misconfigured, match=f"{file}:2:"):
        sync.run(arguments)


def test_a_workflow_is_shown_with_what_starts_it_and_what_is_wrong_with_that(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = {
        "key": "k",
        "status": "IGNORED",
        "reason": "`when` is false",
        "execution_id": "",
        "at": "2026-06-01T06:00:00Z",
    }
    plain = {"message": "", "last": None, "next": None, "paused": False, "path": None}
    triggers = [
        {**plain, "id": "pushed", "type": "webhook", "status": "NO_SECRET", "message": "set X", "path": "/hooks/main/w/pushed"},
        {**plain, "id": "called", "type": "webhook", "status": "PENDING", "path": "/hooks/main/w/called", "last": last},
        {**plain, "id": "nightly", "type": "schedule", "status": "APPLIED", "cron": ["0 6 * * *"], "timezone": "Europe/Rome",
         "next": ["2026-06-02T06:00:00Z"], "paused": True},
        {**plain, "id": "odd", "type": "schedule", "status": "REFUSED", "message": "no such minute", "cron": "61 * * * *"},
    ]  # fmt: skip
    answers = Answers({"/workflows/w": {"name": "w", "source": "main", "triggers": triggers}})
    monkeypatch.setattr(Client, "from_environment", lambda: answers)
    assert workflows.run(argparse.Namespace(verb="show", name="w", output="text")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "name    w",
        "source  main",
        "trigger pushed: POST /hooks/main/w/pushed; NO_SECRET set X",
        "trigger called: POST /hooks/main/w/called; last 2026-06-01 06:00:00 IGNORED (`when` is false)",
        "trigger nightly: 0 6 * * * Europe/Rome; paused in Temporal; next 2026-06-02 06:00:00",
        "trigger odd: 61 * * * *; REFUSED no such minute",
    ]


def test_a_listing_that_was_cut_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for limit, said in ((2, "2 rows; there may be more: --limit N\n"), (3, "")):
        args = argparse.Namespace(output="text", limit=limit)
        output.show_list(args, ["a", "b"], [("NAME", str)], "nothing")
        assert capsys.readouterr().err == said
