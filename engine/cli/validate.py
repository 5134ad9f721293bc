"""`pinflow validate`: every problem of every definition, located."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from engine.cli.problem_formats import FORMATS, Report
from engine.dsl import codes, loader
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.definition_files import FUNCTIONS, is_definition
from engine.errors import Problem

HELP = """
Check definitions: their shape, ids and order, expressions, activity types and limits. Prints one line for each
problem, `file:line:column: CODE what is wrong (what to do)`, and ends with exit code 1 if there is any. It needs no
server and no network, and is what the sync daemon does with a commit.

A folder stands for all definitions in it: files *.yaml and *.yml, subfolders too, but for `functions/`, hidden files
and *.test.yaml.
"""
DEFAULT_FOLDER = "workflows"

Check = Callable[[bytes, str], tuple[str, list[Problem]]]
"""From a file's text and its name in problems to the workflow's name and the problems."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help=f"files and folders (default: {DEFAULT_FOLDER}/)"
    )
    parser.add_argument(
        "--format", choices=sorted(FORMATS), default="text",
        help="text (default), json, github (annotations of a workflow run), or sarif (code scanning)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check and print. 0 if there is no problem, else 1."""
    types = ActivityTypes.default()

    def check_all(text: bytes, file: str) -> tuple[str, list[Problem]]:
        checked = check(text, file, types)
        return checked.name, checked.problems

    report = inspect(args.paths or [Path(DEFAULT_FOLDER)], check_all)
    print(FORMATS[args.format](report), end="")
    return 1 if report.problems else 0


def inspect(paths: list[Path], check_one: Check) -> Report:
    """Check every definition at `paths`."""
    names = _Names()
    problems: list[Problem] = []
    count = 0
    for found in _definitions(paths):
        if isinstance(found, Problem):
            problems.append(found)
            continue
        file = found.path.as_posix()
        try:
            # One byte more than is allowed is enough to refuse, however large the file is.
            with found.path.open("rb") as opened:
                text = opened.read(loader.MAX_BYTES + 1)
        except OSError as error:
            problems.append(Problem(codes.UNREADABLE, f"cannot be read: {error.strerror}", file))
            continue
        count += 1
        name, faults = check_one(text, file)
        problems.extend(faults)
        if name and (twice := names.add(found.source, name, file, text)):
            problems.append(twice)
    return Report(count, problems)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file with a definition, and the source in which its name must be unique."""

    path: Path
    source: str


def _definitions(paths: list[Path]) -> Iterator[_Found | Problem]:
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = [
                file
                for file in _walk(path)
                if is_definition(PurePosixPath(file.relative_to(path).as_posix()))
            ]
            if not inside:
                yield Problem(codes.UNREADABLE, "no definitions in this folder", path.as_posix())
            found = [_Found(file, path.as_posix()) for file in inside]
        elif path.is_file():
            # A hook passes whatever changed; what is no definition is passed over.
            found = [] if _is_passed_over(path) else [_Found(path, "")]
        else:
            yield Problem(codes.UNREADABLE, "there is no such file or folder", path.as_posix())
            continue
        for each in found:
            if (real := each.path.resolve()) not in seen:
                seen.add(real)
                yield each


def _walk(folder: Path) -> list[Path]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [file for name in files if (file := Path(place, name)).is_file()]
    return sorted(found)


def _is_passed_over(path: Path) -> bool:
    return path.name.endswith((".test.yaml", ".test.yml")) or FUNCTIONS in path.parts[:-1]


@dataclass(slots=True)
class _Names:
    """Names seen so far, with the place of each."""

    _places: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, source: str, name: str, file: str, text: bytes) -> Problem | None:
        """A problem if the source has the name already."""
        first = self._places.setdefault((source, name), file)
        if first == file:
            return None
        document = loader.load(text, file)
        assert not isinstance(document, list)  # it has a name, so it could be read
        return document.problem(
            codes.DUPLICATE_NAME, f"the workflow `{loader.shown(name)}` stands already in {first}", ("name",),
            hint="names are unique in a source",
        )  # fmt: skip
