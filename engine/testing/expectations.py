"""What a case expects against what came of it: differences in words that a person can act on."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from engine.core.contracts import Json
from engine.dsl.activity_types import ActivityTypes
from engine.testing.cases import Case, Took
from engine.testing.spans import duration
from engine.testing.traces import Missing, TaskEnd, Trace, Waiting

_LONGEST: Final = 300
_MOST: Final = 20
_TOLERANCE: Final = 0.0005
"""Seconds: durations are compared as written, not as sums of fractions come out."""

_ABSENT: Final = object()


def differences(case: Case, trace: Trace, types: ActivityTypes) -> list[str]:
    """One entry for each thing that is not as expected; each may have several lines."""
    found = list(trace.refused)
    found += [_no_mock(missing, case, types) for missing in trace.missing]
    if not trace.status:
        found += [_nothing_comes(waiting) for waiting in trace.waits]
        if not found:
            found.append("the run does not end, and nothing more can happen")
        return found
    expected = case.expect
    if trace.status != expected.status:
        why = f" ({_said(trace.error)})" if trace.error else ""
        found.append(_different("status", expected.status, trace.status + why))
    found += _error(expected.error, trace.error)
    for name, status in expected.tasks.items():
        found += _status(name, status, trace.ends(name))
    for name, attempts in expected.attempts.items():
        found += _field(f"attempts.{name}", attempts, [end.attempts for end in trace.ends(name)] or [0])
    for name, outcome in expected.compensated.items():
        was = [end.compensation or "not undone" for end in trace.ends(name)] or ["never reached"]
        found += _field(f"compensated.{name}", outcome, was)
    if expected.path is not None and list(expected.path) != trace.path:
        found.append(_path_diff(list(expected.path), trace.path))
    if expected.outputs is not None:
        found += _compare("outputs", expected.outputs[0], trace.outputs)
    if expected.took is not None and not _fits(expected.took, trace.took):
        found.append(_different("took", expected.took.text, duration(trace.took)))
    if len(found) > _MOST:
        found[_MOST:] = [f"and {len(found) - _MOST} more differences"]
    return found


def _no_mock(missing: Missing, case: Case, types: ActivityTypes) -> str:
    task = missing.task
    if missing.attempt > 1:
        mock = case.mocks.of(task)
        assert mock is not None  # it has answered the attempts before
        return (
            f"task `{task}` asks for attempt {missing.attempt}, and the list of its mock has {len(mock.answers)}: add an "
            "answer, or write a single one without the list, for every attempt"
        )
    where = "under `mocks:`" if case.mocks else f"to the case in line {case.line}"
    line = f"{task}: {{result: {_example(missing.activity_type, types)}}}"
    head = "" if case.mocks else "mocks:\n        "
    return f"task `{task}` ran, and the case has no mock for it; add {where}\n      {head}{line}"


def _example(activity_type: str, types: ActivityTypes) -> str:
    if activity_type == "http_request":
        return "{status: 200, headers: {}, body: {}}"
    info = types.get(activity_type)
    fields = info.result_fields if info else None
    return "{" + ", ".join(f"{name}: null" for name in fields) + "}" if fields else "{}"


def _nothing_comes(waiting: Waiting) -> str:
    task = waiting.task
    if waiting.kind == "signal":
        return f"the run waits for `{task}`, and no signal comes; add under `signals:`\n      - {{task: {task}, payload: {{}}}}"
    if waiting.kind == "slot":
        return f"the run waits for a slot of a concurrency group at `{task}`, and nobody gives one back"
    return (
        f"the run waits for `{task}`, and nobody decides; add under `approvals:`\n"
        f"      {task}: [{{by: alice, decision: approve}}]"
    )


def _status(name: str, expected: str, ends: list[TaskEnd]) -> list[str]:
    """Of a task with several instances, each must have ended so; one that was never reached counts as SKIPPED."""
    if not ends:
        was = "never reached, as what it stands in was not run"
        return [] if expected == "SKIPPED" else [_different(f"tasks.{name}", expected, was)]
    for end in ends:
        if end.status != expected:
            why = (
                f" ({end.skip_reason})" if end.skip_reason else f" ({_said(end.error)})" if end.error else ""
            )
            return [_different(f"tasks.{name}", expected, end.status + why)]
    return []


def _field(place: str, expected: Json, actual: list[Any]) -> list[str]:
    other = next((value for value in actual if value != expected), expected)
    return [] if other == expected else [_different(place, expected, other)]


def _error(expected: dict[str, str] | None, actual: Json) -> list[str]:
    if expected is None:
        return []
    if actual is None:
        return [_different("error", expected, "no error")]
    found = [
        _different(f"error.{key}", expected[key], actual[key])
        for key in ("type", "task")
        if key in expected and expected[key] != actual[key]
    ]
    if "message" in expected and expected["message"] not in actual["message"]:
        found.append(_different("error.message", f"…{expected['message']}…", actual["message"]))
    return found


def _compare(place: str, expected: Json, actual: Any) -> list[str]:
    """Of mappings the expected keys alone; everything else as it is."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = []
        for key, value in expected.items():
            found += _compare(f"{place}.{key}", value, actual.get(key, _ABSENT))
        return found
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        found = []
        for index, (value, other) in enumerate(zip(expected, actual, strict=True)):
            found += _compare(f"{place}[{index}]", value, other)
        return found
    return [] if _equal(expected, actual) else [_different(place, expected, actual)]


def _equal(expected: Json, actual: Any) -> bool:
    if actual is _ABSENT or isinstance(expected, bool) != isinstance(actual, bool):
        return False
    if isinstance(expected, float) and isinstance(actual, (int, float)):
        return math.isclose(expected, actual, rel_tol=1e-9)
    return bool(expected == actual)


def _fits(took: Took, seconds: float) -> bool:
    difference = seconds - took.seconds
    match took.sign:
        case "<":
            return difference < -_TOLERANCE
        case "<=":
            return difference <= _TOLERANCE
        case ">":
            return difference > _TOLERANCE
        case ">=":
            return difference >= -_TOLERANCE
    return abs(difference) <= _TOLERANCE


def _path_diff(expected: list[str], actual: list[str]) -> str:
    import difflib  # only a failure needs it

    # Without the help lines and without what is equal far away, as in a diff of two files.
    lines = [line for line in difflib.ndiff(expected, actual) if not line.startswith("?")]
    return "path (- is expected, + is what was):\n" + "\n".join(f"      {line}" for line in lines)


def _different(place: str, expected: Json, actual: Any) -> str:
    return f"{place}:\n      expected  {_text(expected)}\n      was       {_text(actual)}"


def _said(error: Json) -> str:
    task = f"{error['task']}: " if error.get("task") else ""
    return f"{task}{error['type']}: {error['message']}"


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "not there"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
