"""What differs between Postgres and Temporal is mended."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.core.contracts import Pin, RunStart
from engine.executor.reconciler import Reconciler
from engine.executor.runs import StartRequest
from tests.integration.executor.conftest import Stage
from tests.support.puppet import worker
from tests.support.runs import add_run

OLD = "UPDATE workflow_executions SET started_at = now() - interval '1 hour', created_at = now() - interval '1 hour'"


async def run_to_end(stage: Stage, **inputs: Any) -> str:
    """A run that ended in Temporal, and of whose end Postgres knows nothing."""
    async with worker(stage.executor, stage.queue):
        run = await stage.begin(**inputs)
        await stage.dispatcher.pass_once()
        await stage.closed(run)
    await stage.rows(OLD)
    return run


async def test_a_run_that_completed_unseen_gets_its_result(stage: Stage) -> None:
    run = await run_to_end(stage, end="complete")
    mended = await stage.reconciler.pass_once()
    assert mended.ended == [run]
    (row,) = await stage.rows("SELECT status, outputs ->> 'run' AS run, finished_at FROM workflow_executions")
    assert (row["status"], row["run"]) == ("COMPLETED", run)
    assert (await stage.actions(run))[-1] == "execution.reconciled"
    assert (await stage.reconciler.pass_once()).open == 0


async def test_a_result_that_is_lost_keeps_no_other_run_from_being_mended(stage: Stage) -> None:
    async with worker(stage.executor, stage.queue):
        runs = [await stage.begin(end=end) for end in ("large", "fail")]
        await stage.dispatcher.pass_once()
        for run in runs:
            await stage.closed(run)
    await stage.rows(OLD)
    await stage.rows("DELETE FROM blobs WHERE kind = 'payload'")
    forgetful = await stage.another_executor()
    mended = await Reconciler(stage.database, forgetful, interval=0.1).pass_once()
    assert mended.ended == [runs[1]]
    assert not forgetful.away


async def test_a_run_that_failed_unseen_gets_its_error(stage: Stage) -> None:
    run = await run_to_end(stage, end="fail")
    await stage.reconciler.pass_once()
    (row,) = await stage.rows("SELECT status, error ->> 'type' AS type FROM workflow_executions")
    assert (row["status"], row["type"]) == ("FAILED", "Broken")
    assert await stage.status(run) == "FAILED"


async def test_a_run_whose_own_timeout_passed_is_timed_out(stage: Stage) -> None:
    run = await run_to_end(stage, end="time_out")
    await stage.reconciler.pass_once()
    assert await stage.status(run) == "TIMED_OUT"


async def test_a_run_terminated_by_hand_is_failed_and_asks_nobody_any_more(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    await stage.dispatcher.pass_once()
    await ask(stage, run)
    await stage.executor.client.get_workflow_handle(run).terminate(reason="by hand")
    await stage.rows(OLD)
    await stage.reconciler.pass_once()
    (row,) = await stage.rows(
        "SELECT status, error ->> 'type' AS type, error ->> 'message' AS said FROM workflow_executions"
    )
    assert (row["status"], row["type"]) == ("FAILED", "Terminated")
    assert "by hand" in row["said"]
    assert [r["status"] for r in await stage.rows("SELECT status FROM approval_requests")] == ["CANCELLED"]
    assert "approval.cancelled" in await stage.actions(run)


async def test_a_run_that_temporal_does_not_know_is_lost_at_the_second_look_only(stage: Stage) -> None:
    run = await stage.begin()
    await stage.rows("DELETE FROM outbox")
    await stage.rows("UPDATE workflow_executions SET status = 'RUNNING'")
    await stage.rows(OLD)
    assert (await stage.reconciler.pass_once()).lost == []
    assert await stage.status(run) == "RUNNING"
    assert (await stage.reconciler.pass_once()).lost == [run]
    (row,) = await stage.rows("SELECT status, error ->> 'type' AS type FROM workflow_executions")
    assert (row["status"], row["type"]) == ("FAILED", "LOST")


async def test_a_pending_run_without_a_message_is_started_again(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    await stage.rows("DELETE FROM outbox")
    await stage.rows(OLD)
    assert (await stage.reconciler.pass_once()).restarted == [run]
    await stage.dispatcher.pass_once()
    assert await stage.status(run) == "RUNNING"


async def test_the_tasks_of_a_quiet_run_are_asked_for(stage: Stage) -> None:
    async with worker(stage.executor, stage.queue):
        run = await stage.begin(end="wait")
        await stage.dispatcher.pass_once()
        await stage.rows(OLD)
        assert (await stage.reconciler.pass_once()).asked == 1
        (task,) = await stage.rows("SELECT task, status FROM task_states WHERE execution_id = :run", run=run)
        assert (task["task"], task["status"]) == ("gate", "WAITING")
        assert (await stage.reconciler.pass_once()).asked == 0


async def test_a_run_that_has_not_heard_a_decision_is_told_again(stage: Stage) -> None:
    async with worker(stage.executor, stage.queue):
        run = await stage.begin(end="wait")
        await stage.dispatcher.pass_once()
        await ask(stage, run)
        await stage.rows("UPDATE approval_requests SET status = 'APPROVED', resolved_at = now()")
        await stage.rows(OLD)
        assert (await stage.reconciler.pass_once()).told_again == 1
        await stage.dispatcher.pass_once()
        await stage.closed(run)
    told = (await stage.executor.describe(run)).outputs["told"]
    assert [(said["task"], said["outcome"]) for said in told] == [("gate", "APPROVED")]


async def test_an_open_request_is_reminded_of_when_its_time_has_come(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    await stage.dispatcher.pass_once()
    await ask(stage, run)
    await stage.rows("UPDATE approval_requests SET remind_at = now() - interval '1 second'")
    assert (await stage.reconciler.pass_once()).reminded == 1
    assert (await stage.reconciler.pass_once()).reminded == 0
    assert (await stage.actions(run)).count("approval.reminded") == 1


async def ask(stage: Stage, run: str) -> None:
    """An open approval request of the task `gate`."""
    await stage.rows(
        "INSERT INTO approval_requests (id, execution_id, task, workflow, commit_sha, message, policy, requested_at)"
        " VALUES (:id, :run, 'gate', 'hello', :sha, 'Go?', CAST(:policy AS jsonb), :at)",
        id=uuid.uuid4().hex,
        run=run,
        sha=stage.version.commit_sha,
        policy=json.dumps({"remind_every": 3600.0}),
        at=datetime.now(UTC) - timedelta(minutes=1),
    )


async def test_a_run_that_has_not_heard_of_its_slot_or_its_signal_is_told_again(stage: Stage) -> None:
    waiting = [
        {"task": "queued", "kind": "slot", "group": "g"},
        {"task": "gate", "kind": "signal", "signal": "go", "correlation": "", "since": 1.0},
    ]
    async with worker(stage.executor, stage.queue):
        run = await stage.begin(end="wait", waiting=waiting)
        await stage.dispatcher.pass_once()
        await stage.rows(
            'INSERT INTO slots ("group", execution_id, task, root_id, holder, "limit", held_since)'
            " VALUES ('g', :run, 'queued', :run, :run, 1, now())",
            run=run,
        )
        await stage.rows(
            "INSERT INTO signals (execution_id, id, name, by, payload, at)"
            " VALUES (:run, 's1', 'go', 'ada', '7', now() - interval '1 minute'),"
            "        (:run, 's2', 'other', 'ada', '7', now() - interval '1 minute')",
            run=run,
        )
        await stage.rows(OLD)
        assert (await stage.reconciler.pass_once()).told_again == 2
        sent = await stage.rows("SELECT kind, body FROM outbox ORDER BY kind")
        assert [(row["kind"], row["body"].get("id"), row["body"].get("to")) for row in sent] == [
            ("signal", "s1", ""),
            ("slot", None, run),
        ]
        await stage.rows("UPDATE workflow_executions SET checked_at = NULL")
        assert (await stage.reconciler.pass_once()).told_again == 0


async def test_a_run_that_temporal_alone_still_runs_is_asked_to_end_at_the_second_look(stage: Stage) -> None:
    """LOST as far as we said, and back with a Temporal that was restored."""
    async with worker(stage.executor, stage.queue):
        run = await stage.begin(end="wait")
        await stage.dispatcher.pass_once()
        await stage.rows(
            "UPDATE workflow_executions SET status = 'FAILED', finished_at = now() - interval '1 hour'"
        )
        await listed(stage, run)
        assert (await stage.reconciler.pass_once()).stopped == []
        assert (await stage.reconciler.pass_once()).stopped == [run]
        assert (await stage.closed(run)).status == "CANCELLED"
    assert await stage.status(run) == "FAILED"
    assert (await stage.actions(run))[-1] == "execution.stopped"


async def test_a_slice_of_a_run_that_is_over_is_ended(stage: Stage) -> None:
    async with worker(stage.executor, stage.queue):
        run = await stage.begin(end="complete")
        await stage.dispatcher.pass_once()
        await stage.closed(run)
        request = StartRequest(
            RunStart(f"{run}/m[0]", pin(stage), {"end": "wait"}, "ada", "2030-01-01T00:00:00Z"),
            stage.version.size,
        )
        await stage.executor.start(request)
        await stage.rows(
            "UPDATE workflow_executions SET status = 'COMPLETED', finished_at = now() - interval '1 hour'"
        )
        await listed(stage, f"{run}/m[0]")
        await stage.reconciler.pass_once()
        assert (await stage.reconciler.pass_once()).stopped == [f"{run}/m[0]"]
        assert (await stage.closed(f"{run}/m[0]")).status == "FAILED"


async def test_a_child_whose_parent_is_over_is_asked_to_end_once(stage: Stage) -> None:
    parent = await add_run(stage.database, stage.version, status="FAILED")
    await stage.rows("UPDATE workflow_executions SET finished_at = now() - interval '1 hour'")
    child = await add_run(stage.database, stage.version, parent=(parent, "call"), root=parent)
    assert (await stage.reconciler.pass_once()).stopped == [child]
    assert (await stage.reconciler.pass_once()).stopped == []
    (message,) = await stage.rows("SELECT kind, execution_id FROM outbox")
    assert (message["kind"], message["execution_id"]) == ("cancel", child)
    assert await stage.actions(child) == ["execution.cancel_requested"]


async def test_slots_of_runs_that_are_over_are_given_back(stage: Stage) -> None:
    over = await add_run(stage.database, stage.version, status="FAILED")
    waits = await add_run(stage.database, stage.version)
    await stage.rows(
        'INSERT INTO slots ("group", execution_id, task, root_id, holder, "limit", held_since)'
        " VALUES ('g', :over, '', :over, :over, 1, now()), ('g', :waits, '', :waits, :waits, 1, NULL)",
        over=over,
        waits=waits,
    )
    assert (await stage.reconciler.pass_once()).freed == [over]
    (left,) = await stage.rows("SELECT execution_id, held_since FROM slots")
    assert left["execution_id"] == waits
    assert left["held_since"] is not None


async def test_a_run_that_is_mended_gives_its_slots_back(stage: Stage) -> None:
    run = await run_to_end(stage, end="complete")
    await stage.rows(
        'INSERT INTO slots ("group", execution_id, task, root_id, holder, "limit", held_since)'
        " VALUES ('g', :run, '', :run, :run, 1, now())",
        run=run,
    )
    assert (await stage.reconciler.pass_once()).ended == [run]
    assert await stage.rows("SELECT * FROM slots") == []


def pin(stage: Stage) -> Pin:
    version = stage.version
    return Pin(
        version.name, "main", version.commit_sha, version.commit_sha, version.digest, version.compiled_digest
    )


async def listed(stage: Stage, workflow_id: str) -> None:
    """Wait until Temporal's index knows of a workflow."""
    for _ in range(200):
        async for page in stage.executor.open_runs():
            if workflow_id in page:
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{workflow_id} is not in the index")
