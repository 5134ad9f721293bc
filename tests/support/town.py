"""A scripted HTTP server: what workflows of the gallery call. Real sockets, answers by method and path, every request kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Answer: TypeAlias = tuple[int, Any]


@dataclass(frozen=True)
class Request:
    """What somebody asked for; header names in lower case, the body as JSON."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Script: TypeAlias = Answer | list[Answer] | Callable[[Request], Answer]
"""An answer for every request, answers one after the other (the last one for all that follow), or a function."""


@dataclass
class Town:
    """`answers` by `METHOD /path` (without the query); what is not there is a 404."""

    answers: dict[str, Script] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """http://host:port of the server."""
        return f"http://127.0.0.1:{self.port}"

    def asked(self, *methods: str) -> list[str]:
        """`METHOD /path` of every request of these methods (of all, if none is named), in order."""
        return [f"{r.method} {r.path}" for r in self.requests if not methods or r.method in methods]

    async def start(self) -> Town:
        """Listen on a port that the system picks."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = (await reader.readline()).decode().split()
        if len(first) != 3:
            writer.close()
            return
        headers: dict[str, str] = {}
        while (line := await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(
            first[0], first[1].partition("?")[0], headers, json.loads(content) if content else None
        )
        self.requests.append(request)
        status, body = self._answer(request)
        reply = b"" if body is None else json.dumps(body).encode()
        writer.write(
            f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(reply)}\r\n"
            "connection: close\r\n\r\n".encode()
            + reply
        )
        await writer.drain()
        writer.close()

    def _answer(self, request: Request) -> Answer:
        script = self.answers.get(f"{request.method} {request.path}", (404, {}))
        if callable(script):
            return script(request)
        if isinstance(script, list):
            return script.pop(0) if len(script) > 1 else script[0]
        return script
