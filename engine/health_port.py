"""A few lines of HTTP by which an orchestrator asks a process how it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Look = Callable[[], Awaitable[dict[str, str]]]
"""What is not as it should be: name → why. Empty if all is well."""

_PATIENCE = 5.0


@asynccontextmanager
async def answering(host: str, port: int, problems: Look) -> AsyncIterator[int]:
    """Answer `GET /healthz` (the loop turns) and `GET /readyz` (200, or 503 and why); the port that was taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
                writer.write(await _reply(line, problems))
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # whoever asked went away, was too slow, or sent no HTTP
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port, limit=8192)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _reply(line: bytes, problems: Look) -> bytes:
    method, _, rest = line.decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD") or path not in ("/healthz", "/readyz"):
        return _http("404 Not Found", {"error": "only /healthz and /readyz are here"})
    found = await problems() if path == "/readyz" else {}
    return _http("503 Service Unavailable" if found else "200 OK", {"ok": not found, "problems": found})


def _http(status: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    return head.encode() + content
