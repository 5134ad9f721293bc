"""The patterns of the gallery on the whole system: what their comments promise, seen over REST."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.git import Repository
from tests.support.system import System
from tests.support.town import Answer, Request, Town

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]
GALLERY = Path(__file__).parents[2] / "workflows"
SECRETS = {"HOOK_SECRET": "hook-5f1d", "BUILD_TOKEN": "build-77aa", "ACCESS_TOKEN": "access-90ce"}


@pytest_asyncio.fixture(loop_scope="session")
async def town() -> AsyncIterator[Town]:
    served = await Town().start()
    yield served
    await served.stop()


class Live(System):
    """A system that watches a repository with the gallery in it."""

    repository: Repository


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    folder = tmp_path_factory.mktemp("patterns")
    whole = Live(folder / "whole")
    whole.repository = Repository(folder / "repository")
    whole.repository.commit(
        {
            f"workflows/{file.relative_to(GALLERY).as_posix()}": file.read_text(encoding="utf-8")
            for pattern in ("*.yaml", "functions/*.py")
            for file in GALLERY.glob(pattern)
        }
    )
    whole.folder.mkdir(exist_ok=True)
    whole.sources = [{"name": "main", "url": str(whole.repository.path), "poll_interval": 1}]
    whole.settings = {f"PINFLOW_SECRET_{name}": value for name, value in SECRETS.items()}
    whole.settings["PINFLOW_PUBLIC_URL"] = f"http://127.0.0.1:{whole.port}"
    try:
        await whole.start()
        await whole.live("maintenance", whole.repository.head())
        yield whole
    finally:
        await whole.stop()


async def run(system: System, workflow: str, status: str = "COMPLETED", **inputs: Any) -> Any:
    """A run to its end."""
    return await system.finished((await system.execute(workflow, inputs))["id"], status)


def created(**body: Any) -> Answer:
    return 201, body


async def test_thumbnails_of_all_but_the_picture_that_is_gone(system: Live, town: Town) -> None:
    for name in ("a", "b", "c", "d"):
        town.answers[f"GET /pictures/{name}"] = (200, name * 3)
    town.answers["POST /thumbnails"] = lambda request: created(url=f"/t/{request.body['name']}")
    done = await run(system, "thumbnails", api=town.url, pictures=["a", "b", "gone", "c", "d"])
    assert done["outputs"] == {"urls": ["/t/a", "/t/b", "/t/c", "/t/d"], "missing": 1}


async def test_a_trip_that_cannot_be_completed_is_given_back_the_last_booking_first(
    system: Live, town: Town
) -> None:
    town.answers |= {
        "POST /flights": created(id="F1"),
        "POST /hotels": created(id="H1"),
        "POST /cars": (409, {"error": "no car left"}),
        "DELETE /hotels/H1": (204, None),
        "DELETE /flights/F1": (204, None),
        "POST /messages": (202, None),
    }
    done = await run(system, "book-trip", "FAILED", api=town.url, traveller="ada")
    assert done["error"]["task"] == "car"
    assert town.asked("DELETE") == ["DELETE /hotels/H1", "DELETE /flights/F1"]
    assert town.asked()[-1] == "POST /messages"


async def test_a_small_refund_asks_nobody(system: Live, town: Town) -> None:
    town.answers["POST /payments"] = created(id="p1")
    done = await run(system, "refund", api=town.url, order="o1", amount=20)
    assert done["outputs"] == {"paid": "p1"}
    assert town.requests[-1].body["approved_by"] == "rule"


async def test_a_rollout_runs_its_children_at_its_own_commit_whatever_is_merged(
    system: Live, town: Town
) -> None:
    for region in ("eu", "us", "ap"):
        town.answers[f"POST /{region}/web"] = (200, {"release": f"r-{region}"})
        town.answers[f"GET /{region}/web/health"] = (200, {"ok": True})
    old = system.repository.head()
    started = await system.execute("regional-rollout", {"api": town.url, "service": "web", "soak": "4s"})
    child = (GALLERY / "deploy-region.yaml").read_text(encoding="utf-8")
    newer = system.repository.commit(
        {"workflows/deploy-region.yaml": child.replace("/health", "/nothing-here")}
    )
    await system.live("deploy-region", newer)
    done = await system.finished(started["id"])
    assert done["outputs"] == {"releases": ["r-eu", "r-us", "r-ap"]}
    children = (await system.ok("GET", f"/executions?parent={started['id']}"))["items"]
    assert [each["workflow"] for each in children] == ["deploy-region"] * 3
    assert {each["commit_sha"] for each in children} == {old}
    system.repository.commit({"workflows/deploy-region.yaml": child})


async def test_a_job_that_calls_back_is_waited_for(system: Live, town: Town) -> None:
    def accept(request: Request) -> Answer:
        asyncio.get_running_loop().run_in_executor(
            None, _post, request.body["callback"], {"ok": True, "value": 7}
        )
        return 202, None

    town.answers["POST /jobs"] = accept
    done = await run(system, "external-job", api=town.url)
    assert done["outputs"] == {"value": 7}


async def test_a_callback_is_good_for_one_use(system: Live, town: Town) -> None:
    told: list[str] = []

    def accept(request: Request) -> Answer:
        told.append(request.body["callback"])
        return 202, None

    town.answers["POST /jobs"] = accept
    started = await system.execute("external-job", {"api": town.url})
    await system.until(lambda: _is(bool(told)), "the job to be asked for")
    assert await asyncio.to_thread(_post, told[0], {"ok": True}) == 202
    assert await asyncio.to_thread(_post, told[0], {"ok": False}) in (404, 409, 410)
    await system.finished(started["id"])
    assert await asyncio.to_thread(_post, told[0][:-4] + "0000", {"ok": True}) == 404


async def test_a_push_is_built_once_for_a_commit(system: Live, town: Town) -> None:
    town.answers["POST /builds"] = created(image="acme/web:1")
    definition = (GALLERY / "on-push.yaml").read_text(encoding="utf-8")
    sha = system.repository.commit(
        {"workflows/on-push.yaml": definition.replace("https://build.example.test", town.url)}
    )
    await system.live("on-push", sha)
    body = {"ref": "refs/heads/main", "after": "c0ffee", "repository": {"full_name": "acme/web"}}
    images = []
    for delivery in ("d1", "d2"):
        reply = await _hook(system, body, delivery)
        assert reply[0] == 202
        images.append((await system.finished(reply[1]["id"]))["outputs"]["image"])
    assert images == ["acme/web:1"] * 2
    assert town.asked() == ["POST /builds"]
    assert town.requests[0].headers["authorization"] == "Bearer build-77aa"


async def test_a_push_elsewhere_or_with_a_wrong_signature_starts_nothing(system: Live, town: Town) -> None:
    body = {"ref": "refs/heads/dev", "after": "c0ffee", "repository": {"full_name": "acme/web"}}
    status, answer = await _hook(system, body, "d3")
    assert (status, answer["id"]) == (202, "")
    status, _ = await _hook(system, body | {"ref": "refs/heads/main"}, "d4", key="wrong")
    assert status in (401, 403, 404)


async def test_all_pages_are_read(system: Live, town: Town) -> None:
    town.answers["GET /items"] = [
        (200, {"items": [1, 2], "next": "b"}), (200, {"items": [3], "next": "c"}), (200, {"items": [4]}),
    ]  # fmt: skip
    done = await run(system, "all-pages", api=town.url)
    assert done["outputs"] == {"items": [1, 2, 3, 4], "pages": 3}


async def test_a_job_is_polled_until_it_is_done(system: Live, town: Town) -> None:
    town.answers |= {
        "POST /jobs": (202, {"id": "j1"}),
        "GET /jobs/j1": (200, {"state": "done", "result": 42}),
    }
    done = await run(system, "long-job", api=town.url)
    assert done["outputs"] == {"result": 42, "polls": 1}


async def test_two_maintenances_of_one_service_take_turns(system: Live, town: Town) -> None:
    town.answers |= {
        "PUT /db/maintenance": (200, None),
        "POST /db/vacuum": (200, None),
        "POST /db/reindex": (200, None),
        "DELETE /db/maintenance": (204, None),
    }
    started = [await system.execute("maintenance", {"api": town.url, "service": "db"}) for _ in range(3)]
    for each in started:
        await system.finished(each["id"])
    switches = [asked.split()[0] for asked in town.asked() if asked.endswith("/maintenance")]
    assert switches == ["PUT", "DELETE"] * 3


async def test_goods_wait_for_the_carrier_of_their_own_parcel(system: Live, town: Town) -> None:
    town.answers["POST /parcels"] = (200, {"parcel": "p1"})
    started = await system.execute("dispatch-order", {"api": town.url, "order": "o1", "kind": "goods"})
    child = await _child(system, started["id"])
    for parcel in ("p0", "p1"):
        await system.ok(
            "POST", f"/executions/{child}/signal", {"name": "picked-up", "correlation": parcel, "payload": {}}
        )
    done = await system.finished(started["id"])
    assert done["outputs"] == {"parcel": "p1"}


async def test_every_database_of_every_cluster_is_backed_up(system: Live, town: Town) -> None:
    town.answers |= {
        "GET /a/databases": (200, ["x", "y"]),
        "GET /b/databases": (200, ["z"]),
        **{f"POST /{cluster}/backup": (200, {"file": cluster}) for cluster in ("a/x", "a/y", "b/z")},
    }
    done = await run(system, "backup-all", api=town.url, clusters=["a", "b"])
    assert done["outputs"]["clusters"] == [
        {"cluster": "a", "files": ["a/x", "a/y"]}, {"cluster": "b", "files": ["b/z"]},
    ]  # fmt: skip


async def test_a_change_waits_until_the_freeze_is_lifted(system: Live, town: Town) -> None:
    town.answers["POST /changes"] = (200, None)
    started = await system.execute(
        "change-window", {"api": town.url, "at": "2020-01-01T00:00:00Z", "frozen": True}
    )
    await system.ok("POST", f"/executions/{started['id']}/signal", {"name": "freeze-lifted", "payload": {}})
    done = await system.finished(started["id"])
    assert done["outputs"] == {"applied": True}


async def test_the_schedule_of_the_nightly_report_is_live_and_can_be_made_up(
    system: Live, town: Town
) -> None:
    town.answers |= {"GET /figures": (200, [1, 2])}
    workflow = await system.ok("GET", "/workflows/nightly-report")
    assert [each["id"] for each in workflow["triggers"]] == ["workdays"]


async def _child(system: Live, parent: str) -> str:
    found: list[str] = []

    async def condition() -> bool:
        reply = await system.call("GET", f"/executions?parent={parent}")
        found[:] = [each["id"] for each in reply.body["items"]] if reply.status == 200 else []
        return bool(found)

    await system.until(condition, f"a child of {parent}")
    return found[0]


async def _is(value: bool) -> bool:
    return value


def _post(url: str, body: Any) -> int:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def _hook(system: Live, body: Any, delivery: str, key: str = SECRETS["HOOK_SECRET"]) -> tuple[int, Any]:
    content = json.dumps(body).encode()
    signature = "sha256=" + hmac.new(key.encode(), content, hashlib.sha256).hexdigest()
    request = urllib.request.Request(
        f"http://127.0.0.1:{system.port}/hooks/on-push/pushed",
        content,
        {"content-type": "application/json", "x-hub-signature-256": signature, "x-github-delivery": delivery},
        method="POST",
    )

    def send() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    return await asyncio.to_thread(send)
