"""CEL's timestamps and durations, in whole nanoseconds and UTC; named time zones are refused.

The rules of a named zone change with the machine's tables, so that a replay could read another hour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

_SECOND = 1_000_000_000
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_OFFSET = re.compile(r"([+-]?)(\d\d):(\d\d)", re.ASCII)
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?|\.\d{1,9})(h|ms|us|µs|ns|m|s)", re.ASCII)
_UNITS = {
    "h": 3600 * _SECOND,
    "m": 60 * _SECOND,
    "s": _SECOND,
    "ms": 1_000_000,
    "us": 1000,
    "µs": 1000,
    "ns": 1,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = -62_135_596_800 * _SECOND  # 0001-01-01
_LAST = 253_402_300_800 * _SECOND  # 10000-01-01, not itself
_LONGEST = 315_576_000_000 * _SECOND  # about 10,000 years, as in protobuf


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A span of `ns` nanoseconds."""

    ns: int

    def __post_init__(self) -> None:
        if abs(self.ns) > _LONGEST:
            raise ValueError("a duration is longer than 10,000 years")

    def __str__(self) -> str:
        seconds, rest = divmod(abs(self.ns), _SECOND)
        return f"{'-' if self.ns < 0 else ''}{seconds}{_fraction(rest)}s"


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """A moment, `ns` nanoseconds after 1970 in UTC; years 1 to 9999."""

    ns: int

    def __post_init__(self) -> None:
        if not _FIRST <= self.ns < _LAST:
            raise ValueError("a timestamp is outside of the years 1 to 9999")

    def __str__(self) -> str:
        return (
            self.at("UTC").strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0") + _fraction(self.ns % _SECOND) + "Z"
        )

    def at(self, zone: str) -> datetime:
        """The calendar's view in `zone`: UTC or a fixed offset such as `+01:00`."""
        return (_EPOCH + timedelta(microseconds=self.ns // 1000)).astimezone(_zone(zone))


def _fraction(ns: int) -> str:
    """The fraction of a second as protobuf's JSON writes it: none, or 3, 6 or 9 digits."""
    if not ns:
        return ""
    digits = f"{ns:09d}"
    for width in (3, 6):
        if not digits[width:].strip("0"):
            return "." + digits[:width]
    return "." + digits


def _zone(name: str) -> timezone:
    if name in ("UTC", "Z", ""):
        return UTC
    match = _OFFSET.fullmatch(name)
    if not match:
        raise ValueError(
            "a time zone must be UTC or an offset such as +01:00: the rules of named zones change"
        )
    minutes = int(match[2]) * 60 + int(match[3])
    if minutes >= 24 * 60:
        raise ValueError("a time zone's offset must be less than a day")
    return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))


def parse_timestamp(text: str) -> Timestamp:
    """Read RFC 3339; raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError("not a time as in RFC 3339 (2026-01-31T08:00:00Z)")
    zone = match[4].upper().replace("Z", "+00:00")
    try:
        whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}")
        since = whole - _EPOCH
    except (ValueError, OverflowError) as error:
        raise ValueError("not a time that exists") from error
    seconds = since.days * 86_400 + since.seconds
    return Timestamp(seconds * _SECOND + int((match[3] or "0").ljust(9, "0")))


def parse_duration(text: str) -> Duration:
    """Read `1h30m`, `-1.5s`, `250ms`; raises ValueError."""
    body = text[1:] if text[:1] in ("-", "+") else text
    if body == "0":
        return Duration(0)
    total, at = 0, 0
    while at < len(body):
        match = _PART.match(body, at)
        if not match:
            raise ValueError("not a duration such as 1h30m or 250ms")
        whole, _, rest = match[1].partition(".")
        unit = _UNITS[match[2]]
        total += int(whole or "0") * unit + (int(rest) * unit // 10 ** len(rest) if rest else 0)
        at = match.end()
    if not body:
        raise ValueError("not a duration such as 1h30m or 250ms")
    return Duration(-total if text[0] == "-" else total)
