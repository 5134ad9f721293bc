"""`pinflow backfill` asks for span after span until the server says that that was all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.cli import main
from engine.cli.client import Client
from tests.support.docs import commands


class Server:
    """Answers as the API does."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any]] = []

    def post(self, path: str, body: Any = None, headers: Any = None) -> Any:
        self.asked.append((path, body))
        return self.answers.pop(0)


def item(day: int, status: str = "STARTED", *, repeated: bool = False) -> dict[str, Any]:
    return {
        "scheduled_at": f"2026-11-0{day}T06:00:00Z",
        "status": status,
        "execution_id": f"run-{day}" if status == "STARTED" else "",
        "reason": "" if status == "STARTED" else "it does not fit",
        "repeated": repeated,
    }


def play(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any]) -> Server:
    server = Server(*answers)
    monkeypatch.setattr(Client, "from_environment", lambda: server)
    return server


def arguments(page: str) -> list[str]:
    """Those of the how-to page's own command."""
    (line,) = [line for line in commands(page) if line.startswith("pinflow backfill")]
    return line.split()[1:]


def test_it_goes_on_where_the_server_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = play(
        monkeypatch,
        {"items": [item(1), item(2, repeated=True)], "next": "2026-11-03T06:00:00Z"},
        {"items": [item(3)], "next": None},
    )
    assert main.run(arguments("how-to/schedules.md")) == 0
    path = "/workflows/report/triggers/nightly/backfill"
    until = "2026-11-08T00:00:00+00:00"
    assert server.asked == [
        (path, {"from": "2026-11-01T00:00:00+00:00", "to": until}),
        (path, {"from": "2026-11-03T06:00:00Z", "to": until}),
    ]
    said = capsys.readouterr().out
    assert "run-3" in said
    assert "there already" in said


def test_json_is_one_list_of_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    play(monkeypatch, {"items": [item(1)], "next": "x"}, {"items": [item(2)], "next": None})
    assert main.run([*arguments("how-to/schedules.md"), "--output", "json"]) == 0
    assert [each["execution_id"] for each in json.loads(capsys.readouterr().out)] == ["run-1", "run-2"]


def test_a_run_that_could_not_be_started_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, {"items": [item(1, "FAILED")], "next": None})
    assert main.run(arguments("how-to/schedules.md")) == 1


def test_what_is_no_time_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    play(monkeypatch)
    assert main.run(["backfill", "report", "--trigger", "t", "--from", "monday", "--to", "2026-11-08"]) == 1
    assert "--from 'monday' is no time" in capsys.readouterr().err
