"""The fast lane and the routes that document it give the same answers."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from engine.api.app import create_app
from tests.integration.api.conftest import Api

PATH = "/executions/workflows/hello/execute"


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b'{"inputs": {"service": "web"}}', {"idempotency-key": "k"}),
        (b'{"inputs": {"service": 1}}', {}),
        (b'{"inputs": []}', {}),
        (b'{"inputs": {}, "other": 1}', {}),
        (b'{"inputs": {}, "ref": ""}', {}),
        (b"{", {}),
        (b"[" * 50_000, {}),
        (b'{"inputs": {"service": "web"}}', {"idempotency-key": "a b"}),
        (b'{"inputs": {"service": "web"}}', {"idempotency-key": "k" * 201}),
        (b'{"inputs": {"service": "web"}}', {"authorization": "Bearer nothing"}),
    ],
)
async def test_a_start_is_answered_alike(api: Api, content: bytes, headers: dict[str, str]) -> None:
    sent = {
        "authorization": f"Bearer {api.tokens['operator']}",
        "content-type": "application/json",
        **headers,
    }
    first, second = [await both(api, "POST", PATH, fast, sent, content) for fast in (True, False)]
    assert (first.status_code, first.headers["content-type"]) == (
        second.status_code,
        second.headers["content-type"],
    )
    assert shape(first.json()) == shape(second.json())


async def test_a_run_is_shown_alike(api: Api) -> None:
    run = (await api.start()).json()["id"]
    await api.ask(run)
    for path in (f"/executions/{run}", "/executions/nope"):
        sent = {"authorization": f"Bearer {api.tokens['viewer']}"}
        first, second = [await both(api, "GET", path, fast, sent) for fast in (True, False)]
        assert (first.status_code, first.json()) == (second.status_code, second.json())


async def both(
    api: Api, method: str, path: str, fast: bool, headers: dict[str, str], content: bytes = b""
) -> httpx2.Response:
    """The answer with the fast lane, or without."""
    transport = httpx2.ASGITransport(app=create_app(api.service, fast_lane=fast))
    async with httpx2.AsyncClient(transport=transport, base_url="http://pinflow.test") as client:
        return await client.request(method, path, headers=headers, content=content)


def shape(body: dict[str, Any]) -> Any:
    """What must be the same: the keys, and for problems what they say of where."""
    if "problems" in body:
        return sorted(body), body["code"], [problem["pointer"] for problem in body["problems"]]
    return sorted(body), body.get("code"), body.get("id")
