"""`pinflow plan`: what a range of commits would do, before it is merged."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.pipelines import comment, pipeline
from engine.dsl.activity_types import ActivityTypes
from engine.errors import InvalidInput
from engine.planning.planner import make_plan
from engine.planning.plans import LEVELS, Plan, from_json
from engine.planning.reports import FORMATS, MARKER, as_markdown

if TYPE_CHECKING:
    from engine.sync.clone import Comparison

HELP = """
Tell what the commits BASE..HEAD would do to each definition: changes of meaning, not of text, each with its risk, the
worst first. It reads the commits of the clone that you stand in, not your work tree, and needs no server.

  pinflow plan main..HEAD                     what this branch would do
  pinflow plan main...HEAD                    the same, without what main has got since the branch began
  pinflow plan main..HEAD --server            and what it would meet on the server: what is live, which runs are open,
                                              which recorded runs would go another way; no task is called
  pinflow plan auto --comment                 in a pipeline of GitHub, GitLab or Gitea: what the pull request would do,
                                              as a comment on it that the next plan replaces

Definitions with problems are told as `pinflow validate` tells them, with exit code 1. Without a problem the exit code
is 0, whatever the risks are, unless --fail-on names one.
"""
DEFAULT_FOLDER = "workflows"
AUTO = "auto"
"""The range that a pipeline is about."""
_SHOWN = 5
_MAX_REQUEST = 1024 * 1024
"""Bytes that a server takes at once."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "range", metavar="BASE..HEAD", help="two commits; HEAD may be left out; `auto` in a pipeline"
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help=f"folders of sources, or files (default: {DEFAULT_FOLDER})"
    )
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="default: text")
    parser.add_argument(
        "--server", nargs="?", const="", metavar="URL",
        help="ask a server what the change would meet (default: the one of PINFLOW_URL)",
    )  # fmt: skip
    parser.add_argument(
        "--source", default="", help="with --server: one source; all that have the name otherwise"
    )
    parser.add_argument(
        "--comment", action="store_true", help="in a pipeline: put the plan on the pull request as a comment"
    )
    parser.add_argument(
        "--fail-on", choices=("high", "medium", "low"), metavar="LEVEL",
        help="end with exit code 1 if a change is as risky as this: high, medium or low",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Plan and print. 1 if the head is invalid, or riskier than `--fail-on` allows."""
    from engine.sync.clone import open_clone

    place = pipeline(os.environ) if args.range == AUTO or args.comment else None
    with open_clone(Path.cwd()) as clone:
        asked = args.range
        if place is not None and args.range == AUTO:
            asked = place.range(clone.is_merge)
        commits, paths = clone.resolve(asked), args.paths or [DEFAULT_FOLDER]
        comparison = clone.compare(commits, paths)
        uncommitted = clone.uncommitted(commits, paths)
    plan = make_plan(
        comparison.base, comparison.head, comparison.files,
        types=ActivityTypes.default(), names=comparison.names, problems=comparison.problems,
    )  # fmt: skip
    if args.server is not None and not plan.problems:
        plan = _on_server(args, comparison)
    if uncommitted:
        plan = replace(plan, notes=(*plan.notes, _not_counted(uncommitted)))
    print(FORMATS[args.format](plan), end="")
    if args.comment and place is not None:
        sys.stdout.flush()
        comment(place, MARKER, as_markdown(plan))
    if plan.problems:
        return 1
    risky = args.fail_on is not None and LEVELS.index(plan.level) <= LEVELS.index(args.fail_on)
    return 1 if risky else 0


def _not_counted(paths: list[str]) -> str:
    shown = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
    return f"what is not committed does not count: {shown}"


def _on_server(args: argparse.Namespace, comparison: Comparison) -> Plan:
    """The same plan, made by a server, with what it would meet there."""
    from engine.cli.client import Client

    client = Client.from_environment(args.server)
    asked = {
        "base": comparison.base,
        "head": comparison.head,
        "files": [
            {
                "path": file.path,
                "old": _text(file.old),
                "new": _text(file.new),
                "functions": list(file.functions),
                "folder": file.folder,
            }
            for file in comparison.files
        ],
        "source": args.source,
    }
    if len(json.dumps(asked)) > _MAX_REQUEST:
        raise InvalidInput(
            f"the definitions that differ have more than {_MAX_REQUEST} bytes",
            hint="name some of them as PATH",
        )
    return replace(from_json(client.post("/plan", asked)), server=client.url)


def _text(content: bytes | None) -> str | None:
    """As JSON takes it. The head's files are UTF-8, since they are valid; one of the base that is not says nothing."""
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None
