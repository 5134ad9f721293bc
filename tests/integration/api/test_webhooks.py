"""`POST /webhooks/{forge}`: signed, taken once, and trusted for nothing but a look."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from engine.api.app import create_app
from engine.errors import Unavailable
from engine.services.workflow_service import WorkflowService
from engine.settings import ForgeSettings
from engine.storage import forge_messages, sources
from tests.integration.api.conftest import Api

KEY = "hook-secret"
TOKEN = "whsec_" + base64.b64encode(b"k" * 32).decode()
PUSH = {
    "github": {"ref": "refs/heads/main", "repository": {"full_name": "ada/flows"}},
    "gitea": {"ref": "refs/heads/main", "repository": {"full_name": "ada/flows"}},
    "gitlab": {"object_kind": "push", "project": {"path_with_namespace": "ada/flows"}},
}


class Hooks:
    """Sends deliveries as the forges do."""

    def __init__(self, api: Api, client: httpx2.AsyncClient, service: WorkflowService) -> None:
        self.api = api
        self.client = client
        self.service = service

    async def get(self, path: str) -> httpx2.Response:
        """A call by a viewer."""
        return await self.client.get(path, headers={"authorization": f"Bearer {self.api.tokens['viewer']}"})

    async def send(
        self, kind: str, body: bytes, *, key: str = KEY, delivery: str = "", to: str = ""
    ) -> httpx2.Response:
        headers = {"content-type": "application/json"} | signature(kind, key, body)
        name = {"github": "x-github-delivery", "gitea": "x-gitea-delivery", "gitlab": "idempotency-key"}[kind]
        if delivery:
            headers[name] = delivery
        return await self.client.post(f"/webhooks/{to or kind}", content=body, headers=headers)

    async def asked(self) -> list[str]:
        """The sources that are to be looked at, which are then no more."""
        rows = await self.api.rows(
            "WITH asked AS (SELECT name FROM sources WHERE sync_requested_at IS NOT NULL),"
            " gone AS (UPDATE sources SET sync_requested_at = NULL) SELECT name FROM asked ORDER BY name"
        )
        return [row["name"] for row in rows]


def signature(kind: str, key: str, body: bytes) -> dict[str, str]:
    made = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return {
        "github": {"x-hub-signature-256": f"sha256={made}"},
        "gitea": {"x-gitea-signature": made},
        "gitlab": {"x-gitlab-token": key},
    }[kind]


def payload(kind: str, **more: Any) -> bytes:
    return json.dumps(PUSH[kind] | more).encode()


@pytest_asyncio.fixture(loop_scope="session")
async def hooks(api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hooks]:
    monkeypatch.setenv("HOOK_SECRET", KEY)
    forges = [
        ForgeSettings(name=kind, kind=kind, api="https://x.example.test", hosts=(f"{kind}.example.test",), webhook_secret_env="HOOK_SECRET")
        for kind in ("github", "gitlab", "gitea")
    ]  # fmt: skip
    forges.append(ForgeSettings(name="silent", kind="github", api="https://x.example.test"))
    monkeypatch.setenv("SIGNING_TOKEN", TOKEN)
    forges.append(
        ForgeSettings(name="signing", kind="gitlab", api="https://x.example.test", hosts=("signing.example.test",), webhook_secret_env="SIGNING_TOKEN")
    )  # fmt: skip
    async with api.database.begin() as connection:
        for kind in ("github", "gitlab", "gitea", "signing"):
            for name, repository in (("flows", "ada/flows"), ("other", "ada/other")):
                url = f"https://{kind}.example.test/{repository}.git"
                await sources.ensure(
                    connection, name=f"{kind}-{name}", url=url, branch="main", folder="workflows"
                )
    service = WorkflowService(api.database, api.executor, forges=forges)
    app = create_app(service)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://pinflow.test"
    ) as client:
        yield Hooks(api, client, service)


@pytest.mark.parametrize("kind", PUSH)
async def test_a_push_has_the_sources_of_its_repository_looked_at(hooks: Hooks, kind: str) -> None:
    reply = await hooks.send(kind, payload(kind), delivery="1")
    assert (reply.status_code, reply.json()) == (202, {"asked": [f"{kind}-flows"]})
    assert await hooks.asked() == [f"{kind}-flows"]


@pytest.mark.parametrize("kind", PUSH)
async def test_a_delivery_that_comes_again_asks_for_nothing(hooks: Hooks, kind: str) -> None:
    for delivery in ("1", ""):
        assert (await hooks.send(kind, payload(kind), delivery=delivery)).json()["asked"]
        await hooks.asked()
        assert (await hooks.send(kind, payload(kind), delivery=delivery)).json() == {"asked": []}
        assert await hooks.asked() == []


@pytest.mark.parametrize("kind", PUSH)
@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[" * 5000, b"[]", b'{"repository": 7, "project": []}', b"payload=%7B%7D"]
)
async def test_what_names_no_repository_has_all_of_the_forge_looked_at(
    hooks: Hooks, kind: str, body: bytes
) -> None:
    reply = await hooks.send(kind, body)
    assert (reply.status_code, reply.json()["asked"]) == (202, [f"{kind}-flows", f"{kind}-other"])


@pytest.mark.parametrize("kind", PUSH)
async def test_who_cannot_sign_learns_nothing(hooks: Hooks, kind: str) -> None:
    answers = [
        await hooks.send(kind, payload(kind), key="wrong"),
        await hooks.send(kind, payload(kind), key=""),
        await hooks.send(kind, payload(kind), to="nowhere"),
        await hooks.send("github", payload(kind), to="silent"),
        await hooks.client.post(f"/webhooks/{kind}", content=payload(kind)),
    ]
    assert {reply.status_code for reply in answers} == {401}
    assert len({reply.json()["detail"] for reply in answers}) == 1
    assert await hooks.asked() == []
    assert await hooks.api.rows("SELECT 1 FROM forge_deliveries") == []


@pytest.mark.parametrize("kind", ["github", "gitea"])
async def test_a_body_that_was_changed_on_the_way_is_refused(hooks: Hooks, kind: str) -> None:
    body = payload(kind)
    chance = random.Random(3)
    for _ in range(200):
        changed = bytearray(body)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        reply = await hooks.client.post(
            f"/webhooks/{kind}", content=bytes(changed), headers=signature(kind, KEY, body)
        )
        assert reply.status_code == 401
    assert await hooks.asked() == []


async def test_hostile_signatures_are_refused(hooks: Hooks) -> None:
    body = payload("github")
    good = signature("github", KEY, body)["x-hub-signature-256"]
    for said in (
        "sha1=" + "0" * 40,
        good[:-1],
        good.upper(),
        good + "0",
        "sha256=",
        "\xe9",
        good.removeprefix("sha256="),
    ):
        reply = await hooks.client.post(
            "/webhooks/github", content=body, headers={b"x-hub-signature-256": said.encode("latin-1")}
        )
        assert reply.status_code == 401


async def test_a_large_body_is_cut_off(hooks: Hooks) -> None:
    body = b" " * (1024 * 1024 + 1)
    assert (await hooks.send("github", body)).status_code == 413


# --- GitLab's signing token ---------------------------------------------------------------------------------------


def signed(body: bytes, delivery: str = "d-1", at: int = 0, token: str = TOKEN) -> dict[str, str]:
    """The headers of GitLab for a webhook with a signing token."""
    moment = at or int(time.time())
    key = base64.b64decode(token.removeprefix("whsec_"))
    made = base64.b64encode(hmac.digest(key, f"{delivery}.{moment}.".encode() + body, "sha256")).decode()
    said = {"webhook-id": delivery, "webhook-timestamp": str(moment), "webhook-signature": f"v1,{made}"}
    return said | {"idempotency-key": delivery, "x-gitlab-event": "Push Hook"}


async def test_gitlabs_signing_token_is_taken(hooks: Hooks) -> None:
    body = payload("gitlab")
    reply = await hooks.client.post("/webhooks/signing", content=body, headers=signed(body))
    assert (reply.status_code, reply.json()) == (202, {"asked": ["signing-flows"]})
    again = signed(body, at=int(time.time()) - 60) | {"idempotency-key": "made up"}
    reply = await hooks.client.post("/webhooks/signing", content=body, headers=again)
    assert reply.json() == {"asked": []}, "known by the id that is signed"


async def test_with_a_signing_token_nothing_else_is_believed(hooks: Hooks) -> None:
    body = payload("gitlab")
    good = signed(body)
    for headers in (
        {"x-gitlab-token": TOKEN},
        {"x-gitlab-token": KEY},
        good | {"webhook-id": "other"},
        good | {"webhook-signature": good["webhook-signature"].replace("v1,", "v1a,")},
        signed(body, at=int(time.time()) - 301),
        signed(body, token="whsec_" + base64.b64encode(b"o" * 32).decode()),
        signed(body + b" "),
    ):
        reply = await hooks.client.post("/webhooks/signing", content=body, headers=headers)
        assert reply.status_code == 401, headers
    assert await hooks.asked() == []


async def test_a_secret_that_is_not_there_is_news_for_the_operator_alone(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = await hooks.send("github", payload("github"), key="wrong")
    monkeypatch.delenv("HOOK_SECRET")
    refused = await hooks.send("github", payload("github"))
    assert (refused.status_code, refused.json()) == (wrong.status_code, wrong.json())
    listed = {row["name"]: row for row in (await hooks.get("/sources")).json()["items"]}
    assert listed["signing-flows"]["warnings"] == []
    (warning,) = listed["github-flows"]["warnings"]
    assert "webhook of forge github is refused" in warning
    assert "set HOOK_SECRET" in warning
    page = (await hooks.get("/metrics")).text
    assert 'pinflow_webhooks_total{door="forge",outcome="no_secret"} 1.0' in page
    assert 'pinflow_webhooks_total{door="forge",outcome="unsigned"} 1.0' in page


# --- floods -------------------------------------------------------------------------------------------------------


async def test_a_flood_costs_few_transactions_and_leaves_one_look(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good, repeated, forged and endless deliveries at once, with somebody who reads in between."""
    batches: list[int] = []
    really = forge_messages.take_deliveries

    async def counted(connection: Any, deliveries: Any) -> Any:
        batches.append(len(deliveries))
        return await really(connection, deliveries, kept=100)

    monkeypatch.setattr("engine.services.forges.forge_messages.take_deliveries", counted)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b"x" * 65_536

    good = [hooks.send("github", payload("github", number=number % 400), delivery=str(number % 400)) for number in range(600)]  # fmt: skip
    forged = [hooks.send("github", payload("github", number=number), key="wrong") for number in range(400)]
    large = [hooks.client.post("/webhooks/github", content=endless()) for _ in range(10)]
    reads = [hooks.get("/sources") for _ in range(20)]
    calls = [*good, *forged, *large, *reads]
    random.Random(1).shuffle(calls)
    answers: list[int] = []
    for first in range(0, len(calls), 103):  # in ten waves: how long a wave takes is the machine's affair
        replies = await asyncio.gather(*calls[first : first + 103])
        answers += [reply.status_code for reply in replies]
    found = {status: answers.count(status) for status in sorted(set(answers))}
    assert found == {200: 20, 202: 600, 401: 400, 413: 10}
    assert sum(batches) <= 600
    assert len(batches) <= 60, "deliveries that come together share a transaction"
    assert await hooks.asked() == ["github-flows"]
    assert sent <= 10 * (1024 * 1024 + 2 * 65_536)
    kept = len(await hooks.api.rows("SELECT 1 FROM forge_deliveries"))
    assert kept <= 100 + max(batches)
    counts = hooks.service.tally.counts
    assert (counts["forge", "taken"] + counts["forge", "repeated"], counts["forge", "unsigned"]) == (600, 400)


async def test_deliveries_that_are_kept_are_bounded(hooks: Hooks) -> None:
    for first in range(0, 500, 50):
        async with hooks.api.database.begin() as connection:
            deliveries = [("github", f"{number:04}") for number in range(first, first + 50)]
            await forge_messages.take_deliveries(connection, deliveries, kept=100)
    kept = [
        row["delivery"] for row in await hooks.api.rows("SELECT delivery FROM forge_deliveries ORDER BY 1")
    ]
    assert kept[-1] == "0499"
    assert 100 <= len(kept) <= 150


async def test_deliveries_wait_for_a_postgres_that_is_away_and_are_taken_when_sent_again(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(connection: Any, deliveries: Any) -> Any:
        raise Unavailable("Postgres is away")

    with monkeypatch.context() as patched:
        patched.setattr("engine.services.forges.forge_messages.take_deliveries", away)
        refused = [hooks.send("github", payload("github", n=n), delivery=str(n)) for n in range(5)]
        assert {reply.status_code for reply in await asyncio.gather(*refused)} == {503}
    assert (await hooks.send("github", payload("github", n=1), delivery="1")).json()["asked"] == [
        "github-flows"
    ]


async def test_old_deliveries_are_forgotten(hooks: Hooks) -> None:
    await hooks.send("github", payload("github"), delivery="old")
    await hooks.api.rows("UPDATE forge_deliveries SET received_at = now() - interval '8 days'")
    await hooks.send("github", payload("github"), delivery="new")
    assert [row["delivery"] for row in await hooks.api.rows("SELECT delivery FROM forge_deliveries")] == [
        "new"
    ]
