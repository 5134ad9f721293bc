"""Durations: `1h30m`, `90s`, `250ms`, or ISO 8601 (`PT10M`), to seconds."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_SECONDS = 10 * 365 * 86_400.0
"""Ten years: longer than any run should be, and far inside of what Temporal's timers can hold."""

PATTERN = (
    r"^(?:[0-9]+(?:\.[0-9]+)?d)?(?:[0-9]+(?:\.[0-9]+)?h)?(?:[0-9]+(?:\.[0-9]+)?m)?(?:[0-9]+(?:\.[0-9]+)?s)?(?:[0-9]+ms)?$"
    r"|^P(?:[0-9]+D)?(?:T(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:\.[0-9]+)?S)?)?$"
)
"""What a duration looks like, for the JSON Schema; `parse_duration` refuses the few empty forms that it lets through."""

_SHORT = re.compile(
    r"(?:(?P<d>[0-9.]+)d)?(?:(?P<h>[0-9.]+)h)?(?:(?P<m>[0-9.]+)m)?(?:(?P<s>[0-9.]+)s)?(?:(?P<ms>[0-9]+)ms)?\Z"
)
_ISO = re.compile(r"P(?:(?P<d>[0-9]+)D)?(?:T(?:(?P<h>[0-9]+)H)?(?:(?P<m>[0-9]+)M)?(?:(?P<s>[0-9.]+)S)?)?\Z")
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SHAPE = re.compile(PATTERN)


class DurationError(ValueError):
    """The text is no duration, or one that is out of bounds; the message says which."""


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> float:
    """Seconds in `text`; more than 0 and at most ten years. Raises DurationError."""
    # The length first: a number of 100,000 digits is slow to convert.
    match = None
    if len(text) <= 64 and text.isascii() and _SHAPE.match(text) and not text.endswith("\n"):
        match = (_ISO if text.startswith("P") else _SHORT).match(text)
    parts = {unit: amount for unit, amount in match.groupdict().items() if amount} if match else {}
    if not parts:
        raise DurationError("is not a duration: write it like 90s, 1h30m, 250ms or PT10M")
    seconds = sum(float(amount) * _SECONDS[unit] for unit, amount in parts.items())
    if seconds <= 0:
        raise DurationError("must be longer than nothing")
    if seconds > MAX_SECONDS:
        raise DurationError("is longer than ten years")
    return seconds
