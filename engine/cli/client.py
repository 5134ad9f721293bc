"""A small HTTP client of the Pinflow API, on the standard library: a command should start in no time."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from engine.errors import (
    Conflict,
    Forbidden,
    InputProblem,
    InvalidDefinition,
    InvalidInput,
    Misconfigured,
    NotFound,
    PinflowError,
    Problem,
    SourceError,
    Unauthenticated,
    Unavailable,
)

CLIENT_FILE = "client.json"
"""In the data folder of `pinflow up`: the URL and the token of the person at the machine."""

_BY_STATUS: dict[int, type[PinflowError]] = {
    400: InvalidInput,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: InvalidInput,
    422: InvalidInput,
}
_NO_ANSWER = (ConnectionError, TimeoutError, OSError, http.client.HTTPException)


class ServerFault(Exception):
    """The server answered with 5xx other than 503: a bug of Pinflow, on the other side."""


@dataclass(frozen=True, slots=True)
class Client:
    """Calls one server with one token. Replies are the JSON that the API documents.

    Raises the errors of the tree that the server's problem+json stands for.
    """

    url: str
    token: str = ""
    timeout: float = 30.0

    @classmethod
    def from_environment(cls, url: str = "") -> Client:
        """The server of PINFLOW_URL and PINFLOW_TOKEN, else the one that `pinflow up` runs in this folder or above.

        A `url` of the caller's own goes before both, with the token of PINFLOW_TOKEN.
        """
        local = local_stack()
        url = url or os.environ.get("PINFLOW_URL") or local.get("url") or "http://127.0.0.1:8000"
        same = url.rstrip("/") == str(local.get("url", "")).rstrip("/")
        # The local token is for the local server only: it must not be sent to whoever PINFLOW_URL names.
        token = os.environ.get("PINFLOW_TOKEN", "").strip() or (local.get("token", "") if same else "")
        return cls(url.rstrip("/"), token)

    def get(self, path: str, **query: Any) -> Any:
        """GET; parameters that are None or empty are left out."""
        chosen = {key: value for key, value in query.items() if value not in (None, "")}
        return self._call("GET", f"{path}?{urlencode(chosen)}" if chosen else path)

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """POST a JSON body."""
        return self._call("POST", path, {} if body is None else body, headers or {})

    def delete(self, path: str) -> Any:
        """DELETE."""
        return self._call("DELETE", path)

    def pages(self, path: str, limit: int, **query: Any) -> Iterator[Any]:
        """The items of a listing, page after page, at most `limit`."""
        cursor = None
        while limit > 0:
            page = self.get(path, limit=min(limit, 100), cursor=cursor, **query)
            yield from page["items"][:limit]
            limit -= len(page["items"])
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def start(self, path: str, body: Any, key: str, *, patience: float = 10.0) -> Any:
        """POST with an idempotency key, again and again while the server is away: it leads to one run at most."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return self.post(path, body, {"Idempotency-Key": key})
            except Unavailable as error:
                if time.monotonic() + error.retry_after > deadline:
                    raise
                time.sleep(min(error.retry_after, 2.0))

    def _call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        connection, root = self._connection()
        sent = {"accept": "application/json", **(headers or {})}
        if self.token:
            sent["authorization"] = f"Bearer {self.token}"
        for name, value in sent.items():
            if not (value.isascii() and value.isprintable()):
                raise Misconfigured(f"a line break or a letter beyond ASCII stands in {_told(name)}")
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["content-type"] = "application/json"
        try:
            connection.request(method, root + path, payload, sent)
            reply = connection.getresponse()
            content = reply.read()
        except _NO_ANSWER as error:
            raise Unavailable(
                f"no answer from {self.url}: {error or type(error).__name__}",
                hint="start one here with `pinflow up`, or name another in PINFLOW_URL",
            ) from error
        finally:
            connection.close()
        if reply.status >= 400:
            raise _error(reply, content)
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            said = f"the server answered {reply.status} {reply.reason} and no JSON"
            moved = reply.getheader("location")
            hint = f"it names another place: {moved}" if moved else "PINFLOW_URL may name another server"
            raise Misconfigured(f"{self.url} is no Pinflow server: {said}", hint=hint) from error

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        """A connection to be made, and what all paths begin with."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise Misconfigured(f"{self.url!r} is no URL: {error}", hint="set PINFLOW_URL") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Misconfigured(f"{self.url!r} is no http or https URL", hint="set PINFLOW_URL")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname, port, timeout=self.timeout), parts.path.rstrip("/")


def segment(text: str) -> str:
    """Text as one segment of a path. A slash stays, as in `source/name`."""
    return quote(text, safe="/")


def local_stack() -> dict[str, Any]:
    """What the nearest `pinflow up` left for its own person: `url`, `token`; empty if there is none."""
    named = os.environ.get("PINFLOW_DATA_DIR")
    here = Path.cwd()
    for folder in [Path(named)] if named else [place / ".pinflow" for place in (here, *here.parents)]:
        try:
            facts = json.loads((folder / CLIENT_FILE).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict):
            return facts
    return {}


def _told(header: str) -> str:
    """Where a person has said what stands in a header."""
    return {"authorization": "PINFLOW_TOKEN", "Idempotency-Key": "--idempotency-key"}.get(header, header)


def _error(reply: http.client.HTTPResponse, content: bytes) -> Exception:
    try:
        said = json.loads(content)
        assert isinstance(said, dict)
    except (ValueError, AssertionError):
        said = {}
    message = str(
        said.get("detail") or said.get("title") or f"the server answered {reply.status} {reply.reason}"
    )
    hint = str(said.get("hint") or "")
    problems = said.get("problems") or said.get("errors") or []
    # 502 and 504 without a word of ours are a proxy's, before a server that starts again.
    if reply.status in (429, 503) or (reply.status in (502, 504) and not said):
        return Unavailable(message, retry_after=_seconds(reply.getheader("retry-after")), hint=hint)
    kind = _BY_STATUS.get(reply.status)
    if kind is None:
        known = reply.status < 500 or said.get("code") in (Misconfigured.code, SourceError.code)
        return PinflowError(message, hint=hint) if known else ServerFault(f"{message} (HTTP {reply.status})")
    if kind is Unauthenticated:  # the server speaks to those who write requests themselves
        hint = "set PINFLOW_TOKEN, or call from the folder in which `pinflow up` runs"
    if kind is InvalidInput and said.get("code") == InvalidDefinition.code:
        return InvalidDefinition([Problem(**p) for p in problems], message, hint=hint)
    if kind is InvalidInput:
        return InvalidInput(
            message, [InputProblem(p.get("pointer", ""), p.get("message", "")) for p in problems], hint=hint
        )
    return kind(message, hint=hint)


def _seconds(text: str | None) -> float:
    try:
        return max(0.1, float(text or 2))
    except ValueError:
        return 2.0
