"""The activity of `pinflow.fire`: what a scheduled moment becomes, in Temporal's words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from engine.core.fire import FIRE
from engine.errors import Unavailable

Fire = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


def fire_activity(fire: Fire) -> Callable[..., Any]:
    """`fire` says what came of a moment, or raises `Unavailable` if it must be asked again."""

    @activity.defn(name=FIRE)
    async def perform(fired: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await fire(fired)
        except Unavailable as error:
            delay = timedelta(seconds=max(1.0, error.retry_after))
            raise ApplicationError(str(error), type=error.code, next_retry_delay=delay) from None
        if answer["status"] == "FAILED":
            # There is no run that could show it: Temporal's own pages do, and the moment's row.
            raise ApplicationError(answer["reason"], type="TRIGGER_FAILED", non_retryable=True)
        return answer

    return perform
