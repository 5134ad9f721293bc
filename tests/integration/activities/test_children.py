"""The first step of a child: its row, once, with inputs that fit its version."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from engine.activities.door import engine_activities
from engine.core.contracts import Parent, Pin, RunStart
from engine.core.run_state import start_to_json
from tests.integration.activities.conftest import Run
from tests.support.registered import Registered, compiled_form, register
from tests.support.runs import rows

SCHEMA = {
    "type": "object",
    "required": ["region"],
    "properties": {"region": {"type": "string"}, "size": {"type": "integer", "default": 3}},
}


def start(run: Run, version: Registered, **fields: Any) -> RunStart:
    pin = Pin(
        version.name, "main", version.commit_sha, version.commit_sha, version.digest, version.compiled_digest
    )
    known: dict[str, Any] = {
        "execution_id": "child-1",
        "pin": pin,
        "inputs": {"region": "eu"},
        "started_by": "ada",
        "started_at": "2030-01-01T00:00:00Z",
        "parent": Parent(run.id, "each[2].call", run.id, 1),
    }
    return RunStart(**{**known, **fields})


async def version_of(run: Run) -> Registered:
    compiled = compiled_form("child", inputs=SCHEMA, title="A child")
    return await register(run.database, "child", compiled=compiled)


async def opened(run: Run, begun: RunStart) -> dict[str, Any]:
    named = {getattr(f, "__temporal_activity_definition").name: f for f in engine_activities(run.database)}
    answer: dict[str, Any] = await ActivityEnvironment().run(named["pinflow.open_run"], start_to_json(begun))
    return answer


async def child_row(run: Run) -> dict[str, Any]:
    (row,) = await rows(run.database, "SELECT * FROM workflow_executions WHERE id = 'child-1'")
    return row


async def test_a_child_gets_a_row_that_says_whose_it_is(run: Run) -> None:
    begun = start(run, await version_of(run))
    answer = await opened(run, begun)
    assert answer == {"error": None, "inputs": {"region": "eu", "size": 3}}
    row = await child_row(run)
    assert (row["parent_id"], row["parent_task"], row["root_id"]) == (run.id, "each[2].call", run.id)
    assert (row["status"], row["inputs"], row["title"]) == ("RUNNING", {"region": "eu", "size": 3}, "A child")
    assert row["commit_sha"] == begun.pin.commit_sha
    audit = await rows(run.database, "SELECT action, details FROM audit WHERE execution_id = 'child-1'")
    assert [entry["action"] for entry in audit] == ["execution.started"]
    assert audit[0]["details"]["parent_id"] == run.id


async def test_a_repeat_writes_nothing_and_answers_the_same(run: Run) -> None:
    begun = start(run, await version_of(run))
    answers = await asyncio.gather(*(opened(run, begun) for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert len(await rows(run.database, "SELECT id FROM audit WHERE execution_id = 'child-1'")) == 1


async def test_inputs_that_do_not_fit_end_the_child_before_it_begins(run: Run) -> None:
    answer = await opened(run, start(run, await version_of(run), inputs={"region": 7, "size": "x"}))
    assert answer["error"]["type"] == "INPUTS"
    assert "/region" in answer["error"]["message"]
    row = await child_row(run)
    assert (row["status"], row["error"]["type"]) == ("FAILED", "INPUTS")
    assert row["finished_at"] is not None
    audit = await rows(run.database, "SELECT action FROM audit WHERE execution_id = 'child-1'")
    assert [entry["action"] for entry in audit] == ["execution.refused"]


async def test_a_pin_that_the_registry_does_not_hold_starts_nothing(run: Run) -> None:
    version = await version_of(run)
    pin = Pin("child", "main", version.commit_sha, version.commit_sha, "0" * 64, version.compiled_digest)
    with pytest.raises(ApplicationError) as caught:
        await opened(run, start(run, version, pin=pin))
    assert (caught.value.type, caught.value.non_retryable) == ("UNKNOWN_VERSION", True)


async def test_a_childs_callback_key_stands_in_its_row(run: Run) -> None:
    callback = {"base": "https://pinflow.example.test", "key": "of the child"}
    await opened(run, start(run, await version_of(run), callback=callback))
    assert (await child_row(run))["callback_key"] == "of the child"
