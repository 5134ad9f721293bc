"""`pinflow approvals`: requests that wait for people, and their answers."""

from __future__ import annotations

import argparse
import json
from typing import Any

from engine.cli.client import Client, segment
from engine.cli.output import add_limit_option, add_output_option, print_json, short, show_list, when
from engine.errors import InvalidInput

HELP = """
Requests that wait for people.

  pinflow approvals ls                              what waits
  pinflow approvals approve ID --comment "go"       by the id of the request, or of the run if it has one request
  pinflow approvals reject ID --comment "not yet"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("ls", help="requests, those that wait by default")
    listing.add_argument(
        "--status", default="PENDING", type=str.upper, help="PENDING (the default), APPROVED, ... or ALL"
    )
    add_limit_option(listing)
    approve = verbs.add_parser("approve", help="say yes")
    reject = verbs.add_parser("reject", help="say no")
    for verb in (approve, reject):
        verb.add_argument("id", help="the request's id, or its run's")
        verb.add_argument("--comment", default="", help="kept with the decision")
        verb.add_argument(
            "--form", default="", metavar="JSON", help="the answers that the request asks for, as an object"
        )
    for verb in (listing, approve, reject):
        add_output_option(verb)


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    client = Client.from_environment()
    if args.verb == "ls":
        status = "" if args.status == "ALL" else args.status
        return show_list(
            args,
            client.pages("/approvals", args.limit, status=status),
            [
                ("ID", lambda a: a["id"]),
                ("WORKFLOW", lambda a: a["workflow"]),
                ("TASK", lambda a: a["task"]),
                ("COMMIT", lambda a: short(a.get("commit_sha"))),
                ("STATUS", lambda a: a["status"]),
                ("SINCE", lambda a: when(a.get("requested_at"))),
                ("MESSAGE", lambda a: (a.get("message") or "")[:60]),
            ],
            "nothing waits for anybody",
        )
    body: dict[str, Any] = {"decision": args.verb, "comment": args.comment}
    if args.form:
        body["form"] = _form(args.form)
    request = _request(client, args.id)
    said = client.post(f"/approvals/{segment(request)}/approve", body)
    if args.output == "json":
        print_json(said)
    else:
        print(f"{request}: {said.get('status') or args.verb}")
    return 0


def _form(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"--form is not JSON: {error}") from error


def _request(client: Client, named: str) -> str:
    """The id of the request: as named, or the one that waits in the run of that id."""
    waiting = client.pages("/approvals", 100, status="PENDING", execution_id=named)
    own = [request["id"] for request in waiting if request["execution_id"] == named]
    if len(own) > 1:
        raise InvalidInput(f"run {named} has {len(own)} requests", hint=f"name one of them: {', '.join(own)}")
    return own[0] if own else named
