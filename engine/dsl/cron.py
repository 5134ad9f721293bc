"""The cron of schedules: less than any crontab takes, so that every reader, Temporal's server first, reads it alike.

Five fields, numbers and three-letter names, `*`, lists, ranges and steps.  Left out is what readers understand
differently: `L`, `W`, `#`, `?`, macros such as `@daily`, seconds and years, 7 for Sunday, and a day of the month
together with a day of the week (crontab means either, Temporal both).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_DAYS_IN_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART = re.compile(r"(?:(\*)|([0-9]{1,2}|[A-Za-z]{3})(?:-([0-9]{1,2}|[A-Za-z]{3}))?)(?:/([0-9]{1,2}))?\Z")
_MACROS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)


class CronError(ValueError):
    """The text is no cron that is taken here; `hint` says what to write."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def check_cron(text: str) -> None:
    """Raises CronError if the text is not taken."""
    fields = text.split(" ")
    if text.strip() in _MACROS:
        raise CronError(f"`{text.strip()}` is not taken", f'write it out: "{_MACROS[text.strip()]}"')
    if text.lstrip().startswith(("CRON_TZ=", "TZ=")):
        raise CronError("a time zone stands in the cron", "say it beside it: `timezone: Europe/Rome`")
    if text.lstrip().startswith("@"):
        raise CronError(
            "words such as `@every` are not taken", "write five fields: minute hour day month weekday"
        )
    count = len(text.split())
    if count != len(_FIELDS):
        hint = "minute hour day month weekday, no seconds, no year"
        raise CronError(f"a cron has five fields, and this has {count}", hint)
    if text.split() != fields:
        raise CronError("the fields stand one blank apart", f'write "{" ".join(text.split())[:100]}"')
    values = [_values(part, field) for part, field in zip(fields, _FIELDS, strict=True)]
    days, months, weekdays = fields[2], values[3], fields[4]
    if days != "*" and weekdays != "*":
        raise CronError(
            "a day of the month and a day of the week together mean different things to different readers",
            "leave one of them `*`; a list of two crons means either",
        )
    if min(values[2]) > max(_DAYS_IN_MONTH[month - 1] for month in months):
        raise CronError("no such day is in any of these months")


def _values(text: str, field: _Field) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        found |= _part(part, field)
    return found


def _part(text: str, field: _Field) -> set[int]:
    match = _PART.match(text)
    if not match:
        hint = "numbers, names, `*`, `a-b`, `*/n` and lists of these"
        if any(sign in text for sign in "LW#?"):
            hint = "`L`, `W`, `#` and `?` are not taken: " + hint
        raise CronError(f"`{text[:40]}` cannot be the {field.name}", hint)
    star, first, last, step = match.groups()
    low = field.lowest if star else _number(first, field)
    # `5/15` means from 5 on, every 15.
    high = field.highest if star or (step and not last) else _number(last or first, field)
    if high < low:
        raise CronError(f"`{text}` ends before it begins", "write two ranges, with a comma between them")
    if step is not None and not 1 <= int(step) <= field.highest:
        raise CronError(f"a step of {int(step)} cannot be in the {field.name}", f"1 to {field.highest}")
    return set(range(low, high + 1, int(step or 1)))


def _number(text: str, field: _Field) -> int:
    if text.isdigit():
        number = int(text)
        if field.lowest <= number <= field.highest:
            return number
        hint = "Sunday is 0" if field.names is _DAYS and number == 7 else f"{field.lowest} to {field.highest}"
        raise CronError(f"{number} cannot be the {field.name}", hint)
    if text.upper() in field.names:
        return field.names.index(text.upper()) + field.lowest
    raise CronError(
        f"`{text}` cannot be the {field.name}", f"names are {', '.join(field.names)}" if field.names else ""
    )
