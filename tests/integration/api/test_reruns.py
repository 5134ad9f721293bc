"""Doing runs once more: on the same pin, on another commit, from what failed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from engine.api.schemas.executions import Rerunning
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from tests.integration.api.conftest import Api
from tests.integration.api.test_steering import child_of
from tests.support.registered import Registered, register

RELEASE = """\
name: release
inputs:
  type: object
  required: [service]
  properties: {service: {type: string}}
tasks:
  - {id: build, activity_type: http_request, config: {method: GET, url: "https://a.test/build/${{ inputs.service }}"}}
  - {id: gate, activity_type: human_approval, depends_on: [build], config: {message: "Go with ${{ tasks.build.outputs.status }}?"}}
  - {id: deploy, activity_type: http_request, depends_on: [gate], config: {method: GET, url: "https://a.test/deploy"}}
  - {id: smoke, activity_type: http_request, depends_on: [deploy], config: {method: GET, url: "https://a.test/smoke"}}
"""
FIXED = RELEASE.replace("a.test/smoke", "a.test/smoke-test")
STRICTER = FIXED.replace(
    "properties: {service: {type: string}}", "properties: {service: {type: string}, region: {type: string}}"
).replace("required: [service]", "required: [service, region]")


async def deployed(api: Api, text: str) -> Registered:
    """Deploy a definition as the sync would; its version."""
    checked = check(text.encode(), "release.yaml", ActivityTypes.default())
    assert checked.compiled is not None, checked.problems
    return await register(api.database, checked.name, compiled=checked.compiled)


async def failed_run(api: Api) -> str:
    """A run of `release` whose last task failed, as its own last step would record it; its id."""
    reply = await api.call("POST", "/executions/workflows/release/execute", {"inputs": {"service": "web"}})
    run = str(reply.json()["id"])
    for position, (task, status, outputs) in enumerate(
        (
            ("build", "COMPLETED", '{"status": 200}'),
            ("gate", "COMPLETED", '{"decision": "approved"}'),
            ("deploy", "COMPLETED", '{"status": 201}'),
            ("smoke", "FAILED", "null"),
        )
    ):
        error = '{"type": "HTTP_5XX", "message": "no", "task": "smoke", "details": null}'
        await api.rows(
            "INSERT INTO task_states (execution_id, task, position, status, attempts, outputs, error) VALUES"
            " (:run, :task, :position, :status, 1, CAST(:outputs AS jsonb), CAST(:error AS jsonb))",
            run=run,
            task=task,
            position=position,
            status=status,
            outputs=outputs,
            error=error if status == "FAILED" else "null",
        )
    await api.rows(
        "INSERT INTO task_attempts (execution_id, task, scheduled_at, attempt, phase, status, started_at)"
        " VALUES (:run, 'smoke', now(), 1, 1, 'FAILED', now())",
        run=run,
    )
    await api.rows(
        "UPDATE workflow_executions SET status = 'FAILED', finished_at = now() WHERE id = :run", run=run
    )
    return run


async def rerun(api: Api, run: str, key: str = "", **body: Any) -> httpx2.Response:
    headers = {"Idempotency_Key": key} if key else {}
    return await api.call("POST", f"/executions/{run}/rerun", body, by="operator", **headers)


def verdicts(reply: httpx2.Response) -> dict[str, str]:
    return {each["task"]: each["verdict"] for each in reply.json()["tasks"]}


async def row(api: Api, run: str) -> dict[str, Any]:
    (found,) = await api.rows("SELECT * FROM workflow_executions WHERE id = :run", run=run)
    return found


async def test_a_rerun_is_a_run_of_its_own_on_the_old_pin(api: Api) -> None:
    first = await deployed(api, RELEASE)
    old = await failed_run(api)
    await deployed(api, FIXED)
    reply = await rerun(api, old)
    assert reply.status_code == 202, reply.text
    Rerunning.model_validate(reply.json(), extra="forbid")
    assert (reply.json()["commit_sha"], reply.json()["rerun_of"]) == (first.commit_sha, old)
    assert set(verdicts(reply).values()) == {"run"}
    new, before = await row(api, reply.json()["id"]), await row(api, old)
    for name in ("version_id", "revision_sha", "digest", "compiled_digest", "inputs", "targets"):
        assert new[name] == before[name]
    assert (new["rerun_of"], new["carried"], new["status"]) == (old, None, "RUNNING")
    shown = (await api.call("GET", f"/executions/{old}")).json()
    assert [each["id"] for each in shown["reruns"]] == [new["id"]]
    assert [each["attempt"] for each in shown["tasks"][3]["attempt_log"]] == [1], (
        "the old attempts stay readable"
    )
    assert [
        each["id"] for each in (await api.call("GET", f"/executions?rerun_of={old}")).json()["items"]
    ] == [new["id"]]


async def test_from_failed_keeps_what_is_the_same_and_says_why_for_each_task(api: Api) -> None:
    await deployed(api, RELEASE)
    old = await failed_run(api)
    reply = await rerun(api, old, from_failed=True)
    assert reply.status_code == 202, reply.text
    found = {each["task"]: each for each in reply.json()["tasks"]}
    assert found["build"]["verdict"] == "reuse"
    assert found["gate"]["verdict"] == "run", "an approval asks again"
    assert found["smoke"]["verdict"] == "run"
    assert all(each["reason"] for each in found.values())
    carried = (await row(api, reply.json()["id"]))["carried"]
    assert set(carried) == {"build", "deploy"}
    assert carried["build"]["outputs"] == {"status": 200}
    assert carried["build"]["execution_id"] == old
    (entry,) = await api.rows(
        "SELECT details FROM audit WHERE action = 'execution.requested' AND execution_id = :run",
        run=reply.json()["id"],
    )
    assert (entry["details"]["rerun_of"], entry["details"]["carried"]) == (old, ["build", "deploy"])


async def test_from_failed_on_a_newer_commit_runs_what_has_changed(api: Api) -> None:
    await deployed(api, RELEASE)
    old = await failed_run(api)
    newer = await deployed(api, RELEASE.replace("/build/", "/builds/"))
    for ref in ("latest", newer.commit_sha[:10]):
        reply = await rerun(api, old, ref=ref, from_failed=True)
        assert reply.json()["commit_sha"] == newer.commit_sha
        (build,) = [each for each in reply.json()["tasks"] if each["task"] == "build"]
        assert (build["verdict"], "definition has changed" in build["reason"]) == ("run", True)
    fixed = await deployed(api, FIXED)
    reply = await rerun(api, old, ref="latest", from_failed=True)
    assert (reply.json()["commit_sha"], verdicts(reply)["build"]) == (fixed.commit_sha, "reuse")


async def test_one_key_leads_to_one_rerun_with_one_answer(api: Api) -> None:
    await deployed(api, RELEASE)
    old = await failed_run(api)
    replies = await asyncio.gather(*(rerun(api, old, "k", from_failed=True) for _ in range(5)))
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert [reply.json()["repeated"] for reply in replies].count(False) == 1
    assert len({str(reply.json()["tasks"]) for reply in replies}) == 1
    assert (await rerun(api, old, "k")).status_code == 409


async def test_a_rerun_that_dies_after_its_commit_is_found_by_its_key(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployed(api, RELEASE)
    old = await failed_run(api)
    monkeypatch.setenv("PINFLOW_FAULTS", "start.after_commit=error")
    assert (await rerun(api, old, "k", from_failed=True)).status_code == 500
    monkeypatch.delenv("PINFLOW_FAULTS")
    reply = await rerun(api, old, "k", from_failed=True)
    assert (reply.status_code, reply.json()["repeated"], verdicts(reply)["build"]) == (202, True, "reuse")
    assert len(await api.rows("SELECT id FROM workflow_executions WHERE rerun_of = :old", old=old)) == 1


async def test_inputs_that_no_longer_fit_are_told_with_their_pointers(api: Api) -> None:
    await deployed(api, RELEASE)
    old = await failed_run(api)
    await deployed(api, STRICTER)
    reply = await rerun(api, old, ref="latest")
    assert (reply.status_code, [each["pointer"] for each in reply.json()["problems"]]) == (
        422,
        ["/inputs/region"],
    )
    assert old in reply.json()["detail"]


async def test_what_cannot_be_rerun_from_its_failures_is_said(api: Api) -> None:
    await deployed(api, RELEASE)
    reply = await api.call("POST", "/executions/workflows/release/execute", {"inputs": {"service": "web"}})
    run = reply.json()["id"]
    still_open = await rerun(api, run, from_failed=True)
    assert (still_open.status_code, "is not over" in still_open.json()["detail"]) == (409, True)
    await api.rows("UPDATE workflow_executions SET status = 'COMPLETED', finished_at = now()")
    completed = await rerun(api, run, from_failed=True)
    assert (completed.status_code, "nothing of it failed" in completed.json()["detail"]) == (409, True)
    assert (await rerun(api, run)).status_code == 202
    assert (await rerun(api, "nope")).status_code == 404
    assert (await rerun(api, run, ref="feedbeef")).status_code == 404


async def test_a_child_is_rerun_as_a_root_with_its_part_of_the_closure(api: Api) -> None:
    await register(api.database, "leaf")
    child_version = await register(api.database, "middle")
    await api.rows(
        """UPDATE workflow_versions SET calls = '[{"workflow": "leaf", "ref": "same"}]' WHERE name = 'middle'"""
    )
    await register(api.database, "top")
    await api.rows(
        """UPDATE workflow_versions SET calls = '[{"workflow": "middle", "ref": "same"}]' WHERE name = 'top'"""
    )
    root = (await api.call("POST", "/executions/workflows/top/execute", {})).json()["id"]
    child = await child_of(api, root, "a")
    closure = (await row(api, root))["closure"]
    (key,) = (await row(api, root))["calls"].values()
    await api.rows(
        "UPDATE workflow_executions SET workflow = 'middle', version_id = :version, digest = :digest,"
        " compiled_digest = :compiled, calls = CAST(:calls AS jsonb), status = 'FAILED' WHERE id = :child",
        child=child,
        version=child_version.version_id,
        digest=child_version.digest,
        compiled=child_version.compiled_digest,
        calls=json.dumps(closure[key]["calls"]),
    )
    reply = await rerun(api, child)
    assert reply.status_code == 202, reply.text
    new = await row(api, reply.json()["id"])
    assert (new["workflow"], new["root_id"], new["parent_id"]) == ("middle", "", "")
    assert [each["workflow"] for each in new["closure"].values()] == ["leaf"]
