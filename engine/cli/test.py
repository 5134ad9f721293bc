"""`pinflow test`: the cases of test files, played offline on the brain that decides real runs."""

from __future__ import annotations

import argparse
import time

from engine.cli.output import add_output_option, print_json
from engine.cli.test_formats import as_json, as_junit, as_text, coverage_text
from engine.dsl.activity_types import ActivityTypes
from engine.errors import Misconfigured, Problem
from engine.testing.cases import CaseFile
from engine.testing.coverage import Coverage
from engine.testing.discovery import Library, find
from engine.testing.driver import Driver
from engine.testing.expectations import differences
from engine.testing.results import CaseResult, FileResult, Session

HELP = """
Test definitions: play the cases of their test files (<name>.test.yaml beside the definition) offline, in skipped time,
on the very state machine that runs in production. Activities answer from mocks, people as the case says. It needs no
server, no database and no network.

A folder stands for all test files in it, subfolders too; a definition for the test files that name its workflow. The
exit code is 1 if a case fails, or a test file or a definition has a problem.
"""
DEFAULT_FOLDER = "workflows"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help=f"test files, definitions and folders (default: {DEFAULT_FOLDER}/)",
    )
    parser.add_argument(
        "-k", dest="keyword", default="", metavar="TEXT", help="only cases with TEXT in `workflow: name`"
    )
    parser.add_argument(
        "--coverage", action="store_true",
        help="show which tasks completed, failed and were skipped, and which `when` went both ways",
    )  # fmt: skip
    parser.add_argument("--junit", metavar="FILE", default="", help="write the results as JUnit XML as well")
    add_output_option(parser)


def run(args: argparse.Namespace) -> int:
    """Play and print. 0 if all is as expected, else 1."""
    session = play(args.paths or [DEFAULT_FOLDER], args.keyword)
    if args.junit:
        try:
            with open(args.junit, "w", encoding="utf-8") as file:
                file.write(as_junit(session))
        except OSError as error:
            raise Misconfigured(f"cannot write {args.junit}: {error.strerror}") from error
    if args.output == "json":
        print_json(as_json(session, with_coverage=args.coverage))
    else:
        print(as_text(session), end="")
        if args.coverage:
            print(coverage_text(session.coverage), end="")
    return 1 if session.bad else 0


def play(paths: list[str], keyword: str = "") -> Session:
    """Play every case at `paths` that has `keyword` in its name."""
    types = ActivityTypes.default()
    library = Library(types)
    session = Session()
    covered: dict[str, Coverage] = {}
    for found in find(paths, library):
        if isinstance(found, Problem):
            session.problems.append(found)
            continue
        case_file = library.load(found)
        session.problems += [each for each in case_file.problems if each not in session.problems]
        if not case_file.problems:
            coverage = _coverage(case_file, covered)
            session.files.append(_play_file(case_file, keyword.lower(), types, coverage))
    session.coverage = list(covered.values())
    if keyword and not any(each.cases for each in session.files):
        session.nothing = keyword
    return session


def _coverage(case_file: CaseFile, covered: dict[str, Coverage]) -> Coverage:
    assert case_file.compiled is not None  # there are no problems
    if case_file.definition not in covered:
        covered[case_file.definition] = Coverage.of(case_file.compiled)
    return covered[case_file.definition]


def _play_file(case_file: CaseFile, keyword: str, types: ActivityTypes, coverage: Coverage) -> FileResult:
    assert case_file.compiled is not None
    driver = Driver(case_file.compiled, types, case_file.children)
    result = FileResult(case_file.file, case_file.workflow)
    for case in case_file.cases:
        if keyword not in f"{case_file.workflow}: {case.name}".lower():
            continue
        began = time.perf_counter()
        trace = driver.play(case)
        coverage.add(trace)
        failures = differences(case, trace, types)
        result.cases.append(CaseResult(case.name, case.line, failures, trace, time.perf_counter() - began))
    return result
