"""The one door at which our errors become problem+json (RFC 9457)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import (
    Conflict,
    Forbidden,
    InvalidDefinition,
    InvalidInput,
    Misconfigured,
    NotFound,
    PinflowError,
    SourceError,
    Unauthenticated,
    Unavailable,
)
from engine.services.inputs import pointer

MEDIA_TYPE = "application/problem+json"
TYPES = "urn:pinflow:problem:"
"""Each type is this and a word of `TITLES`."""

STATUS: dict[type[PinflowError], int] = {
    InvalidDefinition: 422,
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    Forbidden: 403,
    Unauthenticated: 401,
    Misconfigured: 500,
    SourceError: 502,
    Unavailable: 503,
}
"""The status of each class of the tree; a test holds it complete."""

TITLES = {
    400: ("malformed", "The request cannot be read"),
    401: ("unauthenticated", "The request says not who sends it"),
    403: ("forbidden", "You may not do this"),
    404: ("not-found", "What was named does not exist"),
    405: ("method-not-allowed", "This path does not know the method"),
    408: ("timeout", "The request did not arrive in time"),
    409: ("conflict", "The state has moved on"),
    413: ("too-large", "The request is too large"),
    415: ("unsupported-media-type", "The request is no JSON"),
    422: ("invalid", "The request has faults"),
    431: ("head-too-large", "The head of the request is too large"),
    500: ("fault", "Pinflow has a fault"),
    502: ("source", "A git repository cannot be used"),
    503: ("unavailable", "Something that Pinflow needs is away"),
}
"""Status → the word of its type, and its title; docs/reference/http.md has the table."""

_UNREADABLE = "There was an error parsing the body"
"""FastAPI's own words for a body that is no text, or holds a number of thousands of digits."""
_TOLD = 50
"""Problems of one request told at once."""

_log = structlog.get_logger(__name__)


def problem(
    status: int,
    detail: str,
    *,
    code: str = "",
    hint: str = "",
    problems: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem+json answer."""
    word, title = TITLES.get(status, ("error", "The request failed"))
    body: dict[str, Any] = {
        "type": TYPES + word,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code or word.upper().replace("-", "_"),
    }
    if hint:
        body["hint"] = hint
    if problems is not None:
        body["problems"] = problems
    content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
    return Response(content, status, headers, MEDIA_TYPE)


def of_error(error: PinflowError) -> Response:
    """The answer for one of our errors."""
    status = STATUS[next(kind for kind in type(error).__mro__ if kind in STATUS)]
    problems = None
    headers: dict[str, str] = {}
    if isinstance(error, InvalidInput | InvalidDefinition):
        problems = [fault.to_json() for fault in error.problems]
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="pinflow"'
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if status == 500:
        _log.error("request failed", code=error.code, reason=str(error))
    return problem(
        status, error.message, code=error.code, hint=error.hint, problems=problems, headers=headers
    )


def install(app: FastAPI) -> None:
    """Every error of the app leaves as a problem."""
    app.add_exception_handler(PinflowError, _on_pinflow)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_pinflow(request: Request, error: Exception) -> Response:
    assert isinstance(error, PinflowError)
    return of_error(error)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return of_validation(
        [fault | {"loc": fault["loc"][1:], "place": fault["loc"][0]} for fault in error.errors()[:_TOLD]]
    )


def of_validation(faults: Sequence[Mapping[str, Any]]) -> Response:
    """The answer for what Pydantic found. `loc` is the path in the body, or in the `place` that a fault names."""
    problems = []
    for fault in faults[:_TOLD]:
        place = fault.get("place", "body")
        if fault["type"] == "json_invalid":
            return problem(400, f"the body is not JSON: {fault['ctx']['error']}")
        message = fault["msg"] if place == "body" else f"{place} parameter: {fault['msg']}"
        problems.append({"pointer": pointer(*fault["loc"]), "message": message})
    summary = "; ".join(f"{fault['pointer'] or 'the body'}: {fault['message']}" for fault in problems[:3])
    return problem(422, summary, code=InvalidInput.code, problems=problems)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == 404:
        detail, code = f"nothing is at {request.url.path[:200]}", NotFound.code
        return problem(404, detail, code=code, hint="GET /openapi.json lists what is")
    if error.status_code == 405:
        detail = f"{request.method} does not go with {request.url.path[:200]}"
        return problem(405, detail, headers={"allow": _allowed(request)})
    if error.status_code == 400 and detail == _UNREADABLE:
        detail = "the body is not JSON in UTF-8"
    return problem(error.status_code, detail, headers=dict(error.headers or {}))


def _allowed(request: Request) -> str:
    """The methods of the path. Starlette knows those of the first route that has it; here a path has several."""
    routes = request.app.router.routes
    return ", ".join(
        method
        for method in ("GET", "POST", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )


class LastResort:
    """Answers for what no door knew: 500, without any detail, and a line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            _log.exception("request failed", method=scope["method"], path=scope["path"])
            if begun:
                raise
            answer = problem(500, "this is a bug of Pinflow; its log has more", code="FAULT")
            await answer(scope, receive, send)
