"""A snapshot that is too large for one answer keeps what is under way."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core import workflow


def task(number: int, status: str) -> dict[str, Any]:
    return {"id": f"t{number}", "status": status, "outputs": "x" * 100, "error": None}


def test_outputs_go_first_and_then_tasks_that_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "ANSWER_BYTES", 1_000)
    tasks = [task(n, "COMPLETED") for n in range(50)] + [task(99, "RUNNING")]
    slim = workflow._slim({"status": "RUNNING", "tasks": tasks, "outputs": {"a": 1}, "waiting": []})
    names = [each["id"] for each in slim["tasks"]]
    assert names[-1] == "t99"
    assert names[:-1] == [f"t{n}" for n in range(len(names) - 1)]
    assert slim["tasks_left_out"] == 51 - len(names) > 0
    assert slim["outputs_left_out"] is True
    assert {each["outputs"] for each in slim["tasks"]} == {None}


def test_a_snapshot_that_fits_without_outputs_keeps_every_task() -> None:
    slim = workflow._slim({"status": "RUNNING", "tasks": [task(1, "RUNNING")], "outputs": None})
    assert [each["id"] for each in slim["tasks"]] == ["t1"]
    assert "tasks_left_out" not in slim
