"""Test files of definitions, read and played without a folder."""

from __future__ import annotations

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import Checked, check
from engine.testing.cases import CaseFile
from engine.testing.driver import Driver
from engine.testing.expectations import differences
from engine.testing.reading import read
from engine.testing.traces import Trace

TYPES = ActivityTypes.default()
HTTP = "activity_type: http_request, config: {url: 'https://x.test'}"


def read_cases(definition: str, tests: str) -> CaseFile:
    """The test file in `tests`; `definition` is all that stands beside it."""
    checked = check(definition.encode(), "w.yaml", TYPES)

    def find(name: str) -> tuple[str, Checked] | list[str]:
        return ("w.yaml", checked) if name == checked.name else [checked.name]

    return read(tests.encode(), "w.test.yaml", find)


def problems(definition: str, tests: str) -> list[str]:
    """What is wrong with the test file, a line each."""
    return [str(problem) for problem in read_cases(definition, tests).problems]


def play(definition: str, case: str) -> tuple[Trace, list[str]]:
    """One case, given as the keys of a flow mapping without its name; what came of it, and the differences."""
    read_file = read_cases(definition, f"workflow: w\ncases:\n  - {{name: one, {case}}}\n")
    assert read_file.problems == [], "\n".join(map(str, read_file.problems))
    assert read_file.compiled is not None
    trace = Driver(read_file.compiled, TYPES).play(read_file.cases[0])
    return trace, differences(read_file.cases[0], trace, TYPES)


def passes(definition: str, case: str) -> Trace:
    """The same, for a case that must come out as it expects."""
    trace, found = play(definition, case)
    assert found == [], "\n".join(found)
    return trace
