"""Whole runs on a real Temporal server: shapes of DAGs, failures, retries, timeouts, cancel, approvals."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError, CancelledError

from tests.support.definitions import approval, definition, retry, task
from tests.workflow.stage import Stage, ended, events, until


async def test_sequential(on_stage: Stage) -> None:
    handle = await on_stage.run(
        definition(
            task("a", config={"n": "${{ inputs.n }}"}),
            task("b", "a", config={"n": "${{ tasks.a.outputs.n + 1 }}"}),
            inputs={"properties": {"n": {"type": "integer"}}},
            outputs={"n": "${{ tasks.b.outputs.n }}"},
        ),
        n=1,
    )
    assert await handle.result() == {"n": 2}
    assert on_stage.record()["status"] == "COMPLETED"
    assert on_stage.record()["outputs"] == {"n": 2}
    assert on_stage.statuses() == {"a": "COMPLETED", "b": "COMPLETED"}


async def test_a_diamond(on_stage: Stage) -> None:
    await on_stage.run(definition(task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c")))
    assert on_stage.ledger.started()[0] == "a"
    assert on_stage.ledger.started()[-1] == "d"
    assert len(on_stage.ledger.started()) == 4


async def test_parallel_tasks_are_all_out_at_once(on_stage: Stage) -> None:
    handle = await on_stage.run(definition(*(task(f"t{i}", config={"sleep": 0.2}) for i in range(20))))
    names = await events(handle)
    first_end = names.index("ACTIVITY_TASK_COMPLETED")
    assert names[:first_end].count("ACTIVITY_TASK_SCHEDULED") == 20


async def test_skipped_and_failing_branches(on_stage: Stage) -> None:
    handle = await on_stage.start(
        definition(
            task("a", config={"fail_until": 9, "error": "HTTP_5XX"}),
            task("b", "a"),
            task("page", "a", run_on="failure"),
            task("never", when="${{ 1 > 2 }}"),
            on_failure=[task("alert", config={"said": "${{ run.error.message }}"})],
            finally_=[task("unlock")],
        )
    )
    cause = await ended(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message, cause.non_retryable) == ("HTTP_5XX", "attempt 1 failed", True)
    assert on_stage.statuses() == {
        "a": "FAILED",
        "b": "SKIPPED:upstream",
        "page": "COMPLETED",
        "never": "SKIPPED:condition",
        "alert": "COMPLETED",
        "unlock": "COMPLETED",
    }
    assert on_stage.record()["error"] == {
        "type": "HTTP_5XX",
        "message": "attempt 1 failed",
        "task": "a",
        "details": None,
    }


@pytest.mark.parametrize("execution", ["worker", "local"])
async def test_retries_are_temporals_own(on_stage: Stage, execution: Any) -> None:
    await on_stage.run(
        definition(task("a", config={"fail_until": 3}, retry=retry(5), execution=execution, timeout=5.0))
    )
    assert on_stage.ledger.attempts == [("a", n, execution == "local") for n in (1, 2, 3)]
    (standing,) = on_stage.record()["tasks"]
    assert (standing["status"], standing["attempts"]) == ("COMPLETED", 3)


@pytest.mark.parametrize("execution", ["worker", "local"])
async def test_used_up_retries_fail_the_task_with_its_own_error(on_stage: Stage, execution: Any) -> None:
    await on_stage.run(
        definition(
            task(
                "a",
                config={"fail_until": 9, "error": "FLAKY"},
                retry=retry(2),
                execution=execution,
                timeout=5.0,
            )
        )
    )
    (standing,) = on_stage.record()["tasks"]
    assert (standing["status"], standing["attempts"], standing["error"]["type"]) == ("FAILED", 2, "FLAKY")


@pytest.mark.parametrize("execution", ["worker", "local"])
async def test_errors_that_are_not_retried(on_stage: Stage, execution: Any) -> None:
    policy = retry(5, non_retryable_errors=["FATAL"], when="${{ attempt < 2 }}")
    await on_stage.run(
        definition(
            task(
                "a",
                config={"fail_until": 9, "error": "FATAL"},
                retry=policy,
                execution=execution,
                timeout=5.0,
            ),
            task("b", config={"fail_until": 9}, retry=policy, execution=execution, timeout=5.0),
        )
    )
    assert {t["id"]: t["attempts"] for t in on_stage.record()["tasks"]} == {"a": 1, "b": 2}


async def test_success_when(on_stage: Stage) -> None:
    await on_stage.run(
        definition(
            task("a", config={"n": 1}, success_when="${{ result.n == 1 }}"),
            task("b", config={"n": 1}, success_when="${{ result.n == 2 }}"),
        )
    )
    assert on_stage.statuses() == {"a": "COMPLETED", "b": "FAILED"}
    assert on_stage.record()["error"]["type"] == "NOT_SUCCESSFUL"


@pytest.mark.parametrize("execution", ["worker", "local"])
async def test_an_attempt_that_takes_too_long_is_a_timeout(on_stage: Stage, execution: Any) -> None:
    await on_stage.run(definition(task("a", config={"sleep": 20}, timeout=0.3, execution=execution)))
    assert on_stage.record()["error"]["type"] == "TIMEOUT"
    assert on_stage.record()["tasks"][0]["attempts"] == 1


async def test_the_timeout_of_the_run(on_stage: Stage) -> None:
    handle = await on_stage.start(
        definition(
            task("a", config={"sleep": 20}),
            timeout=0.3,
            on_failure=[task("alert")],
            finally_=[task("unlock")],
        )
    )
    cause = await ended(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "RunTimedOut"
    assert on_stage.record()["status"] == "TIMED_OUT"
    assert on_stage.statuses() == {"a": "CANCELLED", "alert": "COMPLETED", "unlock": "COMPLETED"}


async def test_cancel_runs_finally_and_ends_cancelled(on_stage: Stage) -> None:
    handle = await on_stage.start(
        definition(task("a", config={"sleep": 20}), task("b", "a"), finally_=[task("unlock")])
    )
    await until(handle, "a", "RUNNING")
    await handle.cancel(reason='{"by": "bob", "reason": "enough"}')
    assert isinstance(await ended(handle), CancelledError)
    assert (await handle.describe()).status == WorkflowExecutionStatus.CANCELED
    assert on_stage.statuses() == {"a": "CANCELLED", "b": "SKIPPED:ended", "unlock": "COMPLETED"}
    assert on_stage.record()["error"]["message"] == "cancelled by bob: enough"


async def test_a_second_cancel_by_signal_skips_the_clean_up(on_stage: Stage) -> None:
    handle = await on_stage.start(
        definition(task("a", config={"sleep": 20}), finally_=[task("unlock", config={"sleep": 20})])
    )
    await until(handle, "a", "RUNNING")
    await handle.cancel(reason="somebody at the console of Temporal")
    await until(handle, "unlock", "RUNNING")
    await handle.signal("pinflow.cancel", {"by": "bob", "reason": "now", "id": "second"})
    assert isinstance(await ended(handle), CancelledError)
    assert on_stage.statuses() == {"a": "CANCELLED", "unlock": "CANCELLED"}


async def test_an_approval_is_asked_for_and_decided_by_signal_once(on_stage: Stage) -> None:
    handle = await on_stage.start(
        definition(
            approval("gate"), task("go", "gate", config={"by": "${{ tasks.gate.outputs.decisions[0].by }}"})
        )
    )
    snapshot = await until(handle, "gate", "WAITING")
    assert snapshot["waiting"][0]["kind"] == "approval"
    decided = {
        "task": "gate",
        "approval_id": "id-gate",
        "outcome": "APPROVED",
        "decisions": [{"by": "bob", "decision": "approve"}],
        "deadline": None,
    }
    await handle.signal("pinflow.approval", "no object at all")
    await handle.signal("pinflow.approval", decided | {"approval_id": "of another"})
    for _ in range(2):
        await handle.signal("pinflow.approval", decided)
    assert await ended(handle) is None
    assert on_stage.record()["tasks"][1]["outputs"] == {"by": "bob"}


async def test_an_approval_that_nobody_decides_times_out(on_stage: Stage) -> None:
    await on_stage.run(definition(approval("gate", deadline=0.3)))
    assert on_stage.ledger.closed == [("gate", "deadline")]
    assert on_stage.record()["error"]["type"] == "ApprovalTimedOut"


async def test_cancelling_closes_the_request(on_stage: Stage) -> None:
    handle = await on_stage.start(definition(approval("gate")))
    await until(handle, "gate", "WAITING")
    await handle.cancel()
    await ended(handle)
    assert on_stage.ledger.closed == [("gate", "cancelled")]
    assert on_stage.statuses() == {"gate": "CANCELLED"}


async def test_wait_and_set_cost_no_activity(on_stage: Stage) -> None:
    handle = await on_stage.run(
        definition(
            task("n", type="set", values={"n": 3}),
            task("nap", "n", type="wait", duration=0.1),
            outputs={"n": "${{ tasks.n.outputs.n }}"},
        )
    )
    assert await handle.result() == {"n": 3}
    assert on_stage.ledger.attempts == []


async def test_a_run_has_at_most_three_events_more_than_hand_written(on_stage: Stage) -> None:
    chain = [task("t0"), *(task(f"t{i}", f"t{i - 1}") for i in range(1, 10))]
    handle = await on_stage.run(definition(*chain))
    # By hand: started, ten times (task scheduled, started, completed; activity scheduled, started, completed),
    # a last workflow task, completed.
    assert len(await events(handle)) <= 1 + 10 * 6 + 3 + 1 + 3


async def test_short_tasks_of_built_in_types_run_locally(on_stage: Stage) -> None:
    short = {"activity_type": "http_request", "timeout": 1.0}
    chain = [task("t0", **short), *(task(f"t{i}", f"t{i - 1}", **short) for i in range(1, 10))]
    handle = await on_stage.run(definition(*chain))
    names = await events(handle)
    assert "ACTIVITY_TASK_SCHEDULED" not in names
    assert len(names) == 3 + 11 + 2  # a marker for each task and one for the record


async def test_after_a_second_of_local_work_a_task_goes_out_as_an_ordinary_activity(on_stage: Stage) -> None:
    short = {"activity_type": "http_request", "timeout": 1.0, "config": {"sleep": 0.4}}
    chain = [task("t0", **short), *(task(f"t{i}", f"t{i - 1}", **short) for i in range(1, 5))]
    await on_stage.run(definition(*chain))
    assert on_stage.ledger.local() == {"t0": True, "t1": True, "t2": True, "t3": False, "t4": True}


async def test_a_run_is_recorded_however_long_postgres_is_away(on_stage: Stage) -> None:
    on_stage.ledger.refuse_records = 4
    handle = await on_stage.run(definition(task("a")))
    assert on_stage.ledger.record_is_local == [True, True, True, False, False]
    assert on_stage.record()["status"] == "COMPLETED"
    assert (await handle.describe()).status == WorkflowExecutionStatus.COMPLETED


async def test_a_definition_that_this_engine_cannot_read_ends_the_run_instead_of_wedging_it(
    on_stage: Stage,
) -> None:
    handle = await on_stage.start(definition(task("a")) | {"format": 99})
    cause = await ended(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "INTERNAL"
    assert "newer than this engine" in cause.message
    assert on_stage.record()["status"] == "FAILED"


async def test_temporals_own_page_shows_how_the_run_stands(on_stage: Stage) -> None:
    handle = await on_stage.start(definition(task("a"), approval("gate", "a")))
    await until(handle, "gate", "WAITING")
    metadata: Any = await handle.query("__temporal_workflow_metadata")
    assert metadata.current_details == "tasks: 1 of 2 done; waiting: gate"
    await handle.cancel()
    await ended(handle)
