"""Children: runs of their own, started once, cancelled and failed through, found again after a fresh history."""

from __future__ import annotations

import pytest

from engine.core import workflow
from tests.workflow.house import House

LEAF = """
name: leaf
inputs: {type: object, required: [n], properties: {n: {type: integer}, add: {type: integer, default: 1}}}
tasks:
  - {id: work, activity_type: echo, config: {result: "${{ inputs.n + inputs.add }}"}}
outputs: {n: "${{ tasks.work.outputs }}"}
"""
PARENT = """
name: parent
inputs: {type: object, properties: {n: {type: integer, default: 1}}}
tasks:
  - {id: call, type: workflow, workflow: leaf, inputs: {n: "${{ inputs.n }}"}}
  - {id: after, depends_on: [call], activity_type: echo, config: {result: "${{ tasks.call.outputs.n }}"}}
outputs: {n: "${{ tasks.after.outputs }}"}
"""
SLOW = """
name: leaf
tasks: [{id: work, activity_type: echo, timeout: 1m, config: {sleep: 30}}]
finally: [{id: unlock, activity_type: echo, config: {}}]
"""
CALLS = """
name: parent
tasks: [{id: call, type: workflow, workflow: leaf}]
finally: [{id: tidy, activity_type: echo, config: {}}]
"""


async def test_a_child_is_a_run_of_its_own_and_its_outputs_come_back(at_home: House) -> None:
    await at_home.deploy(LEAF, PARENT)
    run = await at_home.run("parent", n=4)
    assert run["outputs"] == {"n": 5}
    child = await at_home.child(run["id"])
    assert (child["status"], child["workflow"], child["outputs"]) == ("COMPLETED", "leaf", {"n": 5})
    assert child["inputs"] == {"n": 4, "add": 1}
    assert child["root_id"] == run["id"]
    assert (
        child["commit_sha"]
        == (await at_home.rows("SELECT * FROM workflow_versions WHERE name = 'leaf'"))[0]["commit_sha"]
    )
    more = await at_home.rows(
        "SELECT more FROM task_states WHERE execution_id = :r AND task = 'call'", r=run["id"]
    )
    assert more[0]["more"]["child_id"] == child["id"]
    names = await at_home.events(run["id"])
    assert names.count("ACTIVITY_TASK_SCHEDULED") == 1  # the parent pays nothing for the child's row


async def test_inputs_that_do_not_fit_fail_the_task_with_the_childs_word(at_home: House) -> None:
    await at_home.deploy(
        LEAF,
        PARENT.replace(
            'n: "${{ inputs.n }}"',
            "n: \"${{ inputs.n > 0 ? 1 : 2 }}\", add: \"${{ size(run.id) > 0 ? 'x' : 'y' }}\"",
        ),
    )
    run = await at_home.run("parent", status="FAILED")
    assert run["error"]["type"] == "INPUTS"
    assert run["error"]["task"] == "call"
    child = await at_home.child(run["id"])
    assert (child["status"], child["error"]["type"]) == ("FAILED", "INPUTS")


async def test_the_failure_of_a_child_goes_through_and_each_attempt_is_a_run(at_home: House) -> None:
    failing = LEAF.replace("config: {result:", "config: {fail_until: 9, error: FLAKY, result:")
    retried = PARENT.replace(
        "workflow: leaf,", "workflow: leaf, retry: {max_attempts: 2, initial_interval: 10ms},"
    )
    await at_home.deploy(failing, retried)
    run = await at_home.run("parent", status="FAILED")
    assert run["error"]["type"] == "FLAKY"
    children = await at_home.rows(
        "SELECT id, status FROM workflow_executions WHERE parent_id = :r", r=run["id"]
    )
    assert [child["status"] for child in children] == ["FAILED", "FAILED"]


async def test_a_cancel_goes_through_and_each_cleans_up(at_home: House) -> None:
    await at_home.deploy(SLOW, CALLS)
    run = await at_home.start("parent")
    child = (await at_home.child(run))["id"]
    await at_home.task_is(child, "work", "RUNNING")
    await at_home.executor.cancel(run, by="ada", reason="enough")
    await at_home.ended(run, "CANCELLED")
    assert (await at_home.row(child) or {})["status"] == "CANCELLED"
    assert await at_home.tasks(child) == {"work": "CANCELLED", "unlock": "COMPLETED"}
    assert await at_home.tasks(run) == {"call": "CANCELLED", "tidy": "COMPLETED"}


async def test_a_second_cancel_leaves_out_the_clean_up_of_the_child_as_well(at_home: House) -> None:
    slow = SLOW.replace("sleep: 30}}]", "sleep: 5}}]").replace(
        "config: {}", "timeout: 1m, config: {sleep: 30}"
    )
    await at_home.deploy(slow, CALLS)
    run = await at_home.start("parent")
    child = (await at_home.child(run))["id"]
    await at_home.task_is(child, "work", "RUNNING")
    await at_home.executor.cancel(run, by="ada", reason="enough")
    await at_home.task_is(child, "unlock", "RUNNING")
    await at_home.executor.cancel_again(run, by="ada", reason="now", id="2")
    await at_home.ended(run, "CANCELLED", seconds=20)
    assert await at_home.tasks(child) == {"work": "CANCELLED", "unlock": "CANCELLED"}
    assert await at_home.tasks(run) == {"call": "CANCELLED", "tidy": "SKIPPED"}


async def test_a_pause_reaches_the_child_and_so_does_its_end(at_home: House) -> None:
    chain = SLOW.replace(
        "sleep: 30}}]", "sleep: 0.5}}, {id: then, depends_on: [work], activity_type: echo, config: {}}]"
    )
    await at_home.deploy(chain, CALLS)
    run = await at_home.start("parent")
    child = (await at_home.child(run))["id"]
    await at_home.task_is(child, "work", "RUNNING")
    await at_home.executor.signal(run, "pinflow.pause", {"by": "ada", "reason": "", "id": "1"})
    await at_home.task_is(child, "work", "COMPLETED")
    assert (await at_home.standing(child))["status"] == "PAUSED"
    assert "then" not in at_home.ledger.started()
    await at_home.executor.signal(run, "pinflow.resume", {"by": "ada", "id": "2"})
    await at_home.ended(run)
    assert at_home.ledger.started() == ["work", "then", "unlock", "tidy"]


async def test_a_child_that_is_terminated_by_hand_fails_its_task(at_home: House) -> None:
    await at_home.deploy(SLOW, CALLS)
    run = await at_home.start("parent")
    child = (await at_home.child(run))["id"]
    await at_home.task_is(child, "work", "RUNNING")
    await at_home.executor.terminate(child, reason="by hand")
    row = await at_home.ended(run, "FAILED")
    assert row["error"]["type"] == "Terminated"


LONG = """
name: parent
tasks:
  - {id: call, type: workflow, workflow: leaf}
  - id: busy
    type: loop
    state: {n: 0}
    tasks: [{id: step, activity_type: echo, config: {}}]
    next: {n: "${{ state.n + 1 }}"}
    until: "${{ state.n >= 12 }}"
    max_iterations: 20
  - {id: after, depends_on: [call, busy], activity_type: echo, config: {result: "${{ tasks.call.outputs.n }}"}}
outputs: {n: "${{ tasks.after.outputs }}"}
"""
GATED = """
name: leaf
tasks:
  - {id: gate, type: signal, signal: go, timeout: 1m}
  - {id: work, depends_on: [gate], activity_type: echo, config: {result: 7}}
outputs: {n: "${{ tasks.work.outputs }}"}
"""


async def fresh_history(at_home: House, run: str) -> None:
    """Wait until the run has gone on in a fresh history with its loop done."""
    await at_home.task_is(run, "busy", "COMPLETED")
    first = (await at_home.handle(run).describe()).raw_description.workflow_execution_info
    assert first.first_run_id != first.execution.run_id


@pytest.mark.parametrize("how", ["completes", "cancelled", "terminated"])
async def test_an_open_child_is_found_again_after_a_fresh_history(
    at_home: House, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(workflow, "CALM_EVENTS", 30)
    monkeypatch.setattr(workflow, "DRAIN_EVENTS", 40)
    await at_home.deploy(GATED, LONG)
    run = await at_home.start("parent")
    child = (await at_home.child(run))["id"]
    await fresh_history(at_home, run)
    if how == "completes":
        await at_home.executor.signal(child, "pinflow.signal", {"id": "1", "name": "go", "payload": {}})
        assert (await at_home.ended(run))["outputs"] == {"n": 7}
    elif how == "cancelled":
        await at_home.executor.cancel(run, by="ada", reason="enough")
        await at_home.ended(run, "CANCELLED")
        assert (await at_home.row(child) or {})["status"] == "CANCELLED"
    else:
        await at_home.executor.terminate(child, reason="by hand")
        assert (await at_home.ended(run, "FAILED"))["error"]["type"] == "Terminated"
    children = await at_home.rows("SELECT id FROM workflow_executions WHERE parent_id = :r", r=run)
    assert len(children) == 1


async def test_a_word_to_a_child_that_is_gone_harms_nobody(
    at_home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "CALM_EVENTS", 30)
    monkeypatch.setattr(workflow, "DRAIN_EVENTS", 40)
    await at_home.deploy(GATED, LONG)
    run = await at_home.start("parent")
    child = (await at_home.child(run))["id"]
    await fresh_history(at_home, run)
    await at_home.executor.terminate(child, reason="by hand")
    await at_home.executor.signal(run, "pinflow.pause", {"by": "ada", "reason": "", "id": "1"})
    await at_home.executor.signal(run, "pinflow.resume", {"by": "ada", "id": "2"})
    assert (await at_home.ended(run, "FAILED"))["error"]["type"] == "Terminated"
