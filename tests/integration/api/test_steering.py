"""Pausing and resuming runs with all that they started: rows, audit and messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.api.conftest import Api


async def started(api: Api) -> str:
    """A run of `hello`; its id."""
    return str((await api.start(end="wait")).json()["id"])


async def child_of(api: Api, parent: str, name: str, *, root: str = "", status: str = "RUNNING") -> str:
    """A child's row, as its own first step would write it; its id."""
    await api.rows(
        "INSERT INTO workflow_executions (id, source_id, workflow, version_id, commit_sha, revision_sha, digest,"
        " compiled_digest, bundle_digest, dsl, inputs, started_by, status, started_at, parent_id, parent_task, root_id)"
        " SELECT :id, source_id, workflow, version_id, commit_sha, revision_sha, digest, compiled_digest, bundle_digest,"
        " dsl, inputs, started_by, :status, now(), :parent, 'smoke', :root FROM workflow_executions WHERE id = :parent",
        id=f"{parent}-{name}",
        parent=parent,
        root=root or parent,
        status=status,
    )
    return f"{parent}-{name}"


async def statuses(api: Api) -> dict[str, str]:
    """Status by run, as the rows have it."""
    return {row["id"]: row["status"] for row in await api.rows("SELECT id, status FROM workflow_executions")}


async def audit(api: Api, action: str) -> list[tuple[str, Any]]:
    """Run and details of every audit row of an action."""
    query = "SELECT execution_id, details FROM audit WHERE action = :action ORDER BY id"
    return [(row["execution_id"], row["details"]) for row in await api.rows(query, action=action)]


async def test_a_pause_takes_the_whole_family_and_is_audited_for_each(api: Api) -> None:
    run, other = await started(api), await started(api)
    child = await child_of(api, run, "a")
    grandchild = await child_of(api, child, "b", root=run)
    over = await child_of(api, run, "c", status="COMPLETED")
    reply = await api.call("POST", f"/executions/{run}/pause", {"reason": "freeze"}, by="operator")
    assert (reply.status_code, reply.json()) == (202, {"id": run, "status": "PAUSED"})
    assert await statuses(api) == {
        run: "PAUSED",
        child: "PAUSED",
        grandchild: "PAUSED",
        over: "COMPLETED",
        other: "RUNNING",
    }
    assert await audit(api, "execution.pause_requested") == [
        (run, {"reason": "freeze"}),
        (child, {"reason": "freeze", "with": run}),
        (grandchild, {"reason": "freeze", "with": run}),
    ]
    reply = await api.call("POST", f"/executions/{run}/resume", by="operator")
    assert (reply.status_code, reply.json()) == (202, {"id": run, "status": "RUNNING"})
    assert set((await statuses(api)).values()) == {"RUNNING", "COMPLETED"}
    assert [run for run, _ in await audit(api, "execution.resume_requested")] == [run, child, grandchild]


async def test_asking_again_changes_nothing(api: Api) -> None:
    run = await started(api)
    for verb, status in (("resume", "RUNNING"), ("pause", "PAUSED"), ("pause", "PAUSED")):
        reply = await api.call("POST", f"/executions/{run}/{verb}")
        assert (reply.status_code, reply.json()["status"]) == (202, status)
    assert len(await audit(api, "execution.pause_requested")) == 1
    assert await audit(api, "execution.resume_requested") == []


async def test_a_paused_run_that_waits_for_its_turn_goes_back_into_the_queue(api: Api) -> None:
    run = await started(api)
    await api.rows(
        "INSERT INTO slots (\"group\", execution_id, task, root_id, holder, \"limit\") VALUES ('g', :run, '', :run, :run, 1)",
        run=run,
    )
    await api.call("POST", f"/executions/{run}/pause")
    assert (await api.call("POST", f"/executions/{run}/resume")).json()["status"] == "QUEUED"
    await api.rows("UPDATE slots SET held_since = now()")
    assert await statuses(api) == {run: "RUNNING"}


async def test_a_cancel_ends_a_pause(api: Api) -> None:
    run = await started(api)
    await api.call("POST", f"/executions/{run}/pause")
    reply = await api.call("POST", f"/executions/{run}/cancel", {"reason": "enough"})
    assert (reply.status_code, reply.json()["status"]) == (202, "RUNNING")
    assert await statuses(api) == {run: "RUNNING"}


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
async def test_a_run_that_is_over_cannot_be_steered(api: Api, verb: str) -> None:
    run = await started(api)
    await api.rows("UPDATE workflow_executions SET status = 'COMPLETED'")
    reply = await api.call("POST", f"/executions/{run}/{verb}")
    assert (reply.status_code, "COMPLETED" in reply.json()["detail"]) == (409, True)
    assert (await api.call("POST", f"/executions/nope/{verb}")).status_code == 404


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_what_was_asked_for_is_durable_before_temporal_is_told(
    api: Api, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    run = await started(api)
    monkeypatch.setenv("PINFLOW_FAULTS", "steer.after_commit=error")
    reply = await api.call("POST", f"/executions/{run}/{verb}", {"reason": "why"})
    assert reply.status_code == 500
    (message,) = await api.rows("SELECT kind, execution_id, body FROM outbox")
    assert (message["kind"], message["execution_id"]) == (verb, run)
    assert {name: message["body"][name] for name in ("by", "reason")} == {"by": "a-person", "reason": "why"}
    assert message["body"]["id"]


async def test_a_run_paused_before_it_began_is_still_started(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINFLOW_FAULTS", "start.after_commit=error")
    await api.start(key="k")
    monkeypatch.setenv("PINFLOW_FAULTS", "steer.after_commit=error")
    (run,) = await statuses(api)
    await api.call("POST", f"/executions/{run}/pause")
    monkeypatch.delenv("PINFLOW_FAULTS")
    kinds = [row["kind"] for row in await api.rows("SELECT kind FROM outbox ORDER BY id")]
    assert kinds == ["start", "pause"], "the pause must not overtake the start"
    await api.service.executions._starts._dispatcher.dispatch_now(run)
    assert (await api.executor.describe(run)).status == "OPEN"
    (row,) = await api.rows("SELECT status, started_at FROM workflow_executions")
    assert (row["status"], row["started_at"] is not None) == ("PAUSED", True)


async def test_a_run_that_waits_for_its_turn_is_shown_as_queued_to_all_readers(api: Api) -> None:
    run, other = await started(api), await started(api)
    await api.rows(
        "INSERT INTO slots (\"group\", execution_id, task, root_id, holder, \"limit\") VALUES ('g', :run, '', :run, :run, 1)",
        run=run,
    )

    async def listed(status: str) -> list[str]:
        return [
            each["id"] for each in (await api.call("GET", f"/executions?status={status}")).json()["items"]
        ]

    assert (await listed("QUEUED"), await listed("RUNNING")) == ([run], [other])
    assert (await api.call("GET", f"/executions/{run}")).json()["status"] == "QUEUED"
    figures = (await api.call("GET", "/metrics")).text
    assert 'pinflow_open_runs{status="QUEUED"} 1.0' in figures
    assert 'pinflow_open_runs{status="RUNNING"} 1.0' in figures
