"""A run as it was recorded: what a plan puts through the new definition. Times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.core.contracts import Json


@dataclass(frozen=True, slots=True)
class RecordedTask:
    """How a task ended. `outputs` are what its readers saw."""

    task: str
    status: str
    attempts: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    outputs: Json = None
    error: Json = None
    cached: bool = False
    """Its result was taken from the cache."""
    compensation: str = ""
    """DONE or FAILED once it was undone."""


@dataclass(frozen=True, slots=True)
class RecordedAttempt:
    """One attempt of a task's activity that has ended."""

    attempt: int
    status: str
    seconds: float
    error: Json = None


@dataclass(frozen=True, slots=True)
class RecordedVote:
    """What a person said of a request, `after` seconds from its opening."""

    by: str
    decision: str
    after: float
    comment: str = ""
    form: Json = None


@dataclass(frozen=True, slots=True)
class RecordedSignal:
    """A signal, `after` seconds from the run's start: by `name`, or to the callback address of `task`."""

    name: str
    after: float
    payload: Json = None
    task: str = ""
    correlation: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class RecordedCancel:
    """Somebody asked the run to end, `after` seconds from its start."""

    by: str
    after: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run that has ended. Tasks are known by their addresses."""

    id: str
    commit_sha: str
    status: str
    inputs: dict[str, Json]
    started_by: str
    started_at: float
    tasks: tuple[RecordedTask, ...]
    attempts: dict[str, tuple[RecordedAttempt, ...]] = field(default_factory=dict)
    votes: dict[str, tuple[RecordedVote, ...]] = field(default_factory=dict)
    signals: tuple[RecordedSignal, ...] = ()
    cancel: RecordedCancel | None = None
    commit_author: str = ""
    trigger: Json = None
    targets: tuple[str, ...] = ()
