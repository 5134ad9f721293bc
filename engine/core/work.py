"""What a map and a loop remember beyond the frames of their items and iterations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.core.contracts import Json
from engine.core.frames import Task
from engine.core.gates import Gate, Key, Ticket


class Part(Ticket):
    """A slice of a cut map: `count` items from `offset` on, run by a workflow of its own (or undone by one).

    `stopping`: it was asked to end; `drained`: to begin no further items. `tolerated` is what it was told when it began:
    how many failures the map could still bear.
    """

    def __init__(self, task: Task, offset: int, count: int, weight: int) -> None:
        key: Key = (*task.key, offset)
        gate: Gate = task.gate
        super().__init__(key, gate)
        self.weight = weight
        self.task = task
        self.offset = offset
        self.count = count
        self.stopping = False
        self.drained = False
        self.tolerated: int | None = None


@dataclass(slots=True)
class MapWork:
    """`items` from index `first` of the whole map on; one that nobody needs any more is null. `opened` of them were begun.

    `results` in item order, null where there is none; `failures` are `{index, error}`. `at_once` bounds the items under
    way, `tolerated` the failures. Of a cut map, `size` is how many items a slice has at most, `share` how many places
    it takes, `beside` how many run at a time; `parts` are those under way by offset, `undo` what the ended ones left to be
    undone, `undo_failed` how many of them could not be.
    """

    items: list[Json]
    first: int = 0
    total: int = 0
    opened: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    results: list[Json] = field(default_factory=list)
    failures: list[Json] = field(default_factory=list)
    at_once: int = 0
    tolerated: int = 0
    size: int = 0
    share: int = 0
    beside: int = 0
    yields: int = 0
    undo_failed: int = 0
    parts: dict[int, Part] = field(default_factory=dict)
    undo: dict[int, Json] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """Items under way; those of a slice under way are."""
        return self.opened - self.completed - self.failed - self.cancelled

    def to_json(self) -> dict[str, Json]:
        """All of it; slices as lists (see `from_json`), those that only wait for their turn included."""
        body = {name: getattr(self, name) for name in _PLAIN}
        body |= {name: list(getattr(self, name)) for name in ("items", "results", "failures")}
        body["parts"] = {
            str(offset): [part.count, part.holds, part.stopping, part.drained, part.tolerated]
            for offset, part in self.parts.items()
        }
        body["undo"] = {str(offset): left for offset, left in self.undo.items()}
        return body

    @classmethod
    def from_json(cls, value: dict[str, Any], task: Task) -> MapWork:
        """The inverse of `to_json`; slices under way take their places again."""
        work = cls(**{name: value[name] for name in _PLAIN}, items=list(value["items"]))
        work.results = list(value["results"])
        work.failures = list(value["failures"])
        for offset, (count, holds, stopping, *more) in value["parts"].items():
            part = Part(task, int(offset), count, work.share)
            part.stopping = stopping
            if more:  # a run that began before slices were drained has none of it
                part.drained, part.tolerated = more
            work.parts[int(offset)] = part
            if holds:
                part.gate.occupy(part)
            else:
                part.gate.push(part)
        work.undo = {int(offset): left for offset, left in value["undo"].items()}
        return work


_PLAIN = (
    "first",
    "total",
    "opened",
    "completed",
    "failed",
    "cancelled",
    "at_once",
    "tolerated",
    "size",
    "share",
    "beside",
    "yields",
    "undo_failed",
)


@dataclass(slots=True)
class LoopWork:
    """`state` and `iteration` are those of the iteration under way, or of the next one while the loop pauses."""

    state: dict[str, Json]
    iteration: int = 0
    pauses: int = 0

    def to_json(self) -> dict[str, Json]:
        """All of it."""
        return {"state": self.state, "iteration": self.iteration, "pauses": self.pauses}

    @classmethod
    def from_json(cls, value: dict[str, Any], task: Task) -> LoopWork:
        """The inverse of `to_json`."""
        return cls(value["state"], value["iteration"], value["pauses"])
