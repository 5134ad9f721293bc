"""`pinflow sync`: the watched repositories and how they stand."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import add_output_option, plain, print_json, print_table, short, when

_SILENT_MINUTES = 5

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
        print_json([{**source, "problems": _problems(client, source)} for source in sources])
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
        print(f"\n{source['name']}: {plain(source.get('message') or 'nobody has looked at it yet')}")
        for fault in _problems(client, source):
            print(plain(f"  {_located(fault)}"))
        for trigger in source.get("refused_triggers") or ():
            where = f"{trigger['workflow']}: trigger {trigger['id']}"
            print(plain(f"  {where}: {trigger['message']} (its schedule stands as it was before)"))
        if source.get("action"):
            print(f"  what helps: {source['action']}")
        if untold := source.get("forge"):
            left = f"{untold['waiting']} wait, {untold['parked']} given up"
            print(plain(f"  the forge was not told ({left}): {untold['error']}"))
        if minutes := _minutes_since(source.get("checked_at")):
            print(f"  nobody has looked for {minutes} minutes: does a running sync daemon watch it?")


def _problems(client: Client, source: dict[str, Any]) -> list[dict[str, Any]]:
    """The faults of the newest revision, if it was refused."""
    if not source.get("observed_sha") or source.get("observed_sha") == source.get("live_sha"):
        return []
    newest = next(iter(client.pages("/revisions", 1, source=source["name"])), None)
    if newest is None or newest["status"] != "REJECTED":
        return []
    faults: list[dict[str, Any]] = newest.get("problems") or []
    return faults


def _located(fault: dict[str, Any]) -> str:
    """`file:line:column: CODE message (hint)`; a fault of the whole commit has no place."""
    place = f"{fault['file']}:{fault['line']}:{fault['column']}: " if fault.get("file") else ""
    hint = f" ({fault['hint']})" if fault.get("hint") else ""
    return f"{place}{fault['code']} {fault['message']}{hint}"


def _minutes_since(checked: str | None) -> int:
    """How long ago, if that is longer than any sensible poll; else 0."""
    if not checked:
        return 0
    minutes = (datetime.now(UTC) - datetime.fromisoformat(checked)).total_seconds() / 60
    return int(minutes) if minutes >= _SILENT_MINUTES else 0
