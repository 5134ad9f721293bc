"""`pinflow sync`: the watched repositories and how they stand."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import add_output_option, plain, print_json, print_table, short, when

HELP = """
The repositories that are watched, what is live of each, and what is wrong.

  pinflow sync status     condition, live commit and, for a commit that was refused, file:line:column of every fault
  pinflow sync now        look at the remotes now; do not wait for the next poll
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    status = verbs.add_parser("status", help="how every source stands")
    now = verbs.add_parser("now", help="look at the remotes now")
    now.add_argument("source", nargs="?", default="", help="one source; all if none is named")
    for verb in (status, now):
        add_output_option(verb)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    client = Client.from_environment()
    sources = list(client.pages("/sources", 1000))
    if args.verb == "now":
        return _now(args, client, sources)
    if args.output == "json":
        print_json(sources)
    elif not sources:
        print(
            "no repository is watched (pinflow up --repo PATH, or PINFLOW_SOURCES for `pinflow serve sync`)"
        )
    else:
        _show(client, sources)
    return 0


def _now(args: argparse.Namespace, client: Client, sources: list[dict[str, Any]]) -> int:
    names = [args.source] if args.source else [source["name"] for source in sources]
    said = [client.post(f"/sources/{segment(name)}/sync") for name in names]
    if args.output == "json":
        print_json(said)
    else:
        print(f"asked for: {', '.join(names) or 'nothing is watched'}")
    return 0


def _show(client: Client, sources: list[dict[str, Any]]) -> None:
    print_table(
        sources,
        [
            ("SOURCE", lambda s: s["name"]),
            ("CONDITION", lambda s: s.get("condition")),
            ("REASON", lambda s: s.get("reason")),
            ("LIVE", lambda s: short(s.get("live_sha"))),
            ("SEEN", lambda s: short(s.get("observed_sha"))),
            ("CHECKED", lambda s: when(s.get("checked_at"))),
            ("URL", lambda s: f"{s.get('url')} {s.get('branch')}:{s.get('folder')}"),
        ],
    )
    for source in sources:
        if source.get("message"):
            print(f"\n{source['name']}: {plain(source['message'])}")
        if source.get("observed_sha") and source.get("observed_sha") != source.get("live_sha"):
            _show_problems(client, source)


def _show_problems(client: Client, source: dict[str, Any]) -> None:
    """The faults of the newest revision, if it was refused."""
    newest = next(iter(client.pages("/revisions", 1, source=source["name"])), None)
    if newest is None or newest["status"] != "REJECTED":
        return
    print(f"\n{short(newest['sha'])} {plain(newest.get('subject') or '')}: refused, nothing live was changed")
    for fault in newest.get("problems") or []:
        hint = f" ({fault['hint']})" if fault.get("hint") else ""
        place = f"{fault['file']}:{fault['line']}:{fault['column']}"
        print(plain(f"  {place}: {fault['code']} {fault['message']}{hint}"))
