"""`pinflow plan`: what a range of commits would do, before it is merged."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.dsl.activity_types import ActivityTypes
from engine.planning.planner import make_plan
from engine.planning.plans import LEVELS
from engine.planning.reports import FORMATS

HELP = """
Tell what the commits BASE..HEAD would do to each definition: changes of meaning, not of text, each with its risk, the
worst first. It reads the commits of the clone that you stand in, not your work tree, and needs no server.

  pinflow plan main..HEAD                     what this branch would do
  pinflow plan main...HEAD                    the same, without what main has got since the branch began

Definitions with problems are told as `pinflow validate` tells them, with exit code 1. Without a problem the exit code
is 0, whatever the risks are, unless --fail-on names one.
"""
DEFAULT_FOLDER = "workflows"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("range", metavar="BASE..HEAD", help="two commits; HEAD may be left out")
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help=f"folders of sources, or files (default: {DEFAULT_FOLDER})"
    )
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="default: text")
    parser.add_argument(
        "--fail-on", choices=("high", "medium", "low"), metavar="LEVEL",
        help="end with exit code 1 if a change is as risky as this: high, medium or low",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Plan and print. 1 if the head is invalid, or riskier than `--fail-on` allows."""
    from engine.sync.clone import open_clone

    with open_clone(Path.cwd()) as clone:
        comparison = clone.compare(clone.resolve(args.range), args.paths or [DEFAULT_FOLDER])
    plan = make_plan(
        comparison.base, comparison.head, comparison.files,
        types=ActivityTypes.default(), names=comparison.names, problems=comparison.problems,
    )  # fmt: skip
    print(FORMATS[args.format](plan), end="")
    if plan.problems:
        return 1
    risky = args.fail_on is not None and LEVELS.index(plan.level) <= LEVELS.index(args.fail_on)
    return 1 if risky else 0
