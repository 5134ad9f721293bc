"""The outbox relay against a real Temporal."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import Misconfigured
from engine.executor.dispatcher import Dispatcher
from engine.executor.payloads import data_converter
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.storage import outbox
from tests.integration.executor.conftest import Stage
from tests.support.puppet import worker


async def test_a_start_is_sent_once_and_the_run_is_running(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    assert await stage.dispatcher.pass_once() == 1
    assert await stage.status(run) == "RUNNING"
    assert await stage.actions(run) == ["execution.requested", "execution.started"]
    assert (await stage.executor.describe(run)).status == "OPEN"
    assert await stage.dispatcher.pass_once() == 0


async def test_a_title_that_postgres_cannot_keep_stops_no_start(stage: Stage) -> None:
    run = await stage.begin(title="a\0b")
    (row,) = await stage.rows("SELECT title FROM workflow_executions WHERE id = :run", run=run)
    assert row["title"] == "a\ufffdb"


async def test_many_relays_at_once_start_one_run_and_audit_it_once(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    relays = [Dispatcher(stage.database, stage.executor) for _ in range(5)]
    await asyncio.gather(*(relay.dispatch_now(run) for relay in relays))
    assert await stage.actions(run) == ["execution.requested", "execution.started"]
    assert await stage.rows("SELECT * FROM outbox") == []


async def test_a_new_message_is_left_to_its_writer_for_a_while(stage: Stage) -> None:
    await stage.begin(head_start=60)
    assert await stage.dispatcher.pass_once() == 0


async def test_a_run_reads_its_definition_and_inputs_through_the_payload_storage(stage: Stage) -> None:
    async with worker(stage.executor, stage.queue):
        run = await stage.begin(end="complete", big="x" * 300_000)
        await stage.dispatcher.pass_once()
        remote = await stage.closed(run)
    assert remote.outputs == {"told": [], "name": "hello", "run": run}
    kinds = await stage.rows("SELECT kind FROM blobs WHERE kind = 'payload'")
    assert len(kinds) == 1


async def test_a_cancel_never_overtakes_its_start(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    async with stage.database.begin() as connection:
        await outbox.enqueue(connection, "cancel", run, {"by": "ada", "reason": "no"})
    async with worker(stage.executor, stage.queue):
        assert await stage.dispatcher.pass_once() == 1
        assert await stage.status(run) == "RUNNING"
        assert await stage.dispatcher.pass_once() == 1
        remote = await stage.closed(run)
    assert remote.status == "CANCELLED"


async def test_a_cancel_that_is_sent_twice_is_taken_once(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    await stage.dispatcher.pass_once()
    for _ in range(2):
        await stage.executor.cancel(run, by="ada", reason="enough")


async def test_a_message_for_a_closed_run_ends_as_too_late(stage: Stage) -> None:
    run = await stage.begin(end="complete")
    async with worker(stage.executor, stage.queue):
        await stage.dispatcher.pass_once()
        await stage.closed(run)
    async with stage.database.begin() as connection:
        await outbox.enqueue(connection, "approval", run, {"task": "gate"})
    await stage.dispatcher.pass_once()
    assert await stage.rows("SELECT * FROM outbox") == []
    assert (await stage.actions(run))[-1] == "execution.message_too_late"


async def test_an_absent_temporal_never_parks_a_message(stage: Stage, unused_tcp_port: int) -> None:
    run = await stage.begin()
    nowhere = await TemporalWorkflowExecutor.connect(
        f"127.0.0.1:{unused_tcp_port}",
        namespace="default",
        task_queue="q",
        converter=data_converter(stage.database),
    )
    dispatcher = Dispatcher(stage.database, nowhere)
    for _ in range(2):
        await stage.rows("UPDATE outbox SET due_at = now()")
        await dispatcher.pass_once()
    (message,) = await stage.rows("SELECT attempts, parked_at, last_error FROM outbox")
    assert (message["attempts"], message["parked_at"]) == (0, None)
    assert "away" in message["last_error"]
    assert nowhere.away
    assert await stage.status(run) == "PENDING"


async def test_who_watches_temporal_survives_whatever_it_answers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Exception] = [Misconfigured("no Temporal server"), RuntimeError("odd")]

    async def ping() -> None:
        if answers:
            raise answers.pop(0)
        stage.executor.away = ""

    monkeypatch.setattr(stage.executor, "ping", ping)
    watching = asyncio.create_task(stage.executor.watch(0.2))
    await asyncio.sleep(0.1)
    assert stage.executor.away == "no Temporal server"
    for _ in range(100):
        if not stage.executor.away:
            break
        await asyncio.sleep(0.05)
    assert not stage.executor.away
    assert not answers
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_poisoned_message_is_parked_and_the_others_pass(stage: Stage) -> None:
    bad = await stage.begin(end="wait")
    await stage.rows("UPDATE outbox SET kind = 'nonsense'")
    good = await stage.begin(end="wait")
    for _ in range(5):
        await stage.rows("UPDATE outbox SET due_at = now()")
        await stage.dispatcher.pass_once()
    assert await stage.status(good) == "RUNNING"
    (message,) = await stage.rows("SELECT execution_id, attempts, parked_at FROM outbox")
    assert (message["execution_id"], message["attempts"]) == (bad, 5)
    assert message["parked_at"]


async def test_a_message_whose_outcome_cannot_be_noted_stops_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await stage.begin(end="wait")
    good = await stage.begin(end="wait")
    await stage.rows("UPDATE outbox SET kind = 'nonsense' WHERE execution_id = :bad", bad=bad)

    async def broken(*_: object, **__: object) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(outbox, "refused", broken)
    loop = asyncio.create_task(stage.dispatcher.run())
    await running(stage, good)
    await running(stage, await stage.begin(end="wait"))
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def running(stage: Stage, run: str) -> None:
    for _ in range(400):
        if await stage.status(run) == "RUNNING":
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"run {run} is not started")


async def test_a_start_that_temporal_refuses_for_good_fails_the_run(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    await stage.rows("UPDATE workflow_executions SET workflow = :name", name="n" * 2000)
    for _ in range(5):
        await stage.rows("UPDATE outbox SET due_at = now()")
        await stage.dispatcher.pass_once()
    assert await stage.status(run) == "FAILED"
    assert (await stage.actions(run))[-1] == "execution.refused"


@pytest.mark.parametrize("point", ["dispatch.before_send", "dispatch.after_send"])
async def test_a_relay_that_fails_around_the_send_is_followed_by_one_that_does_it(
    stage: Stage, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await stage.begin(end="wait")
    monkeypatch.setenv("PINFLOW_FAULTS", f"{point}=error")
    await stage.dispatcher.pass_once()
    assert await stage.status(run) == "PENDING"
    monkeypatch.delenv("PINFLOW_FAULTS")
    await stage.dispatcher.dispatch_now(run)
    assert await stage.actions(run) == ["execution.requested", "execution.started"]


@pytest.mark.parametrize("kind", ["pause", "resume", "signal", "slot"])
async def test_a_word_reaches_its_run_as_the_signal_of_its_kind(stage: Stage, kind: str) -> None:
    async with worker(stage.executor, stage.queue):
        run = await stage.begin(end="wait")
        await stage.dispatcher.pass_once()
        async with stage.database.begin() as connection:
            await outbox.enqueue(connection, kind, run, {"id": "1", "by": "ada"})
        await stage.dispatcher.pass_once()
        remote = await stage.closed(run)
    assert remote.outputs["told"] == [{"heard": kind, "id": "1", "by": "ada"}]


async def test_a_word_for_a_slice_goes_to_the_slice(stage: Stage) -> None:
    async with worker(stage.executor, stage.queue):
        run, other = await stage.begin(end="wait"), await stage.begin(end="wait")
        await stage.dispatcher.pass_once()
        async with stage.database.begin() as connection:
            await outbox.enqueue(connection, "slot", run, {"to": other, "task": "t", "granted": True})
        await stage.dispatcher.pass_once()
        assert (await stage.closed(other)).outputs["told"] == [
            {"heard": "slot", "task": "t", "granted": True}
        ]
        assert (await stage.executor.describe(run)).status == "OPEN"


async def test_a_large_word_reaches_its_run_and_stands_outside_of_the_history(stage: Stage) -> None:
    run = await stage.begin(end="wait")
    said = {"id": "1", "name": "go", "payload": "x" * 10_000}
    async with stage.database.begin() as connection:
        await outbox.enqueue(connection, "signal", run, said)
    async with worker(stage.executor, stage.queue):
        while await stage.dispatcher.pass_once():
            pass
        remote = await stage.closed(run)
    assert remote.outputs["told"] == [{"heard": "signal"} | said]
    history = await stage.executor.client.get_workflow_handle(run).fetch_history()
    (signalled,) = [
        event for event in history.events if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert signalled.ByteSize() < 1_000
