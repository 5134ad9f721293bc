"""The loop of all that works off rows: a pass, and the next at once while there is more to do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from engine.errors import Unavailable

_log = structlog.get_logger(__name__)


async def keep_on(one_pass: Callable[[], Awaitable[int]], *, what: str, pause: float, full: int = 1) -> None:
    """Pass after pass until cancelled. A pass that did less than `full` is followed by a pause.

    What is away is waited for. A bug in a pass must not end the loop for good (promises P9, P10).
    """
    while True:
        try:
            done = await one_pass()
        except Unavailable as error:
            _log.warning(f"{what} wait", reason=error.message)
            done = 0
        except Exception:
            _log.exception(f"pass over {what} failed")
            done = 0
        if done < full:
            # Jitter keeps many processes apart.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
