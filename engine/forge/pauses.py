"""For how long a forge, or a repository of one, is left alone after it failed."""

from __future__ import annotations

from collections.abc import Callable

_FIRST = 2.0


class Pauses:
    """Each pause is twice the one before it, and none is left after a success. In memory: a new process tries at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def closed(self, *doors: str) -> bool:
        """Whether one of them is left alone now."""
        now = self._clock()
        return any(self._until.get(door, 0.0) > now for door in doors)

    def failed(self, door: str, at_least: float, longest: float) -> float:
        """Leave it alone for a while; for how many seconds. Failures of calls that were made at once are one."""
        now = self._clock()
        if self._until.get(door, 0.0) <= now:
            self._failures[door] = self._failures.get(door, 0) + 1
            self._until[door] = now + min(longest, _FIRST ** min(self._failures[door], 20))
        self._until[door] = max(self._until[door], now + at_least)
        return self._until[door] - now

    def well(self, *doors: str) -> None:
        """It has done what it was asked. What it did meanwhile, while another call failed, says nothing of a pause."""
        for door in doors:
            if not self.closed(door):
                self._until.pop(door, None)
                self._failures.pop(door, None)
