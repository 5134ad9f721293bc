"""`pinflow propose`: a definition, committed on a branch of its own by the server."""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path
from typing import Any

from engine.cli.client import Client
from engine.cli.output import add_output_option, plain, print_facts, print_json
from engine.dsl.loader import MAX_BYTES
from engine.errors import InvalidInput, NotFound

HELP = """
Have the server commit a definition to the repository of a source, on a branch of its own, with you as the author. It is
checked first; nothing is live before somebody merges the branch. One file is touched, and no other.

  pinflow propose release.yaml                          a branch pinflow/proposals/<id>
  pinflow propose release.yaml -m "Wait for approval" --pull-request
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="the definition")
    parser.add_argument("--source", default="", help="where to; needed if several sources could be meant")
    parser.add_argument(
        "--path", default="", help="from the source's folder (default: where it stands, or <name>.yaml)"
    )
    add_message_options(parser)
    add_output_option(parser)


def run(args: argparse.Namespace) -> int:
    """Propose it, and say where it stands."""
    asked = {
        "definition": _text(args.file),
        "source": args.source,
        "path": args.path,
        "title": args.message.partition("\n")[0][:200],
        "message": args.message.partition("\n")[2].strip(),
        "pull_request": args.pull_request,
    }
    return tell(args, Client.from_environment().start("/workflows", asked, uuid.uuid4().hex))


def add_message_options(parser: argparse.ArgumentParser) -> None:
    """`--message` and `--pull-request`, as `promote` has them as well."""
    parser.add_argument("-m", "--message", default="", help="of the commit")
    parser.add_argument(
        "--pull-request", action="store_true", help="open a pull request, if the forge is known"
    )


def tell(args: argparse.Namespace, proposal: dict[str, Any]) -> int:
    """Print a proposal."""
    if args.output == "json":
        print_json(proposal)
        return 0
    names = ("id", "status", "source", "path", "branch", "commit_sha", "url", "error")
    print_facts([(name, proposal.get(name)) for name in names])
    if proposal["status"] == "PROPOSING":
        print("it is not yet on the remote: the sync daemon pushes it as soon as it can")
    elif proposal.get("pull_request") and not proposal.get("url"):
        why = proposal.get("pull_request_error")
        print(
            plain(f"the pull request is not open yet: {why}" if why else "the pull request is being opened")
        )
    return 0


def _text(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"{file} has more than {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8: byte {error.start}") from error
