"""`pinflow promote`: what is live in one source, committed to another."""

from __future__ import annotations

import argparse
import uuid

from engine.cli.client import Client, segment
from engine.cli.output import add_output_option
from engine.cli.propose import add_message_options, tell

HELP = """
Have the server make the commit that brings what is live of a workflow in one source to another, such as from staging to
production: the same bytes, on a branch of its own (or, with --direct, on the target's branch itself, if nobody was
faster). You are the author. It is live once the target's daemon has registered the commit.

  pinflow promote release --from staging --to production
  pinflow promote release --from staging --to production --with-functions --pull-request
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="the workflow")
    parser.add_argument("--from", dest="origin", required=True, metavar="SOURCE", help="where it is live")
    parser.add_argument("--to", dest="target", required=True, metavar="SOURCE", help="where it is to be live")
    parser.add_argument("--direct", action="store_true", help="commit to the target's branch itself")
    parser.add_argument(
        "--with-functions", action="store_true", help="bring its functions along, where they are others"
    )
    add_message_options(parser)
    add_output_option(parser)


def run(args: argparse.Namespace) -> int:
    """Promote it, and say where the commit stands."""
    asked = {
        "from_source": args.origin,
        "to_source": args.target,
        "direct": args.direct,
        "with_functions": args.with_functions,
        "message": args.message,
        "pull_request": args.pull_request,
    }
    path = f"/workflows/{segment(args.name)}/promote"
    return tell(args, Client.from_environment().start(path, asked, uuid.uuid4().hex))
