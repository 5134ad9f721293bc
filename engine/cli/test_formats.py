"""Results of `pinflow test` for people, programs and CI (JUnit XML)."""

from __future__ import annotations

import re
from typing import Any

from engine.cli.output import paint, plain
from engine.testing.coverage import Coverage
from engine.testing.results import FileResult, Session

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_text(session: Session) -> str:
    """The problems, each case on a line with its differences below, and a line to sum up."""
    lines = [str(problem) for problem in session.problems]
    for each in session.files:
        if each.cases:
            lines += _file(each)
    if session.nothing:
        lines.append(f"no case has `{plain(session.nothing)}` in its name")
    lines.append(_sum(session))
    return "\n".join(lines) + "\n"


def _file(each: FileResult) -> list[str]:
    lines = [paint("bold", f"{each.file}  {each.workflow}")]
    for case in each.cases:
        if not case.failures:
            lines.append(f"  {paint('green', 'ok')}    {plain(case.name)}")
            continue
        lines.append(f"  {paint('red', 'FAIL')}  {plain(case.name)}  ({each.file}:{case.line})")
        lines += [f"    {failure}" for failure in case.failures]
    return lines


def _sum(session: Session) -> str:
    parts = [f"{session.passed} passed"]
    parts += [f"{session.failed} failed"] if session.failed else []
    count = len(session.problems)
    parts += [f"{count} problem{'' if count == 1 else 's'}"] if count else []
    files = len([each for each in session.files if each.cases])
    return f"{', '.join(parts)} in {files} file{'' if files == 1 else 's'}"


def as_json(session: Session, *, with_coverage: bool) -> dict[str, Any]:
    """`{passed, failed, problems: [...], files: [{file, workflow, cases: [{name, line, passed, failures, ...}]}]}`."""
    told: dict[str, Any] = {
        "passed": session.passed,
        "failed": session.failed,
        "problems": [problem.to_json() for problem in session.problems],
        "files": [
            {
                "file": each.file,
                "workflow": each.workflow,
                "cases": [
                    {
                        "name": case.name,
                        "line": case.line,
                        "passed": not case.failures,
                        "failures": case.failures,
                        "status": case.trace.status,
                        "took": case.trace.took,
                        "path": case.trace.path,
                    }
                    for case in each.cases
                ],
            }
            for each in session.files
        ],
    }
    if with_coverage:
        told["coverage"] = [_coverage_json(each) for each in session.coverage]
    return told


def _coverage_json(coverage: Coverage) -> dict[str, Any]:
    return {
        "workflow": coverage.workflow,
        "met": coverage.met,
        "total": coverage.total,
        "ends": coverage.ends,
        "tasks": [
            {
                "id": task.id,
                "completed": task.completed,
                "failed": task.failed,
                "skipped": task.skipped,
                "cancelled": task.cancelled,
                "missing": [name for name, met in task.branches().items() if not met],
            }
            for task in coverage.tasks
        ],
    }


def coverage_text(coverages: list[Coverage]) -> str:
    """A table for each definition: how often each task ended how, and what no case has met."""
    lines: list[str] = []
    for coverage in coverages:
        ends = ", ".join(f"{count} {status}" for status, count in sorted(coverage.ends.items()))
        share = 100 * coverage.met // coverage.total if coverage.total else 100
        lines += [
            "",
            paint(
                "bold",
                f"{coverage.workflow}: {coverage.met} of {coverage.total} branches ({share} %); runs: {ends or 'none'}",
            ),
        ]
        rows: list[tuple[str, ...]] = [("task", "completed", "failed", "skipped", "cancelled", "never seen")]
        for task in coverage.tasks:
            unseen = ", ".join(name for name, met in task.branches().items() if not met)
            counts = (task.completed, task.failed, task.skipped, task.cancelled)
            rows.append((task.id, *(str(count or "-") for count in counts), unseen))
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        lines += [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    return "\n".join(lines) + "\n" if lines else ""


def as_junit(session: Session) -> str:
    """A suite for each test file, and one for problems. Times are those of the test, not of the run."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    errors = len(session.problems)
    total = session.passed + session.failed + errors
    lines.append(f'<testsuites name="pinflow" tests="{total}" failures="{session.failed}" errors="{errors}">')
    for each in session.files:
        failures = sum(bool(case.failures) for case in each.cases)
        lines.append(
            f'  <testsuite name="{_xml(each.workflow)}" tests="{len(each.cases)}" failures="{failures}" errors="0">'
        )
        for case in each.cases:
            head = (
                f'    <testcase classname="{_xml(each.workflow)}" name="{_xml(case.name)}" file="{_xml(each.file)}" '
                f'line="{case.line}" time="{case.seconds:.6f}"'
            )
            if not case.failures:
                lines.append(f"{head}/>")
                continue
            first = case.failures[0].split("\n", 1)[0]
            text = "\n".join(case.failures)
            lines += [
                f"{head}>",
                f'      <failure message="{_xml(first)}">{_xml(text)}</failure>',
                "    </testcase>",
            ]
        lines.append("  </testsuite>")
    if session.problems:
        lines.append(f'  <testsuite name="problems" tests="{errors}" failures="0" errors="{errors}">')
        for problem in session.problems:
            lines += [
                f'    <testcase classname="problems" name="{_xml(f"{problem.file}:{problem.line}:{problem.column}")}" '
                f'file="{_xml(problem.file)}" line="{problem.line}">',
                f'      <error type="{_xml(problem.code)}" message="{_xml(problem.message)}">{_xml(str(problem))}</error>',
                "    </testcase>",
            ]
        lines.append("  </testsuite>")
    lines.append("</testsuites>")
    return "\n".join(lines) + "\n"


def _xml(text: str) -> str:
    text = _NOT_XML.sub("?", text)
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("\n", "&#10;")):
        text = text.replace(sign, entity)
    return text
