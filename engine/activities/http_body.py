"""The body of an answer: decompressed under a limit, then made into JSON or text."""

from __future__ import annotations

import json
import zlib
from typing import Any

import httpx2

from engine.activities.failures import ActivityFailure

ENCODINGS = "gzip, deflate"
"""What we say that we accept: only what we can decompress step by step under a limit."""


async def read(response: httpx2.Response, limit: int) -> bytes:
    """The decompressed body. Raises TOO_LARGE as soon as it passes `limit`, PROTOCOL if it cannot be decompressed."""
    decoder = _Decoder(response.headers.get("content-encoding", ""), limit)
    parts = [decoder.feed(chunk) async for chunk in response.aiter_raw()]
    decoder.finish()
    return b"".join(parts)


def parse(content: bytes, content_type: str) -> Any:
    """JSON if the type says so and it is, null if empty, else text (bytes that are none become U+FFFD)."""
    if not content:
        return None
    media, _, parameters = content_type.partition(";")
    media = media.strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            return json.loads(content, parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass  # it said JSON and is not: the author sees the text
    try:
        return content.decode(_charset(parameters), errors="replace")
    except LookupError:
        return content.decode("utf-8", errors="replace")


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "charset":
            # Codecs such as `base64` or `zip` are no text encodings, and one of them is a bomb.
            text = value.strip().strip('"').lower()
            if text in (
                "latin-1",
                "iso-8859-1",
                "us-ascii",
                "windows-1252",
                "cp1252",
                "utf-16",
                "shift_jis",
                "gbk",
            ):
                return text
    return "utf-8"


class _Decoder:
    """Counts what comes out, and never lets zlib give more than the limit allows."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._encoding = encoding.strip().lower()
        self._started = False
        self._zlib: Any = None
        if self._encoding in ("gzip", "x-gzip"):
            self._zlib = zlib.decompressobj(31)
        elif self._encoding == "deflate":
            self._zlib = zlib.decompressobj(15)
        elif self._encoding not in ("", "identity"):
            raise ActivityFailure(
                "PROTOCOL", f"the answer's content-encoding {encoding[:60]!r} was not asked for"
            )

    def feed(self, data: bytes) -> bytes:
        """What `data` decompresses to."""
        if self._zlib is None:
            return self._counted(data)
        out: list[bytes] = []
        while data:
            out.append(self._counted(self._inflate(data)))
            self._started = True
            if self._zlib.eof:
                data = self._zlib.unused_data
                if not data or self._encoding == "deflate":
                    break
                self._zlib = zlib.decompressobj(31)  # gzip may have several members
            else:
                data = self._zlib.unconsumed_tail
        return b"".join(out)

    def finish(self) -> None:
        """The body has ended."""
        if self._started and not self._zlib.eof:
            raise ActivityFailure("PROTOCOL", "the compressed answer ends too early")

    def _inflate(self, data: bytes) -> bytes:
        # One byte more than allowed, so that `_counted` sees that it is too much.
        room = self._limit - self._size + 1
        try:
            return bytes(self._zlib.decompress(data, room))
        except zlib.error as error:
            if self._encoding == "deflate" and not self._started:
                # Half of the world sends raw deflate under this name.
                self._zlib = zlib.decompressobj(-15)
                self._started = True
                return self._inflate(data)
            raise ActivityFailure("PROTOCOL", f"the answer cannot be decompressed: {error}") from error

    def _counted(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self._limit:
            raise ActivityFailure(
                "TOO_LARGE",
                f"the answer is larger than max_response_bytes ({self._limit})",
                details={"limit": self._limit},
            )
        return data
