"""`pinflow executions`: runs and their tasks."""

from __future__ import annotations

import argparse
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

_SHOWN_APART = ("tasks", "error", "approvals", "version_id")

HELP = """
Runs and their tasks.

  pinflow executions ls --status RUNNING     what is under way
  pinflow executions ls --commit 4f2c91ab    what ran on that commit
  pinflow executions show ID                 one run with its tasks, attempts and errors
  pinflow executions watch ID                follow it; exit code 1 unless it completes
  pinflow executions cancel ID               end it; its clean-up runs, unless it is cancelled twice
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("ls", help="runs, newest first")
    listing.add_argument("--workflow", default="", metavar="NAME")
    listing.add_argument("--commit", default="", metavar="SHA")
    listing.add_argument("--status", default="", metavar="STATUS", type=str.upper)
    add_limit_option(listing)
    show = verbs.add_parser("show", help="one run with its tasks")
    watch = verbs.add_parser("watch", help="follow a run to its end")
    cancel = verbs.add_parser("cancel", help="end a run")
    cancel.add_argument("--reason", default="", help="kept in the audit")
    for verb in (show, watch, cancel):
        verb.add_argument("id", help="the run's id")
    for verb in (listing, show, watch, cancel):
        add_output_option(verb)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    client = Client.from_environment()
    if args.verb == "ls":
        query = {"workflow": args.workflow, "commit_sha": args.commit, "status": args.status}
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
    if args.verb == "watch":
        from engine.cli.watching import follow

        return follow(client, args.id, as_json=args.output == "json")
    if args.verb == "cancel":
        said = client.post(f"/executions/{segment(args.id)}/cancel", {"reason": args.reason})
        if args.output == "json":
            print_json(said)
        else:
            print(f"{args.id}: cancellation asked for")
        return 0
    return _show(args, client.get(f"/executions/{segment(args.id)}"))


def _show(args: argparse.Namespace, found: dict[str, Any]) -> int:
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
    if tasks:
        print()
        print_table(
            tasks,
            [
                ("TASK", lambda t: t["id"]),
                ("STATUS", lambda t: t["status"]),
                ("ATTEMPTS", lambda t: t.get("attempts") or ""),
                ("STARTED", lambda t: when(t.get("started_at"))),
                ("FINISHED", lambda t: when(t.get("finished_at"))),
                ("NOTE", _note),
            ],
        )
    return 0


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
    return task.get("skip_reason") or ""
