"""Rows of the one table, and how two ways of doing the same are measured: A B A B, never A A B B."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

Measured = Callable[[], Awaitable[float]]
"""Does the work once and tells a figure (seconds, things a second, ...)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside its limit. `met` is None where there is no target."""

    what: str
    limit: str
    pinflow: str
    ratio: str
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Medians of the limit and of Pinflow, and the median of the ratios of neighbours."""

    limit: float
    pinflow: float
    ratio: float


async def alternate(limit: Measured, pinflow: Measured, rounds: int, *, warm: bool = True) -> Pair:
    """Measure both in turns; which comes first changes from round to round."""
    if warm:
        await limit()
        await pinflow()
    limits: list[float] = []
    ours: list[float] = []
    for number in range(rounds):
        if number % 2:
            ours.append(await pinflow())
            limits.append(await limit())
        else:
            limits.append(await limit())
            ours.append(await pinflow())
    return Pair(median(limits), median(ours), median(b / a for a, b in zip(limits, ours, strict=True) if a))


def at_most(what: str, pair: Pair, target: float, show: Callable[[float], str]) -> Row:
    """Less is better: a time or a size."""
    return _row(what, pair, f"≤ {target:g} x", pair.ratio <= target, show)


def at_least(what: str, pair: Pair, target: float, show: Callable[[float], str]) -> Row:
    """More is better: a throughput."""
    return _row(what, pair, f"≥ {target:g} x", pair.ratio >= target, show)


def beside(what: str, pair: Pair, show: Callable[[float], str]) -> Row:
    """A figure without a target."""
    return Row(what, show(pair.limit), show(pair.pinflow), f"{pair.ratio:.2f} x")


def _row(what: str, pair: Pair, target: str, met: bool, show: Callable[[float], str]) -> Row:
    return Row(what, show(pair.limit), show(pair.pinflow), f"{pair.ratio:.2f} x", target, met)


def milliseconds(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def seconds(value: float) -> str:
    """A time in seconds."""
    return f"{value:.2f} s"


def per_second(what: str) -> Callable[[float], str]:
    """A throughput."""
    return lambda value: f"{value:.0f} {what}/s"


HEAD = "| what | limit | Pinflow | ratio | target | met |\n|---|---:|---:|---:|---|---|"


def line(row: Row) -> str:
    """A line of the table whose first two lines are `HEAD`."""
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    return f"| {row.what} | {row.limit} | {row.pinflow} | {row.ratio} | {row.target} | {met} |"
