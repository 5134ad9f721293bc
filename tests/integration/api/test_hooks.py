"""Webhooks over HTTP: signed requests become runs, once; all else ends at the door."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from engine import faults
from engine.activities.secrets import EnvironmentSecrets, Secrets
from engine.api.app import create_app
from engine.api.limits import MAX_BODY
from engine.executor.schedule_sync import ScheduleSync
from engine.executor.schedules import Schedules
from engine.services.signatures import sign
from engine.services.workflow_service import WorkflowService
from tests.integration.api.conftest import Api
from tests.support.registered import register
from tests.support.triggers import schedule, triggered, webhook

SECRET = "canary-hook-secret"
INPUTS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"ref": {"type": "string"}, "event": {"type": "string"}},
}
PUSHED = webhook(
    when="${{ trigger.body.ref == 'refs/heads/main' }}",
    inputs={"ref": "${{ trigger.body.ref }}", "event": "${{ trigger.headers['x-github-event'] }}"},
)
MAIN = {"ref": "refs/heads/main"}


class Sender:
    """Somebody else's system, which knows the secret."""

    def __init__(self, api: Api) -> None:
        self.api = api
        secrets = Secrets([("environment", EnvironmentSecrets({"PINFLOW_SECRET_HOOK": SECRET}))])
        self.service = WorkflowService(api.database, api.executor, secrets=secrets)
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=create_app(self.service)), base_url="http://pinflow.test"
        )

    async def send(
        self, body: Any = None, *, path: str = "/hooks/report/pushed", **headers: str
    ) -> httpx2.Response:
        """A request with a signature of ours, unless `headers` say otherwise (`_` for `-`, "" for none)."""
        raw = body if isinstance(body, bytes) else json.dumps(MAIN if body is None else body).encode()
        sent = {"content-type": "application/json", "x-github-event": "push"}
        sent["x-pinflow-signature"] = sign(SECRET, raw, time=int(time.time()))
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        return await self.client.post(path, content=raw, headers=sent)

    async def github(self, body: Any = None, delivery: str = "", **headers: str) -> httpx2.Response:
        """A request as GitHub sends it."""
        raw = json.dumps(MAIN if body is None else body).encode()
        made = hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
        signed = {"x_pinflow_signature": "", "x_hub_signature_256": f"sha256={made}"}
        return await self.send(raw, **signed, x_github_delivery=delivery, **headers)

    async def runs(self) -> list[dict[str, Any]]:
        """All runs."""
        return await self.api.rows("SELECT * FROM workflow_executions ORDER BY id")


@pytest.fixture
def sender(api: Api) -> Sender:
    return Sender(api)


async def publish(
    sender: Sender, *triggers: dict[str, Any], source: str = "main", version: str = "1"
) -> None:
    form = triggered("report", *(triggers or (PUSHED,)), inputs=INPUTS, version=version)
    await register(sender.api.database, "report", compiled=form, source=source)


async def test_a_signed_request_starts_a_run_that_knows_of_it(sender: Sender) -> None:
    await publish(sender)
    reply = await sender.send()
    assert reply.status_code == 202
    (run,) = await sender.runs()
    assert reply.json() == {
        "status": "STARTED",
        "reason": "",
        "id": run["id"],
        "workflow": "report",
        "commit_sha": run["commit_sha"],
        "repeated": False,
    }
    assert run["inputs"] == {"ref": "refs/heads/main", "event": "push"}
    assert run["started_by"] == "trigger:pushed"
    assert run["trigger"]["body"] == MAIN
    assert run["trigger"]["headers"]["x-github-event"] == "push"


async def test_githubs_signature_is_taken(sender: Sender) -> None:
    await publish(sender)
    assert (await sender.github(delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958")).status_code == 202


async def test_what_proves_the_sender_is_not_kept(sender: Sender) -> None:
    await publish(sender)
    await sender.send(
        {"ref": "refs/heads/main", "echo": SECRET},
        authorization="Bearer topsecret-1",
        x_gitlab_token=SECRET,
        x_note=f"it is {SECRET}",
    )
    (run,) = await sender.runs()
    kept = json.dumps(run["trigger"])
    assert SECRET not in kept
    assert "topsecret-1" not in kept
    assert "signature" not in kept
    assert run["trigger"]["headers"]["x-note"] == "it is ***"


async def test_when_false_is_answered_with_why_and_starts_nothing(sender: Sender) -> None:
    await publish(sender)
    reply = await sender.send({"ref": "refs/heads/other"})
    assert (reply.status_code, reply.json()["status"]) == (202, "IGNORED")
    assert reply.json()["reason"] == "`when` is false"
    assert await sender.runs() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"x_pinflow_signature": ""},
        {"x_pinflow_signature": sign("another secret", json.dumps(MAIN).encode(), time=int(time.time()))},
        {"x_pinflow_signature": sign(SECRET, json.dumps(MAIN).encode(), time=1_700_000_000)},
        {"x_pinflow_signature": "", "x_hub_signature_256": "sha256=" + "0" * 64},
        {"x_pinflow_signature": "", "authorization": "Bearer pf_x"},
    ],
)
async def test_a_request_that_is_not_signed_with_the_secret_is_refused(
    sender: Sender, headers: dict[str, str]
) -> None:
    await publish(sender)
    reply = await sender.send(**headers)
    assert reply.status_code == 401
    assert reply.headers["content-type"] == "application/problem+json"
    assert await sender.runs() == []


async def test_a_stranger_does_not_learn_which_webhooks_there_are(sender: Sender) -> None:
    await publish(sender, PUSHED, schedule())
    wrong = {"x_pinflow_signature": sign("not the secret", json.dumps(MAIN).encode(), time=int(time.time()))}
    known = await sender.send(**wrong)
    for path in ("/hooks/nothing/pushed", "/hooks/report/nothing", "/hooks/report/nightly"):
        unknown = await sender.send(path=path, **wrong)
        assert (unknown.status_code, unknown.json()) == (known.status_code, known.json())


async def test_a_body_is_not_read_before_its_signature_is_believed(sender: Sender) -> None:
    await publish(sender)
    deep = b"[" * 100_000
    assert (await sender.send(deep, x_pinflow_signature="t=1,v1=0")).status_code == 401
    assert (await sender.send(deep)).status_code == 422


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"NaN", "application/json"),
        (b'{"a": "\\u0000"}', "application/json"),
        (b'{"a": "\\ud800"}', "application/json"),
        (b"payload=%7B", "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_that_cannot_be_kept_is_refused_with_why(
    sender: Sender, body: bytes, content_type: str
) -> None:
    await publish(sender, webhook())
    reply = await sender.send(body, content_type=content_type)
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert await sender.runs() == []


@pytest.mark.parametrize(
    ("body", "content_type", "read"),
    [
        (b"a=1&b=x+y", "application/x-www-form-urlencoded", {"a": "1", "b": "x y"}),
        (b"payload=%7B%22a%22%3A1%7D", "application/x-www-form-urlencoded", {"a": 1}),
        (b"plain", "text/plain; charset=utf-8", "plain"),
        (b'{"a":1}', "application/cloudevents+json", {"a": 1}),
        (b"", "", ""),
    ],
)
async def test_forms_and_texts_are_read_as_what_they_are(
    sender: Sender, body: bytes, content_type: str, read: Any
) -> None:
    await publish(sender, webhook())
    assert (await sender.send(body, content_type=content_type)).status_code == 202
    (run,) = await sender.runs()
    assert run["trigger"]["body"] == read


async def test_a_body_that_is_too_large_is_refused_while_it_comes(sender: Sender) -> None:
    await publish(sender)
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 10 * MAX_BODY:
            sent += 65_536
            yield b"x" * 65_536

    reply = await sender.client.post("/hooks/report/pushed", content=endless())
    assert reply.status_code == 413
    assert sent <= MAX_BODY + 2 * 65_536


async def test_a_delivery_that_is_sent_again_is_one_run(sender: Sender) -> None:
    await publish(sender)
    raw = json.dumps(MAIN).encode()
    first = await sender.send(
        raw, x_pinflow_signature=sign(SECRET, raw, time=int(time.time()), delivery="d1")
    )
    again = await sender.send(
        raw, x_pinflow_signature=sign(SECRET, raw, time=int(time.time()) - 7, delivery="d1")
    )
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["repeated"]
    other = await sender.send(
        raw, x_pinflow_signature=sign(SECRET, raw, time=int(time.time()), delivery="d2")
    )
    assert other.json()["id"] != first.json()["id"]


async def test_a_recorded_request_that_is_played_again_is_one_run(sender: Sender) -> None:
    await publish(sender)
    signature = sign(SECRET, json.dumps(MAIN).encode(), time=int(time.time()))
    replies = [await sender.send(x_pinflow_signature=signature) for _ in range(3)]
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len(await sender.runs()) == 1


async def test_githubs_delivery_id_is_not_signed_so_the_body_decides_within_the_window(
    sender: Sender,
) -> None:
    await publish(sender)
    first = await sender.github(delivery="one")
    replayed = await sender.github(delivery="two")
    assert replayed.json()["id"] == first.json()["id"]
    await sender.api.rows("UPDATE trigger_fires SET at = at - interval '1 hour'")
    assert (await sender.github(delivery="one")).json()["id"] == first.json()["id"]
    assert (await sender.github(delivery="three")).json()["id"] != first.json()["id"]


async def test_the_same_delivery_many_times_at_once_is_one_run(sender: Sender) -> None:
    await publish(sender)
    replies = await asyncio.gather(*(sender.github(delivery=f"d{n % 2}") for n in range(8)))
    assert [reply.status_code for reply in replies] == [202] * 8
    assert len(await sender.runs()) == 1


@pytest.mark.parametrize("point", ["fire.after_claim", "start.after_commit", "fire.after_start"])
async def test_a_sender_that_tries_again_after_our_death_gets_the_one_run(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    await publish(sender)
    raw = json.dumps(MAIN).encode()
    signed = {"x_pinflow_signature": sign(SECRET, raw, time=int(time.time()), delivery="d1")}
    monkeypatch.setenv("PINFLOW_FAULTS", f"{point}=error")
    assert (await sender.send(raw, **signed)).status_code == 500
    assert faults.POINTS[point]
    monkeypatch.delenv("PINFLOW_FAULTS")
    # Something is merged meanwhile that makes other inputs.
    await publish(sender, webhook(inputs={"ref": "x"}), version="2")
    assert (await sender.send(raw, **signed)).status_code == 202
    assert len(await sender.runs()) == 1


async def test_inputs_that_do_not_fit_are_told_to_the_sender(sender: Sender) -> None:
    await publish(sender, webhook(inputs={"ref": "${{ trigger.body.ref }}"}))
    reply = await sender.send({"ref": 5})
    assert reply.status_code == 422
    assert reply.json()["problems"][0]["pointer"] == "/inputs/ref"
    assert (await sender.send({"no": "ref"})).status_code == 422


async def test_of_several_sources_the_signature_or_the_path_tells_which(sender: Sender) -> None:
    await publish(sender)
    await publish(sender, webhook(secret="OTHER"), source="second", version="2")
    assert (await sender.send(path="/hooks/main/report/pushed")).status_code == 202
    assert (await sender.send(path="/hooks/second/report/pushed")).status_code == 401
    assert (
        await sender.send({"ref": "refs/heads/main", "n": 2}, path="/hooks/report/pushed")
    ).status_code == 202


async def test_a_secret_that_the_operator_lacks_is_no_news_for_strangers(sender: Sender) -> None:
    await publish(sender, webhook(secret="MISSING"))
    lacking, absent = await sender.send(), await sender.send(path="/hooks/nothing/pushed")
    assert lacking.status_code == 401
    assert (lacking.status_code, lacking.json()) == (absent.status_code, absent.json())
    assert await sender.runs() == []


async def test_a_secret_that_is_missing_is_told_to_the_operator(sender: Sender) -> None:
    await publish(sender, webhook(secret="MISSING"))
    with capture_logs() as told:
        for _ in range(3):
            await sender.send()
    (line,) = told
    assert (line["log_level"], line["webhook"]) == ("error", "/hooks/main/report/pushed")
    assert "MISSING" in line["reason"]
    reader = {"authorization": f"Bearer {sender.api.tokens['viewer']}"}
    shown = (await sender.client.get("/workflows/report", headers=reader)).json()["triggers"][0]
    assert shown["status"] == "NO_SECRET"
    assert "MISSING" in shown["message"]
    page = (await sender.client.get("/metrics", headers=reader)).text
    assert 'pinflow_webhooks_total{door="trigger",outcome="no_secret"} 3.0' in page


async def test_strangers_in_great_number_are_sent_away_and_stop_nobody_who_reads(sender: Sender) -> None:
    await publish(sender)
    reader = {"authorization": f"Bearer {sender.api.tokens['viewer']}"}
    body = json.dumps(MAIN).encode()
    wrong = {"x-pinflow-signature": sign("not the secret", body, time=int(time.time()))}
    calls = [sender.client.post("/hooks/report/pushed", content=body, headers=wrong) for _ in range(300)]
    calls += [sender.client.get("/workflows", headers=reader) for _ in range(20)]
    answers = [reply.status_code for reply in await asyncio.gather(*calls)]
    assert answers[300:] == [200] * 20
    assert set(answers[:300]) == {401, 503}
    assert answers[:300].count(401) >= 128, "those in line are answered"
    assert (await sender.send()).status_code == 202


async def test_the_form_of_standard_webhooks_is_taken_once(sender: Sender) -> None:
    await publish(sender)
    body, now = json.dumps(MAIN).encode(), int(time.time())

    def headers(at: int) -> dict[str, str]:
        made = base64.b64encode(hmac.digest(SECRET.encode(), f"d1.{at}.".encode() + body, "sha256")).decode()
        return {"x_pinflow_signature": "", "webhook_id": "d1", "webhook_timestamp": str(at), "webhook_signature": f"v1,{made}"}  # fmt: skip

    first, again = await sender.send(body, **headers(now)), await sender.send(body, **headers(now - 9))
    assert (first.status_code, again.json()["id"]) == (202, first.json()["id"])
    (run,) = await sender.runs()
    assert "webhook-signature" not in run["trigger"]["headers"]


async def test_readers_see_the_triggers_of_a_workflow(sender: Sender) -> None:
    await publish(sender, PUSHED, schedule(timezone="Europe/Rome"))
    await sender.send()
    reply = await sender.api.call("GET", "/workflows/report")
    hook, nightly = reply.json()["triggers"]
    assert hook["path"] == "/hooks/main/report/pushed"
    assert hook["last"]["status"] == "STARTED"
    assert (nightly["cron"], nightly["timezone"], nightly["status"]) == (
        ["0 6 * * *"],
        "Europe/Rome",
        "PENDING",
    )
    assert nightly["next"] is None
    assert SECRET not in reply.text


async def test_a_schedule_that_temporal_refuses_is_shown_with_its_source(sender: Sender) -> None:
    await publish(sender, schedule(cron="61 * * * *"))
    executor = sender.api.executor
    await ScheduleSync(sender.api.database, Schedules(executor.client, task_queue=executor.task_queue)).tell()
    (source,) = (await sender.api.call("GET", "/sources")).json()["items"]
    (refused,) = source["refused_triggers"]
    assert (refused["workflow"], refused["id"]) == ("report", "nightly")
    assert "Minute is not in range" in refused["message"]
    (shown,) = (await sender.api.call("GET", "/workflows/report")).json()["triggers"]
    assert (shown["status"], shown["message"]) == ("REFUSED", refused["message"])


async def test_readers_see_what_comes_next(sender: Sender) -> None:
    await publish(sender, schedule(cron="0 6 1 1 *"))
    executor = sender.api.executor
    schedules = Schedules(executor.client, task_queue=executor.task_queue)
    await ScheduleSync(sender.api.database, schedules).tell()
    (shown,) = (await sender.api.call("GET", "/workflows/report")).json()["triggers"]
    assert shown["status"] == "APPLIED"
    assert shown["next"]
    assert all(at.endswith("-01-01T06:00:00Z") for at in shown["next"])
    assert shown["paused"] is False
    async for page in schedules.ids():
        for id in page:
            await schedules.remove(id)


async def test_a_span_is_backfilled_over_http(sender: Sender) -> None:
    await publish(sender, schedule())
    span = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-03T00:00:00Z"}
    path = "/workflows/main/report/triggers/nightly/backfill"
    reply = await sender.api.call("POST", path, span, by="operator")
    assert reply.status_code == 202
    assert [item["status"] for item in reply.json()["items"]] == ["STARTED", "STARTED"]
    assert reply.json()["next"] is None
    assert (await sender.api.call("POST", path, span, by="viewer")).status_code == 403
    naive = {"from": "2026-03-01T00:00:00", "to": "2026-03-03T00:00:00Z"}
    assert (await sender.api.call("POST", path, naive)).status_code == 422
