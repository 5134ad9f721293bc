"""`pinflow graph`: a picture of a definition."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.definition_files import is_definition
from engine.dsl.graph import mermaid, svg
from engine.dsl.loader import MAX_BYTES
from engine.errors import InvalidDefinition, Misconfigured, NotFound

HELP = """
Draw a definition: its tasks, what they wait for, and under which conditions they run. It needs no server.

  pinflow graph workflows/release.yaml -o release.svg     a file, as SVG (light or dark as the reader's system is)
  pinflow graph release --format mermaid                  by name, looked up in workflows/; for Markdown
"""
FOLDER = Path("workflows")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "workflow", metavar="PATH|NAME", help="a file, or the name of a workflow in workflows/"
    )
    parser.add_argument("--format", choices=("svg", "mermaid"), default="svg", help="default: svg")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where to write it (default: the terminal)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw it. Raises InvalidDefinition if the definition has problems, NotFound if there is none."""
    compiled = _compiled(args.workflow)
    picture = mermaid(compiled) if args.format == "mermaid" else svg(compiled)
    if args.output is None:
        sys.stdout.write(picture)
        return 0
    try:
        args.output.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{args.output} cannot be written: {error.strerror}") from error
    return 0


def _compiled(named: str) -> dict[str, Any]:
    types = ActivityTypes.default()
    path = Path(named)
    if path.is_file():
        return _checked(path, types)[1]
    names = []
    for file in _definitions():
        name, compiled = _checked(file, types, wanted=named)
        if name == named:
            return compiled
        names.append(name)
    known = ", ".join(sorted(filter(None, names))) or f"no definitions in {FOLDER}/"
    raise NotFound(
        f"there is no file and no workflow {named!r} here", hint=f"there are: {known}" if names else known
    )


def _definitions() -> Iterator[Path]:
    for file in sorted(FOLDER.rglob("*")) if FOLDER.is_dir() else ():
        if file.is_file() and is_definition(file.relative_to(FOLDER).as_posix()):
            yield file


def _checked(path: Path, types: ActivityTypes, *, wanted: str | None = None) -> tuple[str, dict[str, Any]]:
    """The name and the compiled form. A problem is raised only in the workflow that is `wanted` (None: any)."""
    try:
        with path.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
    checked = check(text, path.as_posix(), types)
    if checked.compiled is None and wanted in (None, checked.name):
        raise InvalidDefinition(checked.problems)
    return checked.name, checked.compiled or {}
