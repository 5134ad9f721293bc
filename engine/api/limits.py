"""What a request may cost before anybody has looked at it."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.api.problems import problem

MAX_BODY = 1024 * 1024
"""Bytes, as counted: a Content-Length can lie."""
_PATIENCE = 30.0
"""Seconds for a body to arrive."""
WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "DELETE")
"""Methods whose body nobody reads."""
_SMALL = 64 * 1024
_HELD = 64 * 1024 * 1024
"""Bytes that all bodies together may have beyond `_SMALL` each: whoever sends many large ones waits for the others,
and stops nobody who sends little."""


class RequestLimits:
    """Reads the body whole, up to `MAX_BODY`, before the app sees the request; refuses U+0000 in a URL."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer for it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Postgres keeps no U+0000 in text, and nothing of ours has it in its name.
        if "\x00" in scope["path"] or "\x00" in unquote(scope["query_string"].decode("latin-1")):
            await problem(400, "the URL holds the character U+0000")(scope, receive, send)
            return
        if scope["method"] in WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        share = _Share(self)
        try:
            await self._with_body(scope, receive, send, share)
        finally:
            share.give_back()

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, share: _Share) -> None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        body = None if declared.isdigit() and int(declared) > MAX_BODY else bytearray()
        try:
            async with asyncio.timeout(_PATIENCE):
                body = body if body is None else await _read(receive, share)
        except TimeoutError:
            await problem(408, f"the body did not arrive within {_PATIENCE:g} s")(scope, receive, send)
        except _Full:
            answer = problem(503, "too many large requests at once", headers=_AWAY)
            await answer(scope, receive, send)
        else:
            if body is None:
                answer = problem(
                    413, f"the body has more than {MAX_BODY} bytes", headers={"connection": "close"}
                )
                await answer(scope, receive, send)
                return
            await self._app(scope, _replay(bytes(body), receive), send)

    def hold(self, more: int) -> bool:
        """Whether so many bytes more may be held; then they are."""
        if more > 0 and self._held + more > _HELD:
            return False
        self._held += more
        return True


class _Full(Exception):
    """All that large bodies may have is taken."""


class _Share:
    """What one request holds of it."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._has = 0

    def grow(self, length: int) -> None:
        """The body has `length` bytes by now. Raises `_Full`."""
        beyond = max(0, length - _SMALL)
        if not self._limits.hold(beyond - self._has):
            raise _Full
        self._has = beyond

    def give_back(self) -> None:
        """The request is over."""
        self._limits.hold(-self._has)


_AWAY = {"connection": "close", "retry-after": "1"}


async def _read(receive: Receive, share: _Share) -> bytearray | None:
    """The body, or None if it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body  # the caller went away: the app will see it
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        share.grow(len(body))
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
