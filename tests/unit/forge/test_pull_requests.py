"""Which pull request a merge commit names."""

from __future__ import annotations

import pytest

from engine.forge.pull_requests import pull_request


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("Merge pull request #12 from ada/topic", 12),
        ("Ship it (#345)", 345),
        ("Merge pull request 'Ship it' (#7) from ada/topic into main", 7),
        ("Merge branch 'topic' into 'main'\n\nShip it\n\nSee merge request group/flows!41", 41),
        ("Ship it (!9)", 9),
        ("Fixes #3", None),
        ("Issue (#3) is not fixed", None),
        ("Merge branch 'topic'", None),
        ("(#99999999999999999999)", None),
        ("", None),
    ],
)
def test_the_number_is_read_from_what_forges_write(message: str, number: int | None) -> None:
    assert pull_request(message) == number
