"""The last step of a run: all of it or nothing, once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from engine.activities import approval_requests
from engine.activities.door import engine_activities
from engine.storage import run_records
from engine.storage.run_records import RunRecord
from tests.integration.activities.conftest import Run
from tests.support.activities import call
from tests.support.registered import register
from tests.support.runs import add_run


async def record(run: Run, status: str = "COMPLETED", **fields: Any) -> None:
    named = {getattr(f, "__temporal_activity_definition").name: f for f in engine_activities(run.database)}
    body = {
        "execution_id": run.id,
        "status": status,
        "outputs": None,
        "error": None,
        "tasks": [],
        "finished_at": time.time(),
        **fields,
    }
    await ActivityEnvironment().run(named["pinflow.record_run"], body)


def task(id: str, status: str = "COMPLETED", **fields: Any) -> dict[str, Any]:
    """A task as the brain's snapshot has it."""
    return {
        "id": id,
        "status": status,
        "skip_reason": None,
        "attempts": 1,
        "started_at": 1_700_000_000.25,
        "finished_at": 1_700_000_001.5,
        "error": None,
        "outputs": None,
        **fields,
    }


async def row(run: Run) -> dict[str, Any]:
    (found,) = await run.rows("SELECT * FROM workflow_executions WHERE id = :run")
    return found


async def states(run: Run) -> list[dict[str, Any]]:
    return await run.rows("SELECT * FROM task_states WHERE execution_id = :run ORDER BY position")


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"])
async def test_end_of_a_run(run: Run, status: str) -> None:
    error = (
        None if status == "COMPLETED" else {"type": "BOOM", "message": "it broke", "task": "b", "details": 1}
    )
    tasks = [
        task("b", "FAILED", error={"type": "BOOM"}, attempts=3),
        task("a", outputs={"x": [1, "é"]}),
        task("c", "SKIPPED", skip_reason="upstream", started_at=None, finished_at=None, attempts=0),
    ]
    await record(
        run, status, outputs={"image": "web:1"}, error=error, tasks=tasks, finished_at=1_700_000_009.5
    )
    found = await row(run)
    assert (found["status"], found["outputs"], found["error"]) == (status, {"image": "web:1"}, error)
    assert found["finished_at"].timestamp() == 1_700_000_009.5
    assert found["started_at"] is not None
    stored = await states(run)
    assert [(t["task"], t["status"], t["skip_reason"], t["attempts"]) for t in stored] == [
        ("b", "FAILED", "", 3),
        ("a", "COMPLETED", "", 1),
        ("c", "SKIPPED", "upstream", 0),
    ]
    assert stored[1]["outputs"] == {"x": [1, "é"]}
    assert stored[1]["started_at"].timestamp() == 1_700_000_000.25
    assert stored[2]["started_at"] is None
    assert await run.audit() == [f"execution.{status.lower()}"]


async def test_repeat_changes_nothing(run: Run) -> None:
    await record(run, "COMPLETED", tasks=[task("a")])
    await record(run, "FAILED", tasks=[task("a", "FAILED"), task("b")])
    assert (await row(run))["status"] == "COMPLETED"
    assert [t["status"] for t in await states(run)] == ["COMPLETED"]
    assert await run.audit() == ["execution.completed"]


async def test_two_at_once_record_once(run: Run) -> None:
    await asyncio.gather(*(record(run, "COMPLETED", tasks=[task("a")]) for _ in range(6)))
    assert await run.audit() == ["execution.completed"]


async def test_last_word_overwrites_what_the_reconciler_noted(run: Run) -> None:
    await run.rows(
        "INSERT INTO task_states (execution_id, task, position, status) VALUES (:run, 'a', 7, 'FAILED')"
    )
    await record(run, tasks=[task("a")])
    assert [(t["position"], t["status"]) for t in await states(run)] == [(0, "COMPLETED")]


async def test_open_approvals_end_with_the_run(run: Run) -> None:
    await approval_requests.request(
        run.database, call("human_approval", {"message": "?"}, execution_id=run.id, task="gate")
    )
    await record(run, "CANCELLED")
    (request,) = await run.rows("SELECT status, resolved_at FROM approval_requests")
    assert request["status"] == "CANCELLED"
    assert request["resolved_at"] is not None
    assert sorted(await run.audit()) == ["approval.cancelled", "approval.requested", "execution.cancelled"]


@pytest.mark.parametrize("point", ["record.before_commit", "record.after_commit"])
async def test_death_around_the_commit(run: Run, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    monkeypatch.setenv("PINFLOW_FAULTS", f"{point}=error")
    with pytest.raises(ApplicationError) as caught:
        await record(run, tasks=[task("a")])
    assert not caught.value.non_retryable
    done = point == "record.after_commit"
    assert ((await row(run))["status"] == "COMPLETED") is done
    monkeypatch.delenv("PINFLOW_FAULTS")
    await record(run, tasks=[task("a")])
    assert (await row(run))["status"] == "COMPLETED"
    assert await run.audit() == ["execution.completed"]


async def test_what_jsonb_refuses_does_not_keep_a_run_open(run: Run) -> None:
    nasty = {"nul \x00 key": "a\x00b", "half": "\ud800", "literal": "\\u0000", "big": 10**300}
    await record(run, outputs=nasty, tasks=[task("a", outputs=nasty)])
    kept = {"nul \ufffd key": "a\ufffdb", "half": "\ufffd", "literal": "\\u0000", "big": 10**300}
    assert (await row(run))["outputs"] == kept
    assert (await states(run))[0]["outputs"] == kept


async def test_unknown_run_is_no_error(run: Run) -> None:
    await record(run, execution_id="nope")
    assert (await row(run))["status"] == "RUNNING"


async def test_thousand_tasks_are_one_statement(run: Run) -> None:
    await record(run, tasks=[task(f"t{n}", outputs={"n": n}) for n in range(1000)])
    assert len(await states(run)) == 1000


async def test_the_end_of_a_run_gives_its_slots_back_and_serves_the_next(run: Run) -> None:
    await run.rows(
        'INSERT INTO slots ("group", execution_id, task, root_id, holder, "limit", held_since)'
        " VALUES ('g', :run, '', :run, 'w', 1, now()), ('h', :run, 't', :run, 'w', 1, now())"
    )
    other = await add_run(run.database, await register(run.database, "other"))
    await run.rows(
        'INSERT INTO slots ("group", execution_id, task, root_id, holder, "limit")'
        " VALUES ('g', :other, '', :other, 'w2', 1)",
        other=other,
    )
    record_of = RunRecord(run.id, "COMPLETED", None, None, [task("a")], time.time())
    commit_sha, told = await run_records.finish(run.database, record_of, actor="worker")
    assert (commit_sha, told) == (run.commit_sha, [other])
    (left,) = await run.rows("SELECT execution_id, held_since FROM slots")
    assert left["execution_id"] == other
    assert left["held_since"] is not None
    (message,) = await run.rows("SELECT execution_id, kind, body FROM outbox WHERE kind = 'slot'")
    assert (message["execution_id"], message["body"]["to"]) == (other, "w2")
    assert await run_records.finish(run.database, record_of, actor="worker") == ("", [])


async def test_a_run_of_many_tasks_is_recorded_whole_or_not_at_all(run: Run) -> None:
    tasks = [task(f"t{n}", outputs={"n": n}) for n in range(2500)]
    broken = [*tasks[:2400], task("odd", attempts="not a number")]
    with pytest.raises(ApplicationError):
        await record(run, tasks=broken)
    assert (await row(run))["status"] == "RUNNING"
    assert await states(run) == []
    await record(run, tasks=tasks)
    assert [state["task"] for state in await states(run)] == [f"t{n}" for n in range(2500)]
    assert (await row(run))["status"] == "COMPLETED"


async def test_what_a_snapshot_says_besides_is_kept(run: Run) -> None:
    items = {"total": 3, "completed": 2, "failed": 1}
    await record(run, tasks=[task("m", items=items, child_id="c", compensation="DONE", cached_from="")])
    assert (await states(run))[0]["more"] == {"items": items, "child_id": "c", "compensation": "DONE"}


async def test_the_tasks_of_a_slice_stand_behind_those_of_its_run(run: Run) -> None:
    named = {getattr(f, "__temporal_activity_definition").name: f for f in engine_activities(run.database)}
    body = {"execution_id": run.id, "offset": 500, "tasks": [task("m[500].t"), task("m[501].t")]}
    for _ in range(2):
        await ActivityEnvironment().run(named["pinflow.record_tasks"], body)
    await record(run, tasks=[task("m")])
    assert [state["task"] for state in await states(run)] == ["m", "m[500].t", "m[501].t"]
