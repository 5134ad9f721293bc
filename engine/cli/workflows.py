"""`pinflow workflows`: what is live, and which versions were."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import (
    add_limit_option,
    add_output_option,
    plain,
    print_facts,
    print_json,
    short,
    show_list,
    when,
)

HELP = """
Workflows that a source has deployed.

  pinflow workflows ls                 the live ones
  pinflow workflows show release       one, with its inputs and triggers
  pinflow workflows versions release   every version, newest first, with the commit that brought it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("ls", help="the live workflows")
    add_limit_option(listing)
    show = verbs.add_parser("show", help="one workflow")
    show.add_argument("name", help="its name, or source/name")
    versions = verbs.add_parser("versions", help="its versions, newest first")
    versions.add_argument("name", help="its name, or source/name")
    add_limit_option(versions)
    for verb in (listing, show, versions):
        add_output_option(verb)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    client = Client.from_environment()
    if args.verb == "ls":
        return show_list(
            args,
            client.pages("/workflows", args.limit),
            [
                ("NAME", lambda w: w["name"]),
                ("SOURCE", lambda w: w.get("source")),
                ("VERSION", lambda w: w.get("version")),
                ("COMMIT", lambda w: short(w.get("commit_sha"))),
                ("DESCRIPTION", lambda w: (w.get("description") or "")[:60]),
            ],
            "no workflow is live (pinflow sync status says why)",
        )
    if args.verb == "versions":
        return show_list(
            args,
            client.pages(f"/workflows/{segment(args.name)}/versions", args.limit),
            [
                ("COMMIT", lambda v: short(v.get("commit_sha"))),
                ("DIGEST", lambda v: short(v.get("digest"))),
                ("VERSION", lambda v: v.get("version")),
                ("LIVE", lambda v: "live" if v.get("live") else ""),
                ("PATH", lambda v: v.get("path")),
            ],
            "no version",
        )
    found = client.get(f"/workflows/{segment(args.name)}")
    if args.output == "json":
        print_json(found)
        return 0
    facts = [(name, value) for name, value in found.items() if name != "triggers"]
    print_facts([(name, when(value) if name.endswith("_at") else value) for name, value in facts])
    for trigger in found.get("triggers") or ():
        print(plain(f"trigger {trigger['id']}: {_trigger(trigger)}"))
    return 0


def _trigger(trigger: dict[str, Any]) -> str:
    """What starts the workflow, what came of it the last time, what comes next, and what is wrong."""
    cron = trigger.get("cron") or ""
    times = cron if isinstance(cron, str) else ", ".join(cron)
    told = [
        f"POST {trigger['path']}"
        if trigger.get("path")
        else f"{times} {trigger.get('timezone') or ''}".strip()
    ]
    if trigger.get("paused"):
        told.append("paused in Temporal")
    if following := trigger.get("next"):
        told.append(f"next {when(following[0])}")
    if last := trigger.get("last"):
        why = f" ({last['reason']})" if last.get("reason") else ""
        told.append(f"last {when(last['at'])} {last['status']}{why}")
    if trigger["status"] != "APPLIED" and (trigger.get("message") or not trigger.get("path")):
        told.append(f"{trigger['status']} {trigger.get('message') or ''}".strip())
    return "; ".join(told)
