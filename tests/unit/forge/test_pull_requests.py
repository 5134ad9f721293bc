"""Which pull request a merge commit names."""

from __future__ import annotations

import pytest

from engine.forge.pull_requests import pull_request, subject_of


@pytest.mark.parametrize(
    ("subject", "number"),
    [
        ("Merge pull request #12 from ada/topic", 12),
        ("Ship it (#345)", 345),
        ("Merge pull request 'Ship it' (#7) from ada/topic into main", 7),
        ("Merge branch 'topic' into 'main' (!41)", 41),
        ("Ship it (!9)", 9),
        ("Fixes #3", None),
        ("Issue (#3) is not fixed", None),
        ("Merge branch 'topic'", None),
        ("(#99999999999999999999)", None),
        ("", None),
    ],
)
def test_the_number_is_read_from_what_forges_write(subject: str, number: int | None) -> None:
    assert pull_request(subject) == number


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (
            "Merge branch 'topic' into 'main'\n\nShip it\n\nSee merge request group/flows!41",
            "Merge branch 'topic' into 'main' (!41)",
        ),
        (
            "Merge branch 'topic' into 'main'\n\nCloses #3\n\nSee merge request a/b/c!7\r\n",
            "Merge branch 'topic' into 'main' (!7)",
        ),
        ("Ship it (!9)\n\nSee merge request group/flows!9", "Ship it (!9)"),
        ("Ship it\n\nas in (#5)", "Ship it"),
        ("Ship it", "Ship it"),
    ],
)
def test_gitlabs_number_comes_from_below_into_the_subject(message: str, kept: str) -> None:
    assert subject_of(message.partition("\n")[0], message) == kept
