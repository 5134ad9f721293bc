"""Problems for people, programs, GitHub annotations and code scanning (SARIF)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import Problem

_DOCS = "https://pinflow.dev/reference/problems#"


@dataclass(frozen=True, slots=True)
class Report:
    """How many files were checked, and what is wrong with them."""

    files: int
    problems: list[Problem]


def as_text(report: Report) -> str:
    """One line for each problem, and one to sum up."""
    lines = [str(problem) for problem in report.problems]
    files = f"{report.files} file{'' if report.files == 1 else 's'}"
    if report.problems:
        bad = len({problem.file for problem in report.problems})
        count = len(report.problems)
        among = f"{bad} of {files}" if bad <= report.files else f"{bad} file{'' if bad == 1 else 's'}"
        lines.append(f"{count} problem{'' if count == 1 else 's'} in {among}")
    else:
        lines.append(f"{files} checked, no problems")
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> str:
    """`{"files": n, "problems": [{code, message, file, line, column, path, hint}]}`."""
    problems = [problem.to_json() for problem in report.problems]
    return json.dumps({"files": report.files, "problems": problems}, indent=2, ensure_ascii=False) + "\n"


def as_github(report: Report) -> str:
    """Workflow commands that GitHub shows as annotations in the diff of a pull request."""
    return "".join(_annotation(problem) for problem in report.problems)


def _annotation(problem: Problem) -> str:
    place = {"file": problem.file, "line": problem.line, "col": problem.column, "title": problem.code}
    properties = ",".join(f"{key}={_escaped(str(value), ':,')}" for key, value in place.items() if value)
    return f"::error {properties}::{_escaped(_told(problem))}\n"


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def as_sarif(report: Report) -> str:
    """SARIF 2.1.0, one rule for each code."""
    rules = [
        {"id": code, "helpUri": _DOCS + code.lower()} for code in sorted({p.code for p in report.problems})
    ]
    run = {
        "tool": {"driver": {"name": "pinflow", "informationUri": "https://pinflow.dev", "rules": rules}},
        "results": [_result(problem) for problem in report.problems],
        "columnKind": "unicodeCodePoints",
    }
    document = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _result(problem: Problem) -> dict[str, Any]:
    location: dict[str, Any] = {"artifactLocation": {"uri": problem.file}}
    if problem.line:
        location["region"] = {"startLine": problem.line, "startColumn": problem.column}
    return {
        "ruleId": problem.code,
        "level": "error",
        "message": {"text": _told(problem)},
        "locations": [{"physicalLocation": location}],
    }


def _told(problem: Problem) -> str:
    return f"{problem.message} ({problem.hint})" if problem.hint else problem.message


FORMATS: dict[str, Callable[[Report], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}
