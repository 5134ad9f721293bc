"""The cron that is taken: what every reader of crontabs understands alike."""

from __future__ import annotations

import pytest

from engine.dsl.check_triggers import zones
from engine.dsl.cron import CronError, check_cron


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *", "0 6 * * 1-5", "*/15 8-18 * * MON-FRI", "0 0 1,15 * *", "30 4 * jan,DEC *", "5/10 * * * *",
        "0-30/5 0 * * *", "0 0 29 2 *", "0 0 31 1,2 *", "0 0 * * 0", "00 06 * * *",
    ],
)  # fmt: skip
def test_five_plain_fields_are_taken(text: str) -> None:
    check_cron(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 6 * *", "five fields"),
        ("0 0 6 * * *", "no seconds"),
        ("@daily", '"0 0 * * *"'),
        ("@every 5m", "words such as"),
        ("CRON_TZ=Europe/Rome 0 6 * * *", "`timezone: Europe/Rome`"),
        ("0  6 * * *", 'write "0 6 * * *"'),
        ("0 6 * * * ", 'write "0 6 * * *"'),
        ("0\t6 * * *", 'write "0 6 * * *"'),
        ("60 * * * *", "0 to 59"),
        ("* 24 * * *", "0 to 23"),
        ("* * 0 * *", "1 to 31"),
        ("* * * 13 *", "1 to 12"),
        ("* * * * 7", "Sunday is 0"),
        ("* * * * 5-7", "Sunday is 0"),
        ("* * * * MONDAY", "cannot be the day of the week"),
        ("* * * MON *", "names are JAN"),
        ("* * L * *", "`L`, `W`, `#` and `?` are not taken"),
        ("* * ? * *", "`L`, `W`, `#` and `?` are not taken"),
        ("* * * * 1#2", "`L`, `W`, `#` and `?` are not taken"),
        ("5-1 * * * *", "ends before it begins"),
        ("*/0 * * * *", "a step of 0"),
        ("*/60 * * * *", "a step of 60"),
        (", * * * *", "cannot be the minute"),
        ("1, * * * *", "cannot be the minute"),
        ("-1 * * * *", "cannot be the minute"),
        ("1.5 * * * *", "cannot be the minute"),
        ("0 6 1 * 1", "leave one of them `*`"),
        ("0 6 */2 * 1", "leave one of them `*`"),
        ("0 0 30 2 *", "no such day"),
        ("0 0 31 4,6,9,11 *", "no such day"),
        ("\uff10 * * * *", "cannot be the minute"),
        ("", "five fields"),
    ],
)
def test_what_readers_take_differently_is_refused(text: str, told: str) -> None:
    with pytest.raises(CronError) as raised:
        check_cron(text)
    assert told in f"{raised.value.message} {raised.value.hint}"


def test_the_time_zones_are_those_of_iana() -> None:
    assert {"UTC", "Europe/Rome", "America/Argentina/Buenos_Aires", "Asia/Kolkata"} <= zones()
    assert not {"Local", "Factory", "", "CEST"} & zones()
