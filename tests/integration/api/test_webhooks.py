"""`POST /webhooks/{forge}`: signed, taken once, and trusted for nothing but a look."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from engine.api.app import create_app
from engine.services.workflow_service import WorkflowService
from engine.settings import ForgeSettings
from engine.storage import sources
from tests.integration.api.conftest import Api

KEY = "hook-secret"
PUSH = {
    "github": {"ref": "refs/heads/main", "repository": {"full_name": "ada/flows"}},
    "gitea": {"ref": "refs/heads/main", "repository": {"full_name": "ada/flows"}},
    "gitlab": {"object_kind": "push", "project": {"path_with_namespace": "ada/flows"}},
}


class Hooks:
    """Sends deliveries as the forges do."""

    def __init__(self, api: Api, client: httpx2.AsyncClient) -> None:
        self.api = api
        self.client = client

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
    async with api.database.begin() as connection:
        for kind in ("github", "gitlab", "gitea"):
            for name, repository in (("flows", "ada/flows"), ("other", "ada/other")):
                url = f"https://{kind}.example.test/{repository}.git"
                await sources.ensure(
                    connection, name=f"{kind}-{name}", url=url, branch="main", folder="workflows"
                )
    app = create_app(WorkflowService(api.database, api.executor, forges=forges))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://pinflow.test"
    ) as client:
        yield Hooks(api, client)


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


async def test_a_flood_leaves_one_look(hooks: Hooks) -> None:
    for number in range(50):
        assert (
            await hooks.send("github", payload("github", number=number), delivery=str(number))
        ).status_code == 202
    assert await hooks.asked() == ["github-flows"]


async def test_old_deliveries_are_forgotten(hooks: Hooks) -> None:
    await hooks.send("github", payload("github"), delivery="old")
    await hooks.api.rows("UPDATE forge_deliveries SET received_at = now() - interval '8 days'")
    await hooks.send("github", payload("github"), delivery="new")
    assert [row["delivery"] for row in await hooks.api.rows("SELECT delivery FROM forge_deliveries")] == [
        "new"
    ]
