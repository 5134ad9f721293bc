"""`pinflow audit`: who did what, by commit."""

from __future__ import annotations

import argparse
import re
from typing import Any

from engine.cli.client import Client
from engine.cli.output import add_limit_option, add_output_option, short, show_list, when

HELP = """
The audit: one row for each change of state, written in the transaction that made it.

  pinflow audit ls --commit 4f2c91ab   what that commit deployed, what ran on it, who started it, who decided what
  pinflow audit ls --run ID            what happened to a run
  pinflow audit ls --actor ada         what somebody did
  pinflow audit ls --action approval.  one kind of action: docs/reference/audit.md lists them
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("ls", help="rows of the audit")
    listing.add_argument("--commit", default="", metavar="SHA", help="of that commit, full or short")
    listing.add_argument("--run", default="", metavar="ID", help="of that run")
    listing.add_argument("--workflow", default="", metavar="NAME", help="of that workflow")
    listing.add_argument("--source", default="", metavar="NAME", help="of that source")
    listing.add_argument("--actor", default="", metavar="NAME", help="of that person, program or process")
    listing.add_argument(
        "--action", default="", metavar="ACTION", help="of that name, or `approval.` for all of a kind"
    )
    add_limit_option(listing, default=200)
    add_output_option(listing)


def run(args: argparse.Namespace) -> int:
    """List the rows."""
    client = Client.from_environment()
    wanted = {name: getattr(args, name) for name in ("workflow", "source", "actor", "action")}
    return show_list(
        args,
        client.pages("/audit", args.limit, commit_sha=args.commit, execution_id=args.run, **wanted),
        [
            ("AT", lambda a: when(a["at"])),
            ("ACTOR", lambda a: a["actor"]),
            ("ACTION", lambda a: a["action"]),
            ("WORKFLOW", lambda a: a.get("workflow")),
            ("COMMIT", lambda a: short(a.get("commit_sha"))),
            ("RUN", lambda a: a.get("execution_id")),
            ("DETAILS", lambda a: _said(a.get("details") or {})),
        ],
        "nothing of that kind happened"
        if any((args.commit, args.run, *wanted.values()))
        else "nothing happened yet",
    )


def _said(details: dict[str, Any]) -> str:
    """The details that a person reads: ids are in the JSON, digests and SHAs are cut short."""
    words = []
    for name, value in details.items():
        if value in (None, "", [], {}, False) or name.endswith("_id"):
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words.append(f"{name}={short(text) if re.fullmatch('[0-9a-f]{40,64}', text) else text}")
    return " ".join(words)
