"""A run and all that it started, as a tree."""

from __future__ import annotations

from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import paint, paint_status, plain, print_json, short

_MOST = 10_000


def show_tree(client: Client, execution_id: str, *, as_json: bool) -> int:
    """Print the run `execution_id` with its descendants."""
    run = client.get(f"/executions/{segment(execution_id)}")
    root = run.get("root_id") or run["id"]
    below: dict[str, list[dict[str, Any]]] = {}
    for each in client.pages("/executions", _MOST, root=root):
        below.setdefault(each["parent_id"], []).append(each)
    for children in below.values():
        children.sort(key=lambda child: (child["created_at"], child["id"]))
    if as_json:
        print_json(_nested(run, below))
        return 0
    print(_line(run))
    _print_below(run["id"], below, "")
    return 0


def _nested(run: dict[str, Any], below: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    names = ("id", "workflow", "commit_sha", "status", "created_at", "finished_at")
    shown = {name: run.get(name) for name in names} | {"task": run.get("parent_task") or ""}
    return shown | {"children": [_nested(child, below) for child in below.get(run["id"], [])]}


def _print_below(execution_id: str, below: dict[str, list[dict[str, Any]]], indent: str) -> None:
    children = below.get(execution_id, [])
    for position, child in enumerate(children):
        last = position + 1 == len(children)
        print(f"{indent}{'└─' if last else '├─'} {plain(child['parent_task'])} → {_line(child)}")
        _print_below(child["id"], below, indent + ("   " if last else "│  "))


def _line(run: dict[str, Any]) -> str:
    status = paint_status(run["status"], run["status"])
    return f"{plain(run['workflow'])} at {short(run['commit_sha'])}  {status}  {paint('grey', run['id'])}"
