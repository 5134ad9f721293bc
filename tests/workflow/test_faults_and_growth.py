"""Lost workers, fresh histories, wide runs."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.exceptions import CancelledError

from engine.core import task_runner, workflow
from engine.core.states import TASK_ENDS
from engine.executor.payloads import data_converter
from engine.storage.database import Database
from tests.support.definitions import approval, definition, retry, task
from tests.workflow.scenarios import SCENARIOS
from tests.workflow.stage import Ledger, Stage, ended, events, stage, until, worker


async def test_a_task_whose_worker_was_stopped_is_started_again(client: Client) -> None:
    on_stage = Stage(client, f"test-{uuid.uuid4()}", Ledger())
    async with worker(on_stage):
        handle = await on_stage.start(
            definition(task("a", config={"mute": 1, "result": 7}), outputs="${{ tasks.a.outputs }}")
        )
        await until(handle, "a", "RUNNING")
        while not on_stage.ledger.attempts:
            await until(handle, "a", "RUNNING")
    async with worker(on_stage):
        assert await handle.result() == 7
    assert on_stage.ledger.started() == ["a", "a"]


async def test_a_task_whose_worker_gives_no_sign_of_life_is_started_again(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runner, "HEARTBEAT", 0.3)
    await on_stage.run(
        definition(task("a", config={"mute": 2}, retry=retry(2)), task("b", config={"mute": 1}))
    )
    assert on_stage.statuses() == {"a": "COMPLETED", "b": "COMPLETED"}


async def test_a_task_that_loses_every_worker_fails(on_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "HEARTBEAT", 0.3)
    await on_stage.run(definition(task("a", config={"mute": 99})))
    assert on_stage.record()["error"]["type"] == "WORKER_LOST"
    assert on_stage.ledger.started() == ["a"] * 4


async def test_a_cancelled_task_whose_worker_is_lost_is_not_started_again(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runner, "HEARTBEAT", 1.0)
    handle = await on_stage.start(definition(task("a", config={"mute": 1}), finally_=[task("unlock")]))
    await until(handle, "a", "RUNNING")
    while not on_stage.ledger.attempts:
        await until(handle, "a", "RUNNING")
    await handle.cancel()
    assert isinstance(await ended(handle), CancelledError)
    assert on_stage.ledger.started() == ["a", "unlock"]
    assert on_stage.statuses() == {"a": "CANCELLED", "unlock": "COMPLETED"}


async def test_a_long_run_goes_on_in_fresh_histories(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "CALM_EVENTS", 30)
    monkeypatch.setattr(workflow, "DRAIN_EVENTS", 40)
    chains = [
        task(f"c{c}t{i}", *([f"c{c}t{i - 1}"] if i else []), config={"n": i})
        for c in range(3)
        for i in range(12)
    ]
    compiled = definition(
        *chains,
        approval("gate"),
        task("nap", type="wait", duration=0.5),
        task("last", "gate", "nap", "c0t11", "c1t11", "c2t11"),
        finally_=[task("unlock")],
    )
    handle = await on_stage.start(compiled)
    await until(handle, "c2t11", "COMPLETED")
    decided: dict[str, object] = {
        "task": "gate",
        "approval_id": "id-gate",
        "outcome": "APPROVED",
        "decisions": [],
        "deadline": None,
    }
    current = on_stage.client.get_workflow_handle(handle.id)
    await current.signal("pinflow.approval", decided)
    assert await ended(handle) is None
    assert sorted(on_stage.ledger.started()) == sorted([*(t["id"] for t in chains), "last", "unlock"])
    assert {t["status"] for t in on_stage.record()["tasks"]} == {"COMPLETED"}
    first = await events(on_stage.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id))
    assert first[-1] == "WORKFLOW_EXECUTION_CONTINUED_AS_NEW"
    assert len(first) < 100
    assert len(await events(current)) < 150


async def test_a_wide_run_never_has_more_in_flight_than_temporal_can_take(on_stage: Stage) -> None:
    handle = await on_stage.run(
        definition(*(task(f"t{i}") for i in range(700)), task("join", *(f"t{i}" for i in range(700))))
    )
    names = await events(handle)
    pending = most = 0
    for name in names:
        pending += (name == "ACTIVITY_TASK_SCHEDULED") - (name == "ACTIVITY_TASK_COMPLETED")
        most = max(most, pending)
    assert most <= 500
    assert len(on_stage.ledger.started()) == 701


async def test_many_short_tasks_are_told_of_in_several_messages(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runner, "LOCAL_TASKS", 50)
    many = [
        task(f"t{i}", *([f"t{i - 60}"] if i >= 60 else []), activity_type="http_request", timeout=1.0)
        for i in range(300)
    ]
    handle = await on_stage.run(definition(*many))
    assert set(on_stage.ledger.local().values()) == {True}
    assert {t["status"] for t in on_stage.record()["tasks"]} == {"COMPLETED"}
    names = await events(handle)
    assert names.count("TIMER_FIRED") >= 2
    assert "ACTIVITY_TASK_SCHEDULED" not in names


async def test_a_burst_of_short_tasks_never_outgrows_one_workflow_task(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun all at once, they would outlast it on a slow worker, and be begun anew for ever."""
    monkeypatch.setattr(task_runner, "LOCAL_TASKS", 40)
    many = [task(f"t{i}", activity_type="http_request", timeout=1.0) for i in range(200)]
    names = await events(await on_stage.run(definition(*many)))
    told = [part.count("MARKER_RECORDED") for part in _parts(names, "WORKFLOW_TASK_COMPLETED")]
    assert sum(told) > 200
    assert max(told) <= 42  # and the markers of the patches


async def test_a_run_that_takes_nothing_new_begins_a_fresh_history_although_less_came_than_was_feared(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short tasks write one event each where five are reckoned with: a limit that is out of sight again still counts."""
    monkeypatch.setattr(workflow, "CALM_EVENTS", 30)
    monkeypatch.setattr(workflow, "DRAIN_EVENTS", 200)
    monkeypatch.setattr(task_runner, "LOCAL_TASKS", 20)
    many = [task(f"t{i}", activity_type="http_request", timeout=1.0) for i in range(400)]
    await on_stage.run(definition(*many) | {"max_concurrency": 60})
    assert {t["status"] for t in on_stage.record()["tasks"]} == {"COMPLETED"}


def _parts(names: list[str], cut: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for name in names:
        if name == cut:
            found.append([])
        found[-1].append(name)
    return found


async def test_a_cancel_reaches_short_tasks_that_wait_for_a_new_message(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runner, "LOCAL_TASKS", 0)
    short: dict[str, Any] = {"activity_type": "http_request", "timeout": 1.0}
    handle = await on_stage.start(
        definition(task("a", **short), task("b", **short), finally_=[task("unlock", config={})])
    )
    await handle.cancel()
    assert isinstance(await ended(handle), CancelledError)
    assert on_stage.statuses()["unlock"] == "COMPLETED"
    assert {on_stage.statuses()[name] for name in ("a", "b")} <= {"CANCELLED", "COMPLETED"}


async def test_a_run_that_is_cancelled_before_any_worker_saw_it_still_cleans_up_and_is_recorded(
    client: Client,
) -> None:
    on_stage = Stage(client, f"test-{uuid.uuid4()}", Ledger())
    handle = await on_stage.start(definition(task("a", config={"sleep": 20}), finally_=[task("unlock")]))
    await handle.cancel()
    async with worker(on_stage):
        assert isinstance(await ended(handle), CancelledError)
    assert on_stage.record()["status"] == "CANCELLED"
    assert on_stage.statuses()["unlock"] == "COMPLETED"


@pytest.mark.parametrize("name", ["failing", "cancelled", "approved", "local_with_checkpoints"])
async def test_runs_go_on_without_any_cache(client: Client, name: str) -> None:
    async with stage(client, max_cached_workflows=0) as on_stage:
        await SCENARIOS[name](on_stage)
        assert {t["status"] for t in on_stage.record()["tasks"]} <= TASK_ENDS


async def test_many_runs_at_once(on_stage: Stage) -> None:
    compiled = definition(
        task("a"), task("b", "a", activity_type="http_request", timeout=1.0), task("c", "b")
    )
    handles = await asyncio.gather(*(on_stage.start(compiled) for _ in range(40)))
    await asyncio.gather(*(ended(handle) for handle in handles))
    assert len(on_stage.ledger.records) == 40
    assert {record["status"] for record in on_stage.ledger.records} == {"COMPLETED"}


async def test_a_fan_out_over_a_large_value_is_no_message_that_temporal_refuses(
    temporal: str, database: Database
) -> None:
    """Temporal ends a run whose workflow task answers with more than 4 MiB: 60 calls of 100 KB are more."""
    client = await Client.connect(temporal, data_converter=data_converter(database))
    many = [task(f"b{i}", "a", config={"r": "${{ tasks.a.outputs }}", "result": i}) for i in range(60)]
    async with stage(client) as on_stage:
        handle = await on_stage.run(definition(task("a", config={"result": "x" * 100_000}), *many))
        assert {t["status"] for t in on_stage.record()["tasks"]} == {"COMPLETED"}
        history = await handle.fetch_history()
    assert 800_000 < sum(event.ByteSize() for event in history.events) < 1_500_000


async def test_a_snapshot_that_temporal_could_not_carry_leaves_out_outputs(
    temporal: str, database: Database
) -> None:
    client = await Client.connect(temporal, data_converter=data_converter(database))
    many = [task(f"t{i}", config={"result": "x" * 150_000}) for i in range(16)]
    async with stage(client) as on_stage:
        handle = await on_stage.run(definition(*many))
        snapshot = await handle.query("pinflow.snapshot")
    assert snapshot["outputs_left_out"] is True
    assert {(t["status"], t["outputs"]) for t in snapshot["tasks"]} == {("COMPLETED", None)}
