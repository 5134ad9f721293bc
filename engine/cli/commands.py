"""Every command, in one table: what the manual says of it and which module runs it.

A static table keeps `pinflow --help` and the start of every command free of the others' imports.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from dataclasses import dataclass
from types import ModuleType


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As its base, which is made anew for every argument and imports shutil to ask how wide the terminal is."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """As `shutil.get_terminal_size` tells it."""
    told = os.environ.get("COLUMNS", "")
    if told.isdigit() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return 80


@dataclass(frozen=True, slots=True)
class Command:
    """One word after `pinflow`.

    Its module has `HELP` (the text of its own help page), `configure(parser)` and `run(args) -> int`.
    """

    name: str
    summary: str
    group: str
    usage: str = ""

    @property
    def module(self) -> str:
        """The dotted name of the module that runs it."""
        return f"engine.cli.{self.name}"

    def load(self) -> ModuleType:
        """Import the module."""
        return importlib.import_module(self.module)

    def parser(self, module: ModuleType) -> argparse.ArgumentParser:
        """The command's own parser."""
        parser = argparse.ArgumentParser(
            prog=f"pinflow {self.name}",
            description=module.HELP.strip(),
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        module.configure(parser)
        return parser


START = "Start here"
WRITE = "Write workflows (offline: no server, no network)"
RUN = "Run and look (talks to a Pinflow server)"
OPERATE = "Operate"

COMMANDS: tuple[Command, ...] = (
    Command("up", "run everything on this machine: Postgres, Temporal, API, worker, sync", START),
    Command("demo", "show the whole main job on a throw-away repository, each step proved", START),
    Command("init", "write a first working source: a workflow, a function, a hook", START, "[DIR]"),
    Command("validate", "check definitions and say file:line:column of every fault", WRITE, "[PATH...]"),
    Command("test", "play the cases of test files, with mocks and in skipped time", WRITE, "[PATH...]"),
    Command(
        "plan", "what a range of commits would change, how risky it is, what it meets", WRITE, "BASE..HEAD"
    ),
    Command("schema", "print the JSON Schema of definitions, for editors", WRITE),
    Command("graph", "draw a definition as SVG or Mermaid", WRITE, "NAME"),
    Command("workflows", "what is live, and which versions were", RUN, "ls | show | versions"),
    Command("history", "every version of a workflow, who brought it, and how its runs ended", RUN, "NAME"),
    Command("propose", "commit a definition on a branch of its own, to be merged", RUN, "FILE"),
    Command("promote", "commit what is live in one source to another", RUN, "NAME --from SOURCE --to SOURCE"),
    Command("run", "start a run, pinned to the live version or to a commit", RUN, "NAME [-i k=v]"),
    Command(
        "backfill", "start the runs of a schedule's past times", RUN, "NAME --trigger ID --from T --to T"
    ),
    Command("executions", "runs and their tasks", RUN, "ls | show | watch | rerun ..."),
    Command("approvals", "requests that wait for people, and their answers", RUN, "ls | approve | reject"),
    Command("audit", "who did what, by commit", RUN, "ls"),
    Command("sync", "the watched repositories and how they stand", RUN, "status | now"),
    Command("token", "who may call the API", OPERATE, "create | ls | revoke"),
    Command("serve", "one process of a production set-up", OPERATE, "api | worker | sync | all"),
    Command("db", "bring the database to this version's schema", OPERATE, "upgrade"),
)

BY_NAME = {command.name: command for command in COMMANDS}
