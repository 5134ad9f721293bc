"""The loop of all that works off rows: what it does not end for."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import Unavailable
from engine.passes import keep_on


async def test_a_pass_that_fails_or_finds_postgres_away_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes: list[int | Exception] = [3, Unavailable("away"), 3, ValueError("a bug"), 0, 3]
    done: list[str] = []

    async def one_pass() -> int:
        if not outcomes:
            raise asyncio.CancelledError
        outcome = outcomes.pop(0)
        done.append("pass")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def pause(seconds: float) -> None:
        assert 0.8 <= seconds <= 1.2
        done.append("pause")

    monkeypatch.setattr("engine.passes.asyncio.sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        await keep_on(one_pass, what="rows", pause=1.0, full=3)
    assert done == ["pass", "pass", "pause", "pass", "pass", "pause", "pass", "pause", "pass"]
