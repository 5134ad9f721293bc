"""HTTP over real loopback sockets, written by hand so that it can misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Seen:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Handler = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Server:
    """Where it listens, what it saw, and how many connections were made."""

    port: int = 0
    connections: int = 0
    seen: list[Seen] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """A URL of this server."""
        return f"http://{host}:{self.port}{path}"


@asynccontextmanager
async def serving(handler: Handler, *, keep_alive: bool = False) -> AsyncIterator[Server]:
    """A server whose every request is answered by `handler`, which writes the raw bytes."""
    server = Server()
    writers: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        writers.add(writer)
        try:
            while True:
                request = await _read(reader)
                server.seen.append(request)
                await handler(request, writer)
                await writer.drain()
                if not keep_alive:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writers.discard(writer)
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in list(writers):
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.split("\r\n")
    method, target, _ = line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in rest if h)}
    return Seen(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A plain answer; `content_type="x"` gives `content-type: x`."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def always(raw: bytes) -> Handler:
    """A handler that always writes the same bytes."""

    async def handle(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return handle
