"""A target of side effects over a real socket: it writes down every request, and answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Effect:
    """One request as it arrived."""

    method: str
    path: str
    key: str
    body: Any


@dataclass
class Ledger:
    """An HTTP server that answers 200 with `{"ok": true, "path": …}` after `delay` seconds.

    `failures[path]` is how many further requests of that path are answered with 503.
    """

    delay: float = 0.0
    effects: list[Effect] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """http://host:port of the server."""
        return f"http://127.0.0.1:{self.port}"

    def keys(self, path: str) -> list[str]:
        """The idempotency keys of all requests of a path, in order."""
        return [effect.key for effect in self.effects if effect.path == path]

    async def start(self) -> Ledger:
        """Listen on a port that the system picks."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                await self._answer(line.decode(), reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the caller was killed: that is what some tests are about
        finally:
            writer.close()

    async def _answer(self, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, path, _ = line.split(" ", 2)
        headers: dict[str, str] = {}
        while (header := (await reader.readline()).decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        self.effects.append(
            Effect(method, path, headers.get("idempotency-key", ""), json.loads(raw) if raw else None)
        )
        await asyncio.sleep(self.delay)
        status = "200 OK"
        if self.failures[path] > 0:
            self.failures[path] -= 1
            status = "503 Service Unavailable"
        body = json.dumps({"ok": True, "path": path}).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
