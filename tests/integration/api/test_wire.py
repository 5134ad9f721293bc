"""What a request may cost on the wire, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from engine.api import wire
from engine.api.limits import RequestLimits
from engine.api.problems import problem

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def no_content(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that has read the request, and says nothing."""
    await problem(404, "nothing is here")(scope, receive, send)


@asynccontextmanager
async def served() -> AsyncIterator[Streams]:
    """A connection to a server of bounded HTTP."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        RequestLimits(no_content), http=wire.BoundedHttp, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listening]))
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await serving


async def send_for_ever(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send the same again and again. Raises `ConnectionError` when the other side has had enough."""
    while True:
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize("endless", [b"a" * 65_536, b"x-a: b\r\n" * 8192], ids=["one header", "many headers"])
async def test_a_head_without_an_end_is_cut(endless: bytes) -> None:
    async with served() as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-first: ")
        with pytest.raises(ConnectionError):
            await send_for_ever(writer, endless)


async def test_a_head_that_is_too_large_is_a_problem() -> None:
    async with served() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nx-first: " + b"a" * wire.MAX_HEAD)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 431 ")
        assert json.loads(body)["code"] == "HEAD_TOO_LARGE"


async def test_a_trailer_without_an_end_is_cut() -> None:
    async with served() as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
        with pytest.raises(ConnectionError):
            await send_for_ever(writer, b"x-a: b\r\n" * 8192)


async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_PATIENCE", 0.05)
    for begun in (b"", b"GET / HTTP/1.1\r\nhost:"):
        async with served() as (reader, writer):
            writer.write(begun)
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_requests_of_one_connection_are_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MAX_MESSAGE", 40_000)
    async with served() as (reader, writer):
        body = b" " * 20_000
        for _ in range(5):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n" + body)
            assert await reader.readline() == b"HTTP/1.1 404 Not Found\r\n"
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
