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
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("ls", help="rows of the audit")
    listing.add_argument("--commit", default="", metavar="SHA", help="of that commit, full or short")
    add_limit_option(listing, default=200)
    add_output_option(listing)


def run(args: argparse.Namespace) -> int:
    """List the rows."""
    client = Client.from_environment()
    return show_list(
        args,
        client.pages("/audit", args.limit, commit_sha=args.commit),
        [
            ("AT", lambda a: when(a["at"])),
            ("ACTOR", lambda a: a["actor"]),
            ("ACTION", lambda a: a["action"]),
            ("WORKFLOW", lambda a: a.get("workflow")),
            ("COMMIT", lambda a: short(a.get("commit_sha"))),
            ("RUN", lambda a: a.get("execution_id")),
            ("DETAILS", lambda a: _said(a.get("details") or {})),
        ],
        f"nothing happened on {args.commit}" if args.commit else "nothing happened yet",
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
