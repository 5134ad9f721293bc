"""Concurrency groups in a test: as in production, first in first out, among the run and its children alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Place:
    """Who holds a slot, or waits for one."""

    owner: str
    limit: int
    granted: Callable[[], None]


@dataclass(slots=True)
class _Group:
    held: list[_Place] = field(default_factory=list)
    waiting: list[_Place] = field(default_factory=list)


class Slots:
    """All groups of one case. An owner is a run and an address in it."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def acquire(self, group: str, owner: str, limit: int, granted: Callable[[], None]) -> None:
        """Ask for a slot; `granted` is called once there is one, perhaps at once."""
        self._groups.setdefault(group, _Group()).waiting.append(_Place(owner, limit, granted))
        self._grant(group)

    def release(self, owner: str) -> None:
        """Give back what `owner` holds, and stop waiting."""
        for name, group in self._groups.items():
            group.held = [place for place in group.held if place.owner != owner]
            group.waiting = [place for place in group.waiting if place.owner != owner]
            self._grant(name)

    def release_all(self, run: str) -> None:
        """Give back what a run and its tasks hold."""
        owners = [
            place.owner
            for group in self._groups.values()
            for place in (*group.held, *group.waiting)
            if place.owner.partition("/")[0] == run
        ]
        for owner in dict.fromkeys(owners):
            self.release(owner)

    def _grant(self, name: str) -> None:
        group = self._groups[name]
        while group.waiting and len(group.held) < group.waiting[0].limit:
            place = group.waiting.pop(0)
            group.held.append(place)
            place.granted()
