"""`pinflow executions`: runs and their tasks."""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import (
    add_limit_option,
    add_output_option,
    paint_status,
    plain,
    print_facts,
    print_json,
    print_table,
    short,
    show_list,
    when,
)
from engine.errors import InvalidInput

_SHOWN_APART = (
    *("tasks", "error", "approvals", "version_id", "closure", "waiting", "children", "reruns", "signals"),
    "task_count",
)

HELP = """
Runs and their tasks.

  pinflow executions ls --status RUNNING     what is under way
  pinflow executions ls --commit 4f2c91ab    what ran on that commit
  pinflow executions show ID                 one run with its tasks, attempts and errors
  pinflow executions tasks ID --under build  the tasks inside of a map, loop or group
  pinflow executions tree ID                 the run and all that it started
  pinflow executions watch ID                follow it; exit code 1 unless it completes
  pinflow executions cancel ID               end it; its clean-up runs, unless it is cancelled twice
  pinflow executions pause ID                begin nothing new; `resume ID` goes on
  pinflow executions signal ID NAME          tell it what a task waits for, now or later
  pinflow executions rerun ID --from-failed  do it once more, and keep what is still good
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("ls", help="runs, newest first")
    listing.add_argument("--workflow", default="", metavar="NAME")
    listing.add_argument("--commit", default="", metavar="SHA")
    listing.add_argument("--status", default="", metavar="STATUS", type=str.upper)
    listing.add_argument("--parent", default="", metavar="ID", help="the children of a run")
    listing.add_argument("--root", default="", metavar="ID", help="all that a run started, however deep")
    listing.add_argument("--rerun-of", default="", metavar="ID", help="the reruns of a run")
    add_limit_option(listing)
    show = verbs.add_parser("show", help="one run with its tasks")
    tasks = verbs.add_parser("tasks", help="the tasks of a run, inner ones too")
    tasks.add_argument(
        "--under",
        default="",
        metavar="ADDRESS",
        help="those inside of a task, or of an item of it: rollout[3]",
    )
    tasks.add_argument("--status", default="", metavar="STATUS", type=str.upper)
    tree = verbs.add_parser("tree", help="a run and all that it started")
    watch = verbs.add_parser("watch", help="follow a run to its end")
    cancel = verbs.add_parser("cancel", help="end a run, and all that it started")
    pause = verbs.add_parser("pause", help="begin nothing new; clocks and decisions go on")
    resume = verbs.add_parser("resume", help="end a pause")
    for verb in (cancel, pause, resume):
        verb.add_argument("--reason", default="", help="kept in the audit")
    signal = verbs.add_parser("signal", help="tell a run what a task waits for")
    rerun = verbs.add_parser("rerun", help="do a run once more, as a run of its own")
    every = (show, tasks, tree, watch, cancel, pause, resume, signal, rerun)
    for verb in every:
        verb.add_argument("id", help="the run's id")
    add_limit_option(tasks)
    _configure_signal(signal)
    _configure_rerun(rerun)
    for verb in (listing, *every):
        add_output_option(verb)


def _configure_signal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the signal's name, as a task of the workflow says it")
    parser.add_argument("--payload", metavar="JSON", default="", help='such as \'{"ticket": "OPS-7"}\'')
    parser.add_argument("--payload-file", metavar="F", type=Path, help="a JSON file that holds the payload")
    parser.add_argument("--correlation", metavar="TEXT", default="", help="which of several tasks is meant")
    _add_key(parser, "the same key never sends a second signal")


def _configure_rerun(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at",
        metavar="REF",
        default="same",
        help="same (the default: all that the old run was pinned to), latest, or a commit",
    )
    parser.add_argument(
        "--from-failed",
        action="store_true",
        help="keep what the old run had completed, wherever definition and inputs are still the same",
    )
    parser.add_argument("--wait", action="store_true", help="follow the new run to its end")
    _add_key(parser, "the same key never starts a second run")


def _add_key(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--idempotency-key",
        metavar="KEY",
        default="",
        help=f"{what}; without it a new one is made for this call",
    )


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    return _VERBS[args.verb](args, Client.from_environment())


def _list(args: argparse.Namespace, client: Client) -> int:
    query = {
        "workflow": args.workflow,
        "commit_sha": args.commit,
        "status": args.status,
        "parent": args.parent,
        "root": args.root,
        "rerun_of": args.rerun_of,
    }
    return show_list(
        args,
        client.pages("/executions", args.limit, **query),
        [
            ("ID", lambda r: r["id"]),
            ("WORKFLOW", lambda r: r["workflow"]),
            ("COMMIT", lambda r: short(r["commit_sha"])),
            ("STATUS", lambda r: r["status"]),
            ("STARTED BY", lambda r: r.get("started_by")),
            ("CREATED", lambda r: when(r.get("created_at"))),
        ],
        "no run",
    )


def _tasks(args: argparse.Namespace, client: Client) -> int:
    path = f"/executions/{segment(args.id)}/tasks"
    found = client.pages(path, args.limit, under=args.under, status=args.status)
    return show_list(args, found, _TASK_COLUMNS, "no task")


def _watch(args: argparse.Namespace, client: Client) -> int:
    from engine.cli.watching import follow

    return follow(client, args.id, as_json=args.output == "json")


def _tree(args: argparse.Namespace, client: Client) -> int:
    from engine.cli.family import show_tree

    return show_tree(client, args.id, as_json=args.output == "json")


_SAID = {"cancel": "cancellation asked for", "pause": "paused", "resume": "goes on"}


def _steer(args: argparse.Namespace, client: Client) -> int:
    said = client.post(f"/executions/{segment(args.id)}/{args.verb}", {"reason": args.reason})
    if args.output == "json":
        print_json(said)
    else:
        print(f"{args.id}: {_SAID[args.verb]}")
    return 0


def _signal(args: argparse.Namespace, client: Client) -> int:
    body = {"name": args.name, "payload": _payload(args), "correlation": args.correlation}
    key = args.idempotency_key or str(uuid.uuid4())
    said = client.start(f"/executions/{segment(args.id)}/signal", body, key)
    if args.output == "json":
        print_json(said)
    else:
        print(f"{args.id}: {args.name} was {'sent before' if said['repeated'] else 'sent'}")
    return 0


def _payload(args: argparse.Namespace) -> Any:
    text, name = args.payload, "--payload"
    if args.payload_file:
        name = str(args.payload_file)
        try:
            text = args.payload_file.read_text()
        except OSError as error:
            raise InvalidInput(f"{name} cannot be read: {error.strerror}") from error
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{name} is not JSON: {error}", hint="text needs quotes: '\"text\"'") from error


def _rerun(args: argparse.Namespace, client: Client) -> int:
    body = {"ref": args.at, "from_failed": args.from_failed}
    key = args.idempotency_key or str(uuid.uuid4())
    said = client.start(f"/executions/{segment(args.id)}/rerun", body, key)
    if args.output == "json" and not args.wait:
        print_json(said)
    if args.output != "json":
        print(f"{said['id']}  {said['workflow']} at {short(said['commit_sha'])}, once more")
        print_table(
            said["tasks"],
            [
                ("TASK", lambda t: t["task"]),
                ("", lambda t: "reused" if t["verdict"] == "reuse" else "runs"),
                ("WHY", lambda t: t["reason"]),
            ],
        )
    if not args.wait:
        if args.output != "json":
            print(f"  follow it: pinflow executions watch {said['id']}")
        return 0
    from engine.cli.watching import follow

    return follow(client, said["id"], as_json=args.output == "json")


def _show(args: argparse.Namespace, client: Client) -> int:
    found = client.get(f"/executions/{segment(args.id)}")
    if args.output == "json":
        print_json(found)
        return 0
    tasks = found.get("tasks") or []
    facts = [(name, value) for name, value in found.items() if name not in _SHOWN_APART]
    print_facts([(name, when(value) if name.endswith("_at") else value) for name, value in facts])
    if error := found.get("error"):
        print(f"\n{error.get('task') or 'the run'}: {error.get('type')}: {plain(str(error.get('message')))}")
    for request in found.get("approvals") or []:
        _show_approval(request)
    for each in found.get("waiting") or []:
        if each["kind"] == "signal":
            show_awaited_signal(found["id"], each)
    if tasks:
        print()
        print_table(tasks, _TASK_COLUMNS)
    left = (found.get("task_count") or 0) - len(tasks)
    if left > 0:
        print(f"and {left} tasks inside of them: pinflow executions tasks {found['id']} --under TASK")
    _show_relatives("CHILD", found.get("children") or [])
    _show_relatives("RERUN", found.get("reruns") or [])
    return 0


def show_awaited_signal(execution_id: str, waiting: dict[str, Any]) -> None:
    """Which signal a task waits for, and how it is sent."""
    about = f" --correlation {waiting['correlation']}" if waiting.get("correlation") else ""
    print(f"\n{waiting['task']}: waits for the signal {waiting['signal']}")
    print(f"  send it: pinflow executions signal {execution_id} {waiting['signal']}{about}")
    if waiting.get("callback_url"):
        print(f"  or have it POSTed to {waiting['callback_url']}")


def _show_relatives(heading: str, runs: list[dict[str, Any]]) -> None:
    if not runs:
        return
    print()
    print_table(
        runs,
        [
            (heading, lambda r: r["id"]),
            ("OF TASK", lambda r: r.get("task")),
            ("WORKFLOW", lambda r: r["workflow"]),
            ("STATUS", lambda r: r["status"]),
            ("CREATED", lambda r: when(r.get("created_at"))),
        ],
    )


def _show_approval(request: dict[str, Any]) -> None:
    asked = plain(request.get("message") or "")
    print(f"\n{request['task']}: {asked}  {paint_status(request['status'], request['status'])}")
    for vote in request.get("decisions") or []:
        said = f": {vote['comment']}" if vote.get("comment") else ""
        print(plain(f"  {when(vote.get('at'))} {vote['by']} said {vote['decision']}{said}"))
    if request["status"] == "PENDING":
        until = f", until {when(request['deadline_at'])}" if request.get("deadline_at") else ""
        print(f"  answer it{until}: pinflow approvals approve {request['id']}  (or reject)")


def _note(task: dict[str, Any]) -> str:
    error = task.get("error")
    if error:
        return f"{error.get('type')}: {error.get('message')}"[:100]
    return "  ".join(notes_of(task))


def notes_of(task: dict[str, Any]) -> list[str]:
    """What there is to say of a task besides its status and its error."""
    notes = []
    if task.get("skip_reason"):
        notes.append(f"skipped: {task['skip_reason']}")
    if items := task.get("items"):
        failed = f", {items['failed']} failed" if items["failed"] else ""
        notes.append(f"{items['completed']} of {items['total']} done{failed}")
    for name, said in (("cached_from", "from the cache"), ("reused_from", "reused"), ("child_id", "child")):
        if task.get(name):
            notes.append(f"{said}: {task[name]}")
    if task.get("compensation"):
        notes.append(f"undone: {task['compensation']}")
    return notes


_TASK_COLUMNS: list[tuple[str, Callable[[Any], Any]]] = [
    ("TASK", lambda t: t["id"]),
    ("STATUS", lambda t: t["status"]),
    ("ATTEMPTS", lambda t: t.get("attempts") or ""),
    ("STARTED", lambda t: when(t.get("started_at"))),
    ("FINISHED", lambda t: when(t.get("finished_at"))),
    ("NOTE", _note),
]

_VERBS: dict[str, Callable[[argparse.Namespace, Client], int]] = {
    "ls": _list,
    "show": _show,
    "tasks": _tasks,
    "tree": _tree,
    "watch": _watch,
    "cancel": _steer,
    "pause": _steer,
    "resume": _steer,
    "signal": _signal,
    "rerun": _rerun,
}
