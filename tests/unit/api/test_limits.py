"""What bodies may cost before anybody has looked at them: counted, not timed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from engine.api.limits import MAX_BODY, RequestLimits

PIECE = 64 * 1024


class Caller:
    """A request that sends what it is told to, and waits in the app until it is let go."""

    def __init__(self, limits: RequestLimits, pieces: int) -> None:
        self.taken = 0
        self.status = 0
        self._pieces = pieces
        self._limits = limits

    async def run(self) -> None:
        headers: list[tuple[bytes, bytes]] = []
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "query_string": b"",
            "headers": headers,
        }
        await self._limits(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        self.taken += 1
        return {"type": "http.request", "body": b"x" * PIECE, "more_body": self.taken < self._pieces}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif self.status >= 400:
            assert json.loads(message["body"])["status"] == self.status


class App:
    """Takes requests and holds them until `go`."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.holding = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self.holding += 1
        await self.go.wait()
        start: dict[str, Any] = {"type": "http.response.start", "status": 202, "headers": []}
        await send(start)


async def turns() -> None:
    """Let all that can go on do so: nothing here waits for a clock or a socket."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_many_large_bodies_at_once_are_bounded_together_and_stop_no_small_one() -> None:
    app = App()
    limits = RequestLimits(app)
    large = [Caller(limits, MAX_BODY // PIECE) for _ in range(100)]
    small = [Caller(limits, 1) for _ in range(50)]
    running = [asyncio.create_task(each.run()) for each in large]
    await turns()
    held = app.holding
    assert held + sum(each.status == 503 for each in large) == len(large)
    assert held * MAX_BODY <= 64 * 1024 * 1024 * 1.1
    assert held >= 60
    running += [asyncio.create_task(each.run()) for each in small]
    await turns()
    assert app.holding == held + len(small)
    app.go.set()
    await asyncio.gather(*running)
    assert {each.status for each in small} == {202}
    assert sorted({each.status for each in large}) == [202, 503]
    again = Caller(limits, MAX_BODY // PIECE)
    await again.run()
    assert again.status == 202, "what was held is given back"


async def test_a_body_without_end_is_read_up_to_the_limit_and_no_further() -> None:
    limits = RequestLimits(App())
    callers = [Caller(limits, 10_000) for _ in range(50)]
    await asyncio.gather(*(each.run() for each in callers))
    assert {each.status for each in callers} == {413}
    assert {each.taken for each in callers} == {MAX_BODY // PIECE + 1}
