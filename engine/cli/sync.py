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
  pinflow sync confirm    a commit that is held for its deletions, or for the history it drops, is meant
  pinflow sync retire     retire all that a source deployed which no daemon watches any more
  pinflow sync check      read a file of sources and say what is wrong with it, with no server
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    status = verbs.add_parser("status", help="how every source stands")
    now = verbs.add_parser("now", help="look at the remotes now")
    now.add_argument("source", nargs="?", default="", help="one source; all if none is named")
    confirm = verbs.add_parser("confirm", help="say that a held commit is meant")
    confirm.add_argument("source", help="the source that is held")
    confirm.add_argument(
        "--commit", default="", metavar="SHA", help="the held commit, if it must be that one"
    )
    retire = verbs.add_parser("retire", help="retire all that a source deployed")
    retire.add_argument("source", help="a source that no daemon watches")
    check = verbs.add_parser("check", help="check a file of sources")
    check.add_argument("file", help="the file, as for `pinflow serve sync --sources`")
    for verb in (status, now, confirm, retire):
        add_output_option(verb)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    if args.verb == "check":
        return _check(args.file)
    client = Client.from_environment()
    if args.verb == "retire":
        return _said(args, client.post(f"/sources/{segment(args.source)}/retire"), "retired", "retired")
    sources = list(client.pages("/sources", 1000))
    if args.verb == "confirm":
        return _confirm(args, client, sources)
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


def _confirm(args: argparse.Namespace, client: Client, sources: list[dict[str, Any]]) -> int:
    """Confirm what the person was shown: the commit that the source says it has seen, or the one that was named."""
    seen = next((source["observed_sha"] for source in sources if source["name"] == args.source), "")
    body = {"commit_sha": args.commit or seen or "0000"}
    return _said(args, client.post(f"/sources/{segment(args.source)}/confirm", body), "confirmed", "codes")


def _said(args: argparse.Namespace, answer: dict[str, Any], verb: str, key: str) -> int:
    if args.output == "json":
        print_json(answer)
    else:
        commit = f" {short(answer['commit_sha'])}" if answer.get("commit_sha") else ""
        print(f"{verb} {answer['source']}{commit}: {', '.join(answer[key]) or 'nothing'}")
    return 0


def _check(file: str) -> int:
    from pathlib import Path

    from engine.settings import Settings
    from engine.sync.declarations import read_declarations
    from engine.sync.git_urls import shown_url

    found = read_declarations(Settings(sources=(), sources_file=Path(file)))
    for each in (*found.sources, *found.includes):
        print(f"{each.name}: {each.source.branch} of {shown_url(each.source.url)}, {each.place}")
    return 0


def _show(client: Client, sources: list[dict[str, Any]]) -> None:
    print_table(
        sources,
        [
            ("SOURCE", lambda s: s["name"]),
            ("CONDITION", lambda s: s.get("condition")),
            ("REASON", lambda s: s.get("reason")),
            ("SINCE", lambda s: when(s.get("condition_since"))),
            ("LIVE", lambda s: short(s.get("live_sha"))),
            ("SEEN", lambda s: short(s.get("observed_sha"))),
            ("CHECKED", lambda s: when(s.get("checked_at"))),
            ("URL", lambda s: f"{s.get('url')} {s.get('branch')}:{s.get('folder')}"),
        ],
    )
    for source in sources:
        for warning in source.get("warnings") or ():
            print(f"\n{source['name']}: {plain(warning)}")
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
    """The faults of the newest revision, if it was refused, or some of its files were."""
    seen, live = source.get("observed_sha"), source.get("live_sha")
    if not seen or (seen == live and source.get("condition") != "OutOfSync"):
        return []
    newest = next(iter(client.pages("/revisions", 1, source=source["name"])), None)
    if newest is None:
        return []
    faults: list[dict[str, Any]] = newest.get("problems") or []
    return faults


def _located(fault: dict[str, Any]) -> str:
    """`file:line:column: CODE message (hint)`; a fault of the whole commit has no place."""
    line = f":{fault['line']}:{fault['column']}" if fault.get("line") else ""
    place = f"{fault['file']}{line}: " if fault.get("file") else ""
    hint = f" ({fault['hint']})" if fault.get("hint") else ""
    return f"{place}{fault['code']} {fault['message']}{hint}"


def _minutes_since(checked: str | None) -> int:
    """How long ago, if that is longer than any sensible poll; else 0."""
    if not checked:
        return 0
    minutes = (datetime.now(UTC) - datetime.fromisoformat(checked)).total_seconds() / 60
    return int(minutes) if minutes >= _SILENT_MINUTES else 0
