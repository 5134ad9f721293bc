"""What came of a case that was played."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.core.contracts import Event, Json
from engine.testing.addresses import path_of


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How a task ended. `when` is what its condition gave: True, False, or None if it was not asked.

    `compensation` is DONE or FAILED once it was undone, else "".
    """

    status: str
    skip_reason: str
    attempts: int
    when: bool | None
    error: Json
    compensation: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """A task ran for which the case says nothing; `attempt` counts from 1."""

    task: str
    activity_type: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a run waits for that the case does not say: `kind` is approval, signal, timer or slot."""

    task: str
    kind: str


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody outside said, `at` seconds after the start of the case's run, to the run whose tasks stand behind `prefix`."""

    at: float
    prefix: str
    event: Event


@dataclass(slots=True)
class Trace:
    """What came of a case. `took` is in seconds of the run's own clock; `path` as in the test file.

    `tasks` are by address, those of children behind the address of the task that started them. `status` is "" if the
    run could not be played to its end: `missing` and `waits` say why. `refused` says what people and others could not
    have done, and why.
    """

    status: str = ""
    error: Json = None
    outputs: Json = None
    took: float = 0.0
    tasks: dict[str, TaskEnd] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    waits: list[Waiting] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    given: dict[str, Json] = field(default_factory=dict, compare=False)
    """What the tasks gave to their readers, by address."""

    def ends(self, name: str) -> list[TaskEnd]:
        """The task at an address, or every instance of it if `name` has no indices; none if it was never reached."""
        if name in self.tasks:
            return [self.tasks[name]]
        return [end for address, end in self.tasks.items() if path_of(address) == name]
