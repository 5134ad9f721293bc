"""`pinflow up`: the whole stack on this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

HELP = """
Run everything on this machine: a real Postgres, a real Temporal, the API, a worker and the sync daemon. Nothing has
to be installed besides Pinflow, and all data stand in one folder.

  pinflow up --repo .                    watch the repository in this folder
  pinflow up --repo https://git.example.test/team/flows.git --branch main --folder workflows
  pinflow up --sources sources.yaml      many repositories, branches and folders: docs/reference/sources-file.md
  pinflow up                             go on as before

Ctrl-C drains and stops. After a crash, kill -9 or a power cut, start it again: it continues where it was.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--repo", default="", metavar="PATH|URL", help="the repository to watch; as last time if not given"
    )
    parser.add_argument("--branch", default="main", help="the branch that is deployed (default main)")
    parser.add_argument(
        "--folder", default="workflows", help="the folder of definitions in it (default workflows)"
    )
    parser.add_argument(
        "--sources",
        type=Path,
        metavar="FILE",
        help="a file of sources to watch, instead of one repository; as last time if not given",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("PINFLOW_DATA_DIR") or ".pinflow"),
        metavar="DIR",
        help="where everything is kept (default .pinflow)",
    )
    parser.add_argument(
        "--port", type=_port, default=0, help="port of the API (default 8000, another if that is taken)"
    )
    parser.add_argument(
        "--separate",
        action="store_true",
        help="API, worker and sync as a process each, as in production (more memory)",
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("must be a number from 1 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run until asked to end."""
    import asyncio

    from engine.stack.processes import leave_when_stdin_closes
    from engine.stack.sources import SourceChoice
    from engine.stack.up import up

    if args.until_stdin_closes:
        leave_when_stdin_closes()

    choice = SourceChoice(repo=args.repo, branch=args.branch, folder=args.folder, file=args.sources)
    asyncio.run(up(args.data, choice, port=args.port, separate=args.separate))
    return 0
