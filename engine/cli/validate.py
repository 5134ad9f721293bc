"""`pinflow validate`: every problem of every definition, located."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.cli import shares
from engine.cli.problem_formats import FORMATS, Report
from engine.dsl import codes, loader
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import Checked, check
from engine.dsl.definition_files import FUNCTIONS, TEST_SUFFIXES, is_definition
from engine.errors import Problem

HELP = """
Check definitions: their shape, ids and order, expressions, activity types and limits. Prints one line for each
problem, `file:line:column: CODE what is wrong (what to do)`, and ends with exit code 1 if there is any. It needs no
server and no network, and is what the sync daemon does with a commit.

A folder stands for all definitions in it: files *.yaml and *.yml, subfolders too, but for `functions/`, hidden files
and *.test.yaml. Of a folder it is also checked what its definitions say of each other: that children are there, and that
their inputs fit. The functions that definitions call must stand in `functions/` beside them, or belong to an installed
package that PINFLOW_FUNCTION_PACKAGES names; a lock in it must name one version of each package. A changed file of
`functions/` stands for the definitions beside it that call functions.
"""
DEFAULT_FOLDER = "workflows"
_CALLS_FUNCTIONS = b"python_function"

Check = Callable[[bytes, str], Checked]
"""From a file's text and its name in problems to what there is to say of it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help=f"files and folders (default: {DEFAULT_FOLDER}/)"
    )
    parser.add_argument(
        "--format", choices=sorted(FORMATS), default="text",
        help="text (default), json, github (annotations of a workflow run), or sarif (code scanning)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check and print. 0 if there is no problem, else 1."""
    types = ActivityTypes.default()
    gc.freeze()  # a check leaves hardly a cycle behind: the collector would only look at what was imported
    gc.set_threshold(50_000, 20, 50)

    def check_all(text: bytes, file: str) -> Checked:
        return check(text, file, types)

    report = inspect(args.paths or [DEFAULT_FOLDER], check_all)
    print(FORMATS[args.format](report), end="")
    return 1 if report.problems else 0


def inspect(paths: list[str], check_one: Check) -> Report:
    """Check every definition at `paths`; many of them on all processors."""
    places = list(_definitions(paths))
    files = [each for each in places if isinstance(each, _Found)]
    known: dict[str, Any] = {}
    looks = iter(shares.each(files, lambda found: _look(found, check_one, known)))
    names = _Names()
    problems: list[Problem] = []
    looked: list[_Looked] = []
    for found in places:
        if isinstance(found, Problem):
            problems.append(found)
            continue
        could_be_read, name, faults, starts, functions = next(looks)
        problems.extend(Problem(**fault) for fault in faults)
        if name and (twice := names.add(found.source, name, found.shown, found.path)):
            problems.append(twice)
        if could_be_read:
            looked.append(_Looked(found, name, bool(faults), starts, functions))
    problems += _of_locks(looked)
    problems += _between(looked, check_one)
    return Report(len(looked), problems)


def _look(
    found: _Found, check_one: Check, known: dict[str, Any]
) -> tuple[bool, str, list[dict[str, Any]], list[str], str]:
    """Whether a file could be read, the workflow's name, the problems as JSON, the workflows that it starts, and the
    folder of the functions that it calls. `known` keeps the folders of functions that were read."""
    try:
        text = _read(found.path)
    except OSError as error:
        unreadable = Problem(codes.UNREADABLE, f"cannot be read: {error.strerror}", found.shown)
        return False, "", [unreadable.to_json()], [], ""
    checked = check_one(text, found.shown)
    starts = [call["workflow"] for call in (checked.compiled or {}).get("calls", ())]
    problems, functions = list(checked.problems), ""
    if _CALLS_FUNCTIONS in text:
        from engine.cli.functions_beside import function_problems

        functions, more = function_problems(checked, text, found.path, found.source, found.shown, known)
        problems += more
    return True, checked.name, [fault.to_json() for fault in problems], starts, functions


def _of_locks(looked: list[_Looked]) -> list[Problem]:
    """What is wrong with the locks of the folders `functions/` of the sources, and of those that are called."""
    folders = [each.functions or os.path.join(each.found.source, FUNCTIONS) for each in looked if each.asks]
    problems: list[Problem] = []
    for folder in dict.fromkeys(each for each in folders if os.path.isdir(each)):
        from engine.cli.functions_beside import lock_problems

        problems += lock_problems(folder)
    return problems


def _between(looked: list[_Looked], check_one: Check) -> list[Problem]:
    """What the definitions of each folder say of each other. Only those that others start are looked at again."""
    problems: list[Problem] = []
    for source in dict.fromkeys(each.found.source for each in looked if each.starts and each.found.source):
        from engine.dsl.calls import Definition, check_calls

        here = [each for each in looked if each.found.source == source]
        wanted = {name for each in here for name in each.starts}
        definitions = []
        for each in here:
            if not each.is_wrong and (each.starts or each.name in wanted):
                text = _read(each.found.path)
                compiled = check_one(text, each.found.shown).compiled
                if compiled is not None:  # or it has changed meanwhile
                    definitions.append(Definition(compiled, each.found.shown, text))
        problems += check_calls(definitions, wrong={each.name for each in here if each.is_wrong})
    return problems


def _read(path: str) -> bytes:
    # One byte more than is allowed is enough to refuse, however large the file is.
    with open(path, "rb") as opened:
        return opened.read(loader.MAX_BYTES + 1)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file with a definition, and the source in which its name must be unique."""

    path: str
    source: str

    @property
    def shown(self) -> str:
        """How problems name the file."""
        return self.path.replace(os.sep, "/")


@dataclass(frozen=True, slots=True)
class _Looked:
    """A file that was checked: the workflow's name, whether it has faults, and the workflows that it starts."""

    found: _Found
    name: str
    is_wrong: bool
    starts: list[str]
    functions: str
    """The folder of the functions that it calls, "" if it calls none."""

    @property
    def asks(self) -> bool:
        """Whether a folder `functions/` belongs to it: to a source as a whole, or because it calls functions."""
        return bool(self.functions or self.found.source)


def _definitions(paths: list[str]) -> Iterator[_Found | Problem]:
    seen: set[str] = set()
    callers: dict[str, list[_Found]] = {}
    for path in map(os.path.normpath, paths):
        if os.path.isdir(path):
            found = [_Found(file, path) for file in _inside(path)]
            if not found:
                yield Problem(codes.UNREADABLE, "no definitions in this folder", path)
        elif os.path.isfile(path):
            # A hook passes whatever changed; what is no definition is passed over.
            folder = _functions_around(path)
            if folder and folder not in callers:
                callers[folder] = _callers(folder)
            found = callers[folder] if folder else [_Found(path, "")]
            found = [] if path.endswith(TEST_SUFFIXES) else found
        else:
            yield Problem(
                codes.UNREADABLE, "there is no such file or folder", path,
                hint="name the files or folders: `pinflow validate PATH`" if path == DEFAULT_FOLDER else "",
            )  # fmt: skip
            continue
        for each in found:
            if (real := os.path.realpath(each.path)) not in seen:
                seen.add(real)
                yield each


def _inside(folder: str) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            file = os.path.join(place, name)
            if is_definition(os.path.relpath(file, folder).replace(os.sep, "/")) and os.path.isfile(file):
                found.append(file)
    return sorted(found)


def _functions_around(path: str) -> str:
    """The folder `functions/` that a file is in, "" if it is in none."""
    above = os.path.dirname(path)
    while above and os.path.basename(above) not in (FUNCTIONS, ""):
        above = os.path.dirname(above)
    return above if os.path.basename(above) == FUNCTIONS else ""


def _callers(folder: str) -> list[_Found]:
    """The definitions beside a folder `functions/` that call functions."""
    source = os.path.dirname(folder) or "."
    found = []
    for file in _inside(source):
        try:
            calls = _CALLS_FUNCTIONS in _read(file)
        except OSError:
            continue
        found += [_Found(os.path.normpath(file), "")] if calls else []
    return found


@dataclass(slots=True)
class _Names:
    """Names seen so far, with the place of each."""

    _places: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, source: str, name: str, file: str, path: str) -> Problem | None:
        """A problem if the source has the name already."""
        first = self._places.setdefault((source, name), file)
        if first == file:
            return None
        message = f"the workflow `{loader.shown(name)}` stands already in {first}"
        hint = "names are unique in a source"
        try:
            document = loader.load(_read(path), file)
        except OSError:
            document = []
        if isinstance(document, list):  # it had a name a moment ago
            return Problem(codes.DUPLICATE_NAME, message, file, path="name", hint=hint)
        return document.problem(codes.DUPLICATE_NAME, message, ("name",), hint=hint)
