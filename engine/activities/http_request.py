"""`http_request`: one HTTP request, and its answer as the task's result."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from engine.activities.context import ActivityContext
from engine.activities.registry import ActivityConfig, activity_type

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
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
                {"not": {"required": pair}} for pair in (["json", "form"], ["json", "body"], ["form", "body"])
            ]
        },
    )

    method: _METHODS = Field(default="GET", description="HTTP method.")
    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="An `http` or `https` URL. Text that comes from data belongs into `query`, where it is encoded.",
        min_length=1,
        max_length=8192,
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
    return await context.workbench.http.request(config, context)
