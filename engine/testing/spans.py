"""Spans of time as people write them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as a person writes them: `1h30m`, `250ms`, `0s`."""
    milliseconds = round(seconds * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        amount, milliseconds = divmod(milliseconds, size)
        parts += [f"{amount}{unit}"] if amount else []
    return "".join(parts) or "0s"
