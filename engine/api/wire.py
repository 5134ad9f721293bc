"""HTTP as it comes over the wire, bounded: uvicorn itself takes heads of any length, and waits for them for ever."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.api.limits import MAX_BODY
from engine.api.problems import problem

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""
_MAX_MESSAGE = 8 * MAX_BODY
"""Bytes of a whole request. More than `MAX_BODY`, which is answered in words: a body in small chunks is longer here."""
_PATIENCE = 30.0
"""Seconds for a head to arrive, from the connection's or its own first byte on."""


class BoundedHttp(HttpToolsProtocol):
    """Ends connections whose requests are too large or too slow, before anybody's token has been looked at."""

    _taken = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request, though not for ever."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(
            _PATIENCE, self._end, 408, "the head of the request did not arrive"
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._at_ease()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count, whatever a header says of a length."""
        self._taken += len(data)
        super().data_received(data)
        if self._taken > (MAX_HEAD if self._in_head else _MAX_MESSAGE):
            self._end(431, f"the head of the request has more than {MAX_HEAD} bytes")
        elif self._in_head and self._taken and self._timer is None:
            self._timer = self.loop.call_later(
                _PATIENCE, self._end, 408, "the head of the request did not arrive"
            )

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._at_ease()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next request is counted anew."""
        self._in_head, self._taken = True, 0
        super().on_message_complete()

    def _at_ease(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, status: int, detail: str) -> None:
        """Say why, unless another answer is under way on this connection, and close it."""
        self._at_ease()
        if self.transport.is_closing():
            return
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            answer = problem(status, detail, headers={"connection": "close"})
            head = "".join(
                f"{name.decode('latin-1')}: {value.decode('latin-1')}\r\n"
                for name, value in answer.raw_headers
            )
            self.transport.write(f"HTTP/1.1 {status} \r\n{head}\r\n".encode("latin-1") + bytes(answer.body))
        self.transport.close()
