"""`pinflow serve`: one process of a production set-up."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from engine.settings import Settings

HELP = """
Run one process beside your own Postgres and Temporal, any number of each. Settings are PINFLOW_ variables:
docs/reference/settings.md. SIGTERM and SIGINT drain what is under way, for PINFLOW_DRAIN_TIMEOUT seconds at most.

  pinflow serve api      the HTTP API
  pinflow serve worker   runs workflows and their tasks, and sends what was promised to Temporal
  pinflow serve sync     watches the sources
  pinflow serve all      the three in one process, for small machines
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("part", choices=("api", "worker", "sync", "all"))
    parser.add_argument(
        "--sources", type=Path, metavar="FILE", help="the file of sources, instead of PINFLOW_SOURCES_FILE"
    )
    # For a supervisor that may be killed: its end of the pipe closes with it, and we leave as after SIGTERM.
    parser.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve until asked to end."""
    import asyncio

    from engine.cli.environment import settings

    if args.until_stdin_closes:
        from engine.stack.processes import leave_when_stdin_closes

        leave_when_stdin_closes()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        found = settings()
        if args.sources is not None:
            found = found.model_copy(update={"sources_file": args.sources})
        runner.run(_serve(args.part, found))
    return 0


async def _serve(part: str, settings: Settings) -> None:
    await _root(part)(settings)


def _root(part: str) -> Callable[[Settings], Awaitable[None]]:
    """The composition root of a process. Only what is served is imported."""
    if part == "api":
        from engine.api.serve import run_api

        return run_api
    if part == "worker":
        from engine.worker import run_worker

        return run_worker
    if part == "sync":
        from engine.sync.daemon import run_sync

        return run_sync
    from engine.stack.together import run_all

    return run_all


def _loop_factory() -> Callable[[], AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
