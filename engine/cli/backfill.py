"""`pinflow backfill`: the runs that a schedule would have started."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import add_output_option, print_json, print_table, when
from engine.errors import InvalidInput

HELP = """
Start a run for each scheduled time of a span that has had none: times before the schedule was there, or missed ones.

  pinflow backfill report --trigger nightly --from 2026-11-01 --to 2026-11-08

A run is of the version that is live now; its `trigger.scheduled_at` is the time of the past. A time has one run at most,
whoever asks and however often, so the command can be repeated. `--from` is in the span, `--to` is not. A time without
an offset is read as UTC.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="the workflow's name, or source/name")
    parser.add_argument("--trigger", required=True, metavar="ID", help="the schedule's id in the definition")
    parser.add_argument(
        "--from", dest="since", required=True, metavar="T", help="2026-11-01 or 2026-11-01T06:00+01:00"
    )
    parser.add_argument("--to", dest="until", required=True, metavar="T", help="likewise; not after now")
    add_output_option(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for span after span until the server says that that was all; 1 if a run could not be started."""
    since, until = _time("--from", args.since), _time("--to", args.until)
    client = Client.from_environment()
    path = f"/workflows/{segment(args.name)}/triggers/{segment(args.trigger)}/backfill"
    items: list[dict[str, Any]] = []
    while since:
        answer = client.post(path, {"from": since, "to": until})
        items += answer["items"]
        since = answer["next"]
    if args.output == "json":
        print_json(items)
    elif not items:
        print("the schedule has no time in this span")
    else:
        print_table(
            items,
            [
                ("SCHEDULED", lambda i: when(i["scheduled_at"])),
                ("WHAT", lambda i: "there already" if i["repeated"] else i["status"].lower()),
                ("RUN", lambda i: i["execution_id"] or i["reason"]),
            ],
        )
    return 1 if any(item["status"] == "FAILED" for item in items) else 0


def _time(option: str, text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            f"{option} {text!r} is no time", hint="write 2026-11-01 or 2026-11-01T06:00+01:00"
        ) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
