"""For how long a forge is left alone after it failed."""

from __future__ import annotations

from collections.abc import Callable


class Pauses:
    """Each pause is twice the one before it, and none is left after a success. In memory: a new process tries at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def closed(self, forge: str) -> bool:
        """Whether it is left alone now."""
        return self._until.get(forge, 0.0) > self._clock()

    def failed(self, forge: str, at_least: float, longest: float) -> float:
        """Leave it alone for a while; for how many seconds. Failures of calls that were made at once are one."""
        now = self._clock()
        if not self.closed(forge):
            self._failures[forge] = self._failures.get(forge, 0) + 1
            self._until[forge] = now + min(longest, 2.0 ** min(self._failures[forge], 20))
        self._until[forge] = max(self._until[forge], now + at_least)
        return self._until[forge] - now

    def well(self, forge: str) -> None:
        """It has done what it was asked. What it did meanwhile, while another call failed, says nothing of a pause."""
        if not self.closed(forge):
            self._until.pop(forge, None)
            self._failures.pop(forge, None)
