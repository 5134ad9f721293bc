"""A small HTTP client for load: it must cost less than what it measures, on the same two cores."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any


class Connection:
    """One keep-alive connection to 127.0.0.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and read its answer: status and body."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        return status, await self._reader.readexactly(length)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


def request(method: str, path: str, *, token: str = "", body: Any = None) -> bytes:
    """A request as bytes, made once and sent often."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(content)}"]
    lines += [f"authorization: Bearer {token}"] if token else []
    lines += ["content-type: application/json"] if body is not None else []
    return "\r\n".join([*lines, "", ""]).encode() + content


async def rate(
    port: int, make: Callable[[int], bytes], *, count: int, connections: int, status: int
) -> float:
    """Requests a second over `connections` connections. Raises RuntimeError for any other answer than `status`."""
    numbers = iter(range(count))

    async def ask_on(connection: Connection) -> None:
        for number in numbers:
            got, body = await connection.ask(make(number))
            if got != status:
                raise RuntimeError(f"answer {got}: {body[:500]!r}")

    opened = [await Connection.open(port) for _ in range(connections)]
    try:
        begin = time.perf_counter()
        await asyncio.gather(*(ask_on(each) for each in opened))
        return count / (time.perf_counter() - begin)
    finally:
        for each in opened:
            await each.close()
