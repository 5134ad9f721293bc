"""What came of a number of test files."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.errors import Problem
from engine.testing.coverage import Coverage
from engine.testing.traces import Trace


@dataclass(frozen=True, slots=True)
class CaseResult:
    """A case that was played. `seconds` is the time that this took, `trace.took` the run's own."""

    name: str
    line: int
    failures: list[str]
    trace: Trace
    seconds: float


@dataclass(slots=True)
class FileResult:
    """A test file whose cases were played."""

    file: str
    workflow: str
    cases: list[CaseResult] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """All files. A file with problems is not played; `nothing` is the keyword that no case has."""

    files: list[FileResult] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    nothing: str = ""

    @property
    def failed(self) -> int:
        """Cases that did not come out as expected."""
        return sum(bool(case.failures) for each in self.files for case in each.cases)

    @property
    def passed(self) -> int:
        """Cases that did."""
        return sum(not case.failures for each in self.files for case in each.cases)

    @property
    def bad(self) -> bool:
        """Whether somebody must act."""
        return bool(self.problems or self.failed or self.nothing)
