"""A test file, read: plain data. Durations are seconds; `place` is a value's path in the file, for problems."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.core.contracts import Json
from engine.dsl.loader import Path
from engine.errors import Problem
from engine.testing.addresses import ByAddress

NEVER_RETRIED = frozenset(
    {
        "BUNDLE",
        "DENIED",
        "EXPRESSION",
        "FUNCTION_NOT_FOUND",
        "INVALID_CONFIG",
        "INVALID_RESULT",
        "UNKNOWN_ACTIVITY",
    }
)
"""Errors that end a task whatever its retry policy says, as the built-in activity types raise them."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The error of a mocked attempt."""

    type: str
    message: str
    details: Json = None
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What one attempt gives, after `after` seconds."""

    result: Json = None
    error: Failure | None = None
    after: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Mock:
    """The answers of a task's activity. One that was not written as a list answers every attempt."""

    answers: tuple[Answer, ...]
    repeats: bool

    def answer(self, attempt: int) -> Answer | None:
        """The answer to an attempt, counted from 1; None if the list has ended."""
        if self.repeats:
            return self.answers[0]
        return self.answers[attempt - 1] if attempt <= len(self.answers) else None

    def after(self, attempts: int) -> Mock:
        """What is left of a list for a task that has been asked so often already, in earlier attempts of its workflow."""
        return self if self.repeats else Mock(self.answers[attempts:], repeats=False)


@dataclass(frozen=True, slots=True)
class Vote:
    """What a person says of a request, `after` seconds from its opening. `groups` None: those that are asked for."""

    by: str
    decision: str
    after: float
    place: Path
    groups: tuple[str, ...] | None = None
    comment: str = ""
    form: Json = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody cancels the run, `after` seconds from its start."""

    after: float
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal, `after` seconds from the run's start: by `name`, or through the callback address of `task`."""

    after: float
    name: str
    task: str
    correlation: str
    payload: Json
    by: str
    place: Path


@dataclass(frozen=True, slots=True)
class Took:
    """A bound of the run's duration: `sign` is one of `<`, `<=`, `>`, `>=` and `` (exactly)."""

    sign: str
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must come of a case; None is not looked at. `outputs` stands in a tuple of one, since null may be expected."""

    status: str
    tasks: dict[str, str]
    attempts: dict[str, int]
    path: tuple[str, ...] | None = None
    outputs: tuple[Json] | None = None
    error: dict[str, str] | None = None
    took: Took | None = None
    compensated: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One run to play. `started_at` is in seconds since the epoch.

    `trigger` is what expressions read as `trigger`, None without one; `ignored` says that its `when` is false.
    """

    name: str
    line: int
    place: Path
    inputs: dict[str, Json]
    mocks: ByAddress[Mock]
    approvals: ByAddress[tuple[Vote, ...]]
    expect: Expectation
    started_at: float
    started_by: str = "tester"
    commit_author: str = ""
    cancel: Cancel | None = None
    signals: tuple[Signal, ...] = ()
    trigger: Json = None
    ignored: bool = False
    targets: tuple[str, ...] = ()


@dataclass(slots=True)
class CaseFile:
    """A test file and the definition that it tests. `cases` can be played if there are no `problems`.

    `children` are the compiled forms of all workflows that a run may start, by name.
    """

    file: str
    workflow: str = ""
    definition: str = ""
    compiled: dict[str, Json] | None = None
    children: dict[str, dict[str, Json]] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
