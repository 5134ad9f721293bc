"""`pinflow history`: every version of a workflow, and how it did."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import add_limit_option, add_output_option, short, show_list, when

HELP = """
Every version of a workflow that was live, newest first: the commit and the pull request that brought it, who wrote and
signed it, how many runs it had and how many of them failed. A version that a revert restored is marked; its runs are
those of all the times at which it was live.

  pinflow history release                  the whole story
  pinflow history production/release       of one source, where several have the name
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="its name, or source/name")
    add_limit_option(parser)
    add_output_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    client = Client.from_environment()
    return show_list(
        args,
        client.pages(f"/workflows/{segment(args.name)}/versions", args.limit),
        [
            ("SINCE", lambda v: when(v["from_at"])),
            ("COMMIT", lambda v: short(v["from_sha"])),
            ("STATE", _state),
            ("VERSION", lambda v: v["version"]),
            ("AUTHOR", lambda v: v["author"]),
            ("SIGNER", lambda v: v.get("signer")),
            ("PR", lambda v: v["pull_request"] and f"#{v['pull_request']}"),
            ("RUNS", lambda v: v["runs"]),
            ("FAILED", _failed),
            ("SUBJECT", lambda v: v["subject"][:60]),
        ],
        "no version",
    )


def _state(version: dict[str, Any]) -> str:
    states = ["live"] if version["live"] else []
    return ", ".join([*states, f"as of {short(version['commit_sha'])}"] if version["restored"] else states)


def _failed(version: dict[str, Any]) -> str:
    rate = version["failure_rate"]
    return "" if rate is None else f"{version['runs_failed']} ({rate:.0%})"
