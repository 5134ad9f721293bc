"""`http_request`: one HTTP request, and its answer as the task's result."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import httpx2
from pydantic import AfterValidator, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from engine.activities import http_body
from engine.activities.context import ActivityContext
from engine.activities.egress import EgressDenied
from engine.activities.failures import ActivityFailure
from engine.activities.registry import ActivityConfig, activity_type

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
_MAX_HOPS = 10
_ERROR_BODY = 8 * 1024
_METHODS = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Set by the client itself: given by hand they could smuggle a second request or reach another virtual host.
_RESERVED = frozenset(
    {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
    }
)

# What the task sets may be meant for one origin only (an API key has many names), so another origin gets these alone.
_KEPT_ACROSS_ORIGINS = frozenset(
    {"accept", "accept-encoding", "user-agent", "content-type", "idempotency-key"}
)


def _check_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if any(c.isspace() or ord(c) < 0x20 or ord(c) == 0x7F for c in url):
        raise ValueError("must not hold blanks or control characters; put parameters into `query`")
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise ValueError("must not hold a user name or password; send an `authorization` header instead")
    if not authority or authority.startswith(":"):
        raise ValueError("names no host")
    return url


def _check_headers(headers: dict[str, Any]) -> dict[str, Any]:
    for name, value in headers.items():
        if not _TOKEN.match(name):
            raise ValueError(f"{name!r} is no name of a header")
        if name.lower() in _RESERVED:
            raise ValueError(f"{name!r} is set by Pinflow itself")
        if _CONTROL.search(str(value)):
            raise ValueError(f"the value of {name!r} holds a control character")
    return headers


Scalar = str | int | float | bool
Status = Annotated[int, Field(ge=100, le=599)] | Annotated[str, Field(pattern=r"^[1-5]xx$")]


class HttpRequestConfig(ActivityConfig):
    """What to send, and which answer is a success."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "allOf": [
                {"not": {"required": ["json", "form"]}},
                {"not": {"required": ["json", "body"]}},
                {"not": {"required": ["form", "body"]}},
            ]
        },
    )

    method: _METHODS = Field(default="GET", description="HTTP method.")
    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="An `http` or `https` URL. Text that comes from data belongs into `query`, where it is encoded.",
        min_length=1,
        max_length=8192,
        # Of the check of URLs this is the part that a definition can be refused for before it runs.
        json_schema_extra={"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "examples": ["https://example.com/path"]},
    )
    headers: Annotated[dict[str, Scalar], AfterValidator(_check_headers)] = Field(
        default_factory=dict, description="Header names and values.", max_length=100
    )
    query: dict[str, Scalar | list[Scalar] | None] = Field(
        default_factory=dict,
        description="Query parameters, encoded and added to the URL. A list gives one parameter per item; null leaves it out.",
    )
    json_: Any = Field(default=None, alias="json", description="A body that is sent as JSON.")
    form: dict[str, Scalar | list[Scalar]] | None = Field(
        default=None,
        description="A body that is sent as an HTML form does (`application/x-www-form-urlencoded`).",
    )
    body: str | None = Field(default=None, description="A body that is sent as it stands, in UTF-8.")
    expected_status: Status | list[Status] = Field(
        default="2xx", description="The status or statuses that are a success: `201`, `2xx`, `[200, 404]`."
    )
    follow_redirects: bool = Field(
        default=False,
        description="Follow up to 10 redirects. Headers that the task sets are dropped when the origin changes.",
    )
    max_response_bytes: int = Field(
        default=1024 * 1024,
        ge=1,
        le=MAX_RESPONSE_BYTES,
        description="A larger answer, counted after decompression, is the error `TOO_LARGE`.",
    )

    @model_validator(mode="after")
    def _one_body(self) -> HttpRequestConfig:
        given = [name for name in ("json_", "form", "body") if name in self.model_fields_set]
        if len(given) > 1:
            raise ValueError("give one of `json`, `form` and `body`, not several")
        return self


class HttpResult(TypedDict):
    """The answer. Names of headers are lower-case; `body` is parsed if it is JSON, null if empty, else text."""

    status: int
    headers: dict[str, str]
    body: Any


@activity_type(
    name="http_request",
    config=HttpRequestConfig,
    result=HttpResult,
    errors=("HTTP_4XX", "HTTP_5XX", "HTTP_STATUS", "CONNECT", "TIMEOUT", "TOO_LARGE", "DENIED", "PROTOCOL"),
    description="""
    Send one HTTP request. Every request carries an `Idempotency-Key` header that is the same over all attempts of
    the task. Private, loopback and link-local addresses are refused unless the operator allows them.
    """,
    builtin=True,
)
async def HTTP_REQUEST(config: HttpRequestConfig, context: ActivityContext) -> HttpResult:
    """Send the request through the worker's guarded client."""
    request = _first(config, context.idempotency_key)
    with _typed(request):
        for _ in range(_MAX_HOPS + 1):
            response = await context.workbench.http.send(request)
            try:
                following = _following(request, response) if config.follow_redirects else None
                if following is None:
                    return await _result(config, request, response)
            finally:
                await response.aclose()
            request = following
    raise ActivityFailure("PROTOCOL", f"{_name(request)}: more than {_MAX_HOPS} redirects")


def _first(config: HttpRequestConfig, idempotency_key: str) -> httpx2.Request:
    headers = {
        b"accept": b"*/*",
        b"accept-encoding": http_body.ENCODINGS.encode(),
        b"user-agent": b"pinflow",
        b"idempotency-key": idempotency_key.encode(),
    }
    for name, value in config.headers.items():
        headers[name.lower().encode()] = _text(value).strip().encode()
    try:
        url = httpx2.URL(config.url)
        if url.port is not None and not 0 < url.port < 65536:
            raise ValueError(f"{url.port} is no port")
        for name, values in config.query.items():
            for each in values if isinstance(values, list) else [values]:
                url = url if each is None else url.copy_add_param(name, _text(each))
        return httpx2.Request(config.method, url, headers=headers, **_body(config, headers))
    except (httpx2.InvalidURL, ValueError) as error:
        raise ActivityFailure("INVALID_CONFIG", f"config.url: {error}", retryable=False) from error


def _body(config: HttpRequestConfig, headers: dict[bytes, bytes]) -> dict[str, Any]:
    if config.body is not None:
        headers.setdefault(b"content-type", b"text/plain; charset=utf-8")
        return {"content": config.body.encode()}
    if config.form is not None:
        return {
            "data": {
                k: [_text(i) for i in v] if isinstance(v, list) else _text(v) for k, v in config.form.items()
            }
        }
    if "json_" in config.model_fields_set:
        headers.setdefault(b"content-type", b"application/json")
        return {"content": json.dumps(config.json_, separators=(",", ":"), ensure_ascii=False).encode()}
    return {}


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _following(request: httpx2.Request, response: httpx2.Response) -> httpx2.Request | None:
    """The request of the next hop, None if the answer is no redirect."""
    location = response.headers.get("location")
    if response.status_code not in (301, 302, 303, 307, 308) or not location:
        return None
    try:
        url = request.url.join(location)
    except httpx2.InvalidURL as error:
        raise ActivityFailure("PROTOCOL", f"{_name(request)} redirects to no URL") from error
    if url.scheme not in ("http", "https"):
        raise ActivityFailure("DENIED", f"{_name(request)} redirects to {url.scheme[:20]!r}", retryable=False)
    if url.userinfo:
        url = url.copy_with(username=None, password=None)
    method, content = request.method, request.content
    if response.status_code == 303 or (response.status_code in (301, 302) and method == "POST"):
        method, content = ("HEAD" if method == "HEAD" else "GET"), b""
    keep = dict(request.headers)
    if _origin(url) != _origin(request.url):
        keep = {name: value for name, value in keep.items() if name in _KEPT_ACROSS_ORIGINS}
    for name in ("host", "content-length", "transfer-encoding"):
        keep.pop(name, None)
    if not content:
        keep.pop("content-type", None)
    return httpx2.Request(method, url, headers=keep, content=content or None)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _result(
    config: HttpRequestConfig, request: httpx2.Request, response: httpx2.Response
) -> HttpResult:
    status = response.status_code
    content_type = response.headers.get("content-type", "")
    if not _expected(status, config.expected_status):
        raise await _unexpected(request, response, content_type)
    content = b"" if request.method == "HEAD" else await http_body.read(response, config.max_response_bytes)
    return {
        "status": status,
        "headers": dict(response.headers),
        "body": http_body.parse(content, content_type),
    }


def _expected(status: int, expected: int | str | list[int | str]) -> bool:
    wanted = expected if isinstance(expected, list) else [expected]
    return any(each in (status, f"{status // 100}xx") for each in wanted)


async def _unexpected(
    request: httpx2.Request, response: httpx2.Response, content_type: str
) -> ActivityFailure:
    status = response.status_code
    kind = {4: "HTTP_4XX", 5: "HTTP_5XX"}.get(status // 100, "HTTP_STATUS")
    details: dict[str, Any] = {"status": status}
    try:
        if request.method != "HEAD":
            details["body"] = http_body.parse(await http_body.read(response, _ERROR_BODY), content_type)
    except (ActivityFailure, httpx2.HTTPError):
        pass  # the status says enough; a broken or a large body must not hide it
    if "retry-after" in response.headers:
        details["retry_after"] = response.headers["retry-after"][:60]
    hint = "; set follow_redirects to follow it" if 300 <= status < 400 else ""
    return ActivityFailure(
        kind, f"{_name(request)} answered {status} {response.reason_phrase}".rstrip() + hint, details=details
    )


def _name(request: httpx2.Request) -> str:
    """Method and host; paths and queries often hold secrets, and an error is shown to every reader of the run."""
    return f"{request.method} {request.url.netloc.decode('ascii', 'replace')}"


@contextmanager
def _typed(request: httpx2.Request) -> Iterator[None]:
    """httpx's errors stop here."""
    try:
        yield
    except EgressDenied as error:
        raise ActivityFailure("DENIED", str(error), retryable=False) from error
    except httpx2.UnsupportedProtocol as error:
        raise ActivityFailure("DENIED", f"{_name(request)}: {error}", retryable=False) from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.NetworkError) as error:
        raise ActivityFailure("CONNECT", f"{_name(request)}: {str(error) or type(error).__name__}") from error
    except httpx2.TimeoutException as error:
        raise ActivityFailure("TIMEOUT", f"{_name(request)}: {type(error).__name__}") from error
    except httpx2.HTTPError as error:
        raise ActivityFailure(
            "PROTOCOL", f"{_name(request)}: {str(error) or type(error).__name__}"
        ) from error
