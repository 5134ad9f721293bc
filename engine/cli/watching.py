"""Following a run: its tasks, as they go."""

from __future__ import annotations

import sys
import time
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.executions import notes_of
from engine.cli.output import paint, paint_status, plain, print_json, short
from engine.errors import Unavailable

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
_APART = frozenset({"QUEUED", "PAUSED"})
"""Statuses of a run that no task tells."""
_SIGNS = {"RUNNING": "▸", "WAITING": "‖", "COMPLETED": "✓", "FAILED": "✗", "SKIPPED": "-", "CANCELLED": "■"}


def follow(client: Client, execution_id: str, *, as_json: bool = False, interval: float = 0.3) -> int:
    """Print each change of the run's tasks until it ends. Returns 0 if it completed, else 1.

    A server that is away is waited for: it comes back, and the run goes on meanwhile.
    """
    seen: dict[str, tuple[Any, ...]] = {}
    announced = False
    stood = ""
    while True:
        run = _look(client, execution_id)
        if not as_json:
            if not announced:
                print(
                    f"{run['workflow']} at {short(run['commit_sha'])}  {paint('grey', run['id'])}", flush=True
                )
                announced = True
            if run["status"] != stood and (run["status"] in _APART or stood in _APART):
                print(
                    f"  {time.strftime('%H:%M:%S')} {paint_status(run['status'], run['status'])}", flush=True
                )
            stood = run["status"]
            for task in run.get("tasks") or []:
                now = (task["status"], task.get("attempts") or 0, _tenths(task))
                if seen.get(task["id"]) != now and task["status"] != "PENDING":
                    _say(client, run, task)
                seen[task["id"]] = now
        if run["status"] in FINAL:
            return _end(run, as_json)
        time.sleep(interval)
        interval = min(interval * 1.1, 1.0)


def _look(client: Client, execution_id: str) -> dict[str, Any]:
    told = False
    while True:
        try:
            found: dict[str, Any] = client.get(f"/executions/{segment(execution_id)}")
            return found
        except Unavailable as error:
            if not told:
                print(f"  {error.message}; trying on", file=sys.stderr, flush=True)
                told = True
            time.sleep(min(error.retry_after, 5.0))


def _tenths(task: dict[str, Any]) -> int:
    """How far a map is, so that ten lines tell of it however many items it has."""
    items = task.get("items")
    return 0 if not items else 10 * (items["completed"] + items["failed"]) // max(1, items["total"])


def _say(client: Client, run: dict[str, Any], task: dict[str, Any]) -> None:
    status = task["status"]
    sign = paint_status(status, _SIGNS.get(status, "·"))
    notes = []
    if (task.get("attempts") or 0) > 1:
        notes.append(f"attempt {task['attempts']}")
    notes += notes_of(task)
    error = task.get("error") or {}
    if error:
        notes.append(f"{error.get('type')}: {plain(str(error.get('message')))[:200]}")
    name = f"{'  ' * task['id'].count('.')}{task['id']}"
    line = f"  {time.strftime('%H:%M:%S')} {sign} {name:<20} {paint_status(status, f'{status:<9}')}"
    print(f"{line} {'  '.join(notes)}".rstrip(), flush=True)
    if status == "WAITING":
        _say_who_decides(client, run, task)
        _say_what_is_awaited(run, task)


def _say_what_is_awaited(run: dict[str, Any], task: dict[str, Any]) -> None:
    for waiting in run.get("waiting") or []:
        if waiting["task"] != task["id"]:
            continue
        if waiting["kind"] == "signal":
            print(
                f"           send it: pinflow executions signal {run['id']} {waiting['signal']}", flush=True
            )
        if waiting["kind"] == "slot":
            print(f"           waits for its turn in {plain(waiting['group'])}", flush=True)


def _say_who_decides(client: Client, run: dict[str, Any], task: dict[str, Any]) -> None:
    for request in client.pages("/approvals", 100, status="PENDING", execution_id=run["id"]):
        if request["execution_id"] == run["id"] and request["task"] == task["id"]:
            print(f"           {plain(request.get('message') or '')}")
            print(f"           answer it: pinflow approvals approve {request['id']}  (or reject)", flush=True)


def _end(run: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(run)
    else:
        print(f"  {paint_status(run['status'], run['status'])}", flush=True)
        error = run.get("error")
        if error:
            print(f"  {error.get('task') or 'run'}: {error.get('type')}: {plain(str(error.get('message')))}")
        if run.get("outputs") is not None:
            print_json(run["outputs"])
    return 0 if run["status"] == "COMPLETED" else 1
