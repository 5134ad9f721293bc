"""A run once more from what failed, with everything real but the tasks: what is taken over is not done again."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core import slices
from tests.workflow.house import ADA, House

LEAF = """
name: leaf
inputs: {type: object, required: [n], properties: {n: {type: integer}}}
tasks: [{id: work, activity_type: echo, config: {result: "${{ inputs.n + 1 }}"}}]
outputs: {n: "${{ tasks.work.outputs }}"}
"""
MIDDLE = """
name: middle
tasks:
  - {id: below, type: workflow, workflow: leaf, inputs: {n: 1}}
  - {id: shaky, activity_type: echo, depends_on: [below], config: {result: "${{ tasks.below.outputs.n }}"}}
outputs: {n: "${{ tasks.shaky.outputs }}"}
"""
PARENT = """
name: parent
tasks:
  - {id: call, type: workflow, workflow: leaf, inputs: {n: 6}}
  - id: few
    type: map
    depends_on: [call]
    items: "${{ range(4) }}"
    tasks: [{id: work, activity_type: echo, config: {result: "${{ item * tasks.call.outputs.n }}"}}]
  - id: many
    type: map
    depends_on: [call]
    items: "${{ range(12) }}"
    tasks: [{id: work, activity_type: echo, config: {result: "${{ item }}"}}]
  - {id: last, depends_on: [few, many], activity_type: echo, config: {}}
outputs: {few: "${{ tasks.few.outputs }}", many: "${{ tasks.many.outputs }}"}
"""


async def again(at_home: House, run: str) -> Any:
    """Mend what was broken, forget what was done, and run from what failed; what the rerun says of each task."""
    at_home.ledger.broken.clear()
    at_home.ledger.attempts.clear()
    return await at_home.services.reruns.rerun(ADA, run, from_failed=True)


async def test_a_rerun_takes_over_children_and_items_of_maps_cut_or_whole(
    at_home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_ITEMS", 10)
    await at_home.deploy(LEAF, PARENT)
    at_home.ledger.broken |= {"few[2].work", "many[11].work"}
    first = await at_home.run("parent", status="FAILED")
    rerun = await again(at_home, first["id"])
    second = await at_home.ended(rerun.started.id)
    assert second["outputs"] == {"few": [0, 7, 14, 21], "many": list(range(12))}
    assert sorted(at_home.ledger.started()) == ["few[2].work", "last", "many[11].work"]
    told = {task["task"]: (task["verdict"], task["reason"].rpartition("; ")[2]) for task in rerun.tasks}
    assert told["call"][0] == "reuse"
    assert told["few"] == ("run", "3 of its items are reused")
    assert told["many"] == ("run", "11 of its items are reused")
    assert await at_home.rows("SELECT id FROM workflow_executions WHERE parent_id = :r", r=second["id"]) == []


async def test_a_rerun_of_a_child_takes_over_what_it_had_called(at_home: House) -> None:
    above = "name: above\ntasks: [{id: call, type: workflow, workflow: middle}]\n"
    await at_home.deploy(LEAF, MIDDLE, above)
    at_home.ledger.broken |= {"shaky"}
    run = await at_home.run("above", status="FAILED")
    rerun = await again(at_home, (await at_home.child(run["id"]))["id"])
    assert (await at_home.ended(rerun.started.id))["outputs"] == {"n": 2}
    assert at_home.ledger.started() == ["shaky"]
