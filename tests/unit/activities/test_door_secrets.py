"""A secret goes into an attempt and never comes out of it: results, errors, details, causes, logs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
import structlog
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError

from engine.activities.context import Workbench
from engine.core.contracts import ActivityCall, Judgement
from engine.dsl import bundle
from engine.dsl.environment import Environment
from engine.dsl.expressions import compile_expression
from engine.logs import _renderers, _shared
from tests.support.activities import attempt, call, workbench
from tests.support.evil_server import Seen, always, answer, serving

CANARY = 'can"ary/+word-7f3a'
PLACES: list[Any] = [{"path": ["headers", "authorization"], "parts": ["Bearer ", {"secret": "TOKEN"}]}]
CODE = b"""
def show(token):
    print("got", token)
    return {"raw": token, token: [token]}

def fail(token):
    print(token)
    raise ValueError(f"bad {token}")

def die(token):
    import os, sys
    sys.stdout.write(token); sys.stdout.flush()
    os._exit(3)
"""
BUNDLE = bundle.pack({"f.py": CODE})


@pytest_asyncio.fixture(loop_scope="session")
async def bench() -> AsyncIterator[Workbench]:
    packed = {bundle.digest(BUNDLE): BUNDLE}
    async with workbench(secrets={"TOKEN": CANARY}, bundles=packed) as made:
        yield made


@pytest.fixture(params=["json", "text"])
def logs(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    written = io.StringIO()
    structlog.configure(
        processors=[*_shared(request.param), *_renderers(request.param)],
        logger_factory=structlog.WriteLoggerFactory(written),
        cache_logger_on_first_use=False,
    )
    yield written.getvalue
    structlog.reset_defaults()


def http(url: str, **fields: Any) -> ActivityCall:
    return call("http_request", {"url": url, "headers": {"authorization": None}}, secrets=PLACES, **fields)


def function(name: str, **fields: Any) -> ActivityCall:
    return call(
        "python_function",
        {"function": f"f:{name}", "args": {"token": None}},
        secrets=[{"path": ["args", "token"], "parts": [{"secret": "TOKEN"}]}],
        bundle_digest=bundle.digest(BUNDLE),
        **fields,
    )


def hidden(text: str) -> bool:
    """Whether the canary is in the text in none of its forms."""
    forms = (
        CANARY,
        json.dumps(CANARY)[1:-1],
        json.dumps(json.dumps(CANARY)[1:-1])[1:-1],
        base64.b64encode(CANARY.encode()).decode().rstrip("="),
        quote(CANARY),
        quote(CANARY, safe=""),
    )
    return not any(form in text for form in forms)


def failure_of(error: BaseException) -> str:
    """What Temporal would keep of an error: message, stack, details and all causes."""
    failure = Failure()
    DefaultFailureConverter().to_failure(error, PayloadConverter.default, failure)
    return str(failure) + str([p.data for p in failure.application_failure_info.details.payloads])


async def test_the_target_gets_the_secret_and_the_history_does_not(bench: Workbench) -> None:
    async def echo(seen: Seen, writer: Any) -> None:
        said = {
            "raw": seen.headers["authorization"],
            "base64": base64.b64encode(f"user:{CANARY}".encode()).decode(),
            "url": quote(CANARY, safe=""),
            CANARY: 1,
        }
        writer.write(answer(json.dumps(said).encode(), content_type="application/json", x_echo=quote(CANARY)))

    async with serving(echo) as server:
        request = http(server.url())
        result = await attempt(bench, request)
        assert server.seen[0].headers["authorization"] == f"Bearer {CANARY}"
    assert hidden(json.dumps(result))
    assert result["body"]["raw"] == "Bearer ***"
    assert request.config == {"url": server.url(), "headers": {"authorization": None}}


async def test_a_failure_tells_nothing_of_it(bench: Workbench, logs: Any) -> None:
    body = json.dumps({"echo": CANARY, "deep": json.dumps({"again": CANARY})}).encode()
    async with serving(always(answer(body, "401 Unauthorized", content_type="application/json"))) as server:
        with pytest.raises(ApplicationError) as failed:
            await attempt(bench, http(server.url()))
    assert failed.value.type == "HTTP_4XX"
    assert "***" in str(failed.value.details)
    assert hidden(failure_of(failed.value))
    said = logs()
    assert "attempt failed" in said
    assert hidden(said)


async def test_what_a_condition_reads_is_hidden_already(bench: Workbench) -> None:
    expr = compile_expression(
        f"result.body == '{CANARY}'", Environment({"result": "dyn", "attempt": "dyn"}, {})
    ).entry()
    async with serving(always(answer(CANARY.encode(), content_type="text/plain"))) as server:
        with pytest.raises(ApplicationError) as failed:
            await attempt(bench, http(server.url(), success_when=Judgement(expr)))
    assert failed.value.type == "NOT_SUCCESSFUL"


async def test_a_function_gets_it_and_what_it_prints_and_returns_is_hidden(
    bench: Workbench, logs: Any
) -> None:
    assert await attempt(bench, function("show")) == {"raw": "***", "***": ["***"]}
    said = logs()
    assert "got ***" in said
    assert hidden(said)


@pytest.mark.parametrize(("name", "type_"), [("fail", "ValueError"), ("die", "FUNCTION_CRASHED")])
async def test_a_function_that_fails_tells_nothing_of_it(
    bench: Workbench, logs: Any, name: str, type_: str
) -> None:
    with pytest.raises(ApplicationError) as failed:
        await attempt(bench, function(name))
    assert failed.value.type == type_
    assert "***" in failure_of(failed.value)
    assert hidden(failure_of(failed.value))
    assert hidden(logs())


async def test_a_config_that_the_value_spoils_is_refused_without_quoting_it(bench: Workbench) -> None:
    spoilt = call("http_request", {"url": None}, secrets=[{"path": ["url"], "parts": [{"secret": "TOKEN"}]}])
    with pytest.raises(ApplicationError) as failed:
        await attempt(bench, spoilt)
    assert failed.value.type == "INVALID_CONFIG"
    assert hidden(failure_of(failed.value))


async def test_a_bug_of_an_activity_type_that_quotes_it_is_hidden_with_its_causes(
    bench: Workbench, logs: Any
) -> None:
    from pydantic import BaseModel

    from engine.activities.registry import ActivityContext, activity_type

    class Config(BaseModel):
        token: str

    @activity_type(name="acme.leak", config=Config)
    async def leak(config: Config, context: ActivityContext) -> Any:
        """Leaks."""
        context.log.info("working", token=config.token)
        try:
            raise KeyError(config.token)
        except KeyError as error:
            raise RuntimeError(f"cannot use {config.token}") from error

    leaky = call("acme.leak", {"token": None}, secrets=[{"path": ["token"], "parts": [{"secret": "TOKEN"}]}])
    with pytest.raises(ApplicationError) as failed:
        await attempt(bench, leaky, types=[leak])
    assert failed.value.message == "cannot use ***"
    assert hidden(failure_of(failed.value))
    said = logs()
    assert "activity raised" in said
    assert hidden(said)


async def test_a_missing_secret_is_a_failure_that_may_be_tried_again(bench: Workbench) -> None:
    request = call("http_request", {"url": None}, secrets=[{"path": ["url"], "parts": [{"secret": "OTHER"}]}])
    with pytest.raises(ApplicationError) as failed:
        await attempt(bench, request)
    assert failed.value.type == "SECRET_MISSING"
    assert not failed.value.non_retryable
    assert "OTHER" in failed.value.message
    assert "PINFLOW_SECRET_OTHER" in failed.value.message
