"""What became of the webhooks that came: counted for the metrics, and told to the operator in the log.

Who sends learns nothing but "401": what is wrong is for the operator, who must not be flooded by whoever sends.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import structlog

Door = Literal["forge", "trigger"]
Outcome = Literal["taken", "repeated", "unsigned", "no_secret"]
_TOLD_EVERY = 60.0
"""Seconds between two lines in the log about the same webhook."""
_log = structlog.get_logger(__name__)


class WebhookTally:
    """One for each process. `counts` is by door (`forge`: /webhooks, `trigger`: /hooks) and outcome."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[Outcome, str], float] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    def count(self, door: Door, outcome: Outcome) -> None:
        """One more."""
        self.counts[door, outcome] += 1

    def refused(self, door: Door, outcome: Outcome, known: str = "", **facts: Any) -> None:
        """Count a refusal; tell it once a minute at most if it is `known` which webhook was meant.

        `known` is a name of ours, never one that a stranger has made up: each is kept.
        """
        self.count(door, outcome)
        now = self._clock()
        if not known or now - self._told.get((outcome, known), -_TOLD_EVERY) < _TOLD_EVERY:
            return
        self._told[outcome, known] = now
        log = _log.error if outcome == "no_secret" else _log.warning
        log("webhook refused", door=door, webhook=known, outcome=outcome, **facts)
