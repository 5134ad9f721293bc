"""How an open run's own word and what was recorded beside it become one list."""

from __future__ import annotations

from typing import Any

from engine.services import live_tasks


def told(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id, "status": "RUNNING", "attempts": 1, "started_at": 1.5} for id in ids]


def recorded(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id, "status": "COMPLETED"} for id in ids]


def test_what_the_run_has_forgotten_stands_behind_its_outer_task() -> None:
    found = live_tasks.merged(recorded("m", "m[0].a", "m[1].a", "g.x"), told("m", "m[1].a", "n", "g"))
    assert [task["id"] for task in found] == ["m", "m[1].a", "m[0].a", "n", "g", "g.x"]
    assert [task["status"] for task in found if task["id"] in ("m", "m[0].a")] == ["RUNNING", "COMPLETED"]


def test_times_become_text_and_what_is_not_there_is_left_out() -> None:
    (task,) = live_tasks.merged([], [{"id": "a", "status": "RUNNING", "started_at": 1.5, "cached_from": ""}])
    assert task["started_at"] == "1970-01-01T00:00:01.500000Z"
    assert (task["skip_reason"], "cached_from" in task) == ("", False)


def test_a_page_begins_behind_the_task_of_its_cursor_wherever_that_is_by_now() -> None:
    standing = told("a", "b", "c")
    assert live_tasks.after(standing, None) == 0
    assert live_tasks.after(standing, (0, "b")) == 2
    assert live_tasks.after(standing, (1, "gone")) == 2


def test_what_stands_inside_of_a_task() -> None:
    task = {"id": "m[3].g.x", "status": "FAILED"}
    assert all(live_tasks.fits(task, under, "") for under in ("", "m", "m[3]", "m[3].g"))
    assert not any(live_tasks.fits(task, under, "") for under in ("m[3].g.x", "m[30]", "n", "m[3].gg"))
    assert not live_tasks.fits(task, "m", "COMPLETED")


def test_a_callback_url_is_shown_to_those_who_may_send_signals() -> None:
    waiting = {"task": "hook", "kind": "signal", "since": 1.0, "callback_url": "https://x.test/callbacks/1"}
    assert live_tasks.awaited(waiting, urls=True)["callback_url"] == waiting["callback_url"]
    assert live_tasks.awaited(waiting, urls=False)["callback_url"] == ""
