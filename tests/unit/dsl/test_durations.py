"""Durations to seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dsl.durations import MAX_SECONDS, DurationError, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("PT10M", 600), ("1.5h", 5400), ("2d", 172_800),
        ("P1DT2H3M4.5S", 93_784.5), ("1h1m1s1ms", 3661.001), ("3650d", MAX_SECONDS),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "P1",
        "5",
        "0s",
        "PT0S",
        "1m1h",
        "1s1s",
        "-1s",
        "1 s",
        "1s ",
        "1s\n",
        "٣s",
        "1..5s",
        "3651d",
        "9" * 70 + "s",
        "1w",
        "P1M",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(DurationError):
        parse_duration(text)


@given(st.text(max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    try:
        assert 0 < parse_duration(text) <= MAX_SECONDS
    except DurationError:
        pass
