"""Large maps are cut into workflows of their own; nobody who wrote or watches the run need know."""

from __future__ import annotations

import pytest

from engine.core import slices, workflow
from tests.workflow.house import ADA, House

MAP = """
name: mapped
inputs: {type: object, properties: {n: {type: integer, default: 30}}}
tasks:
  - id: each
    type: map
    items: "${{ range(inputs.n) }}"
    results: "${{ tasks.work.outputs }}"
    tolerated_failures: 100%
    tasks:
      - {id: work, activity_type: echo, timeout: 1s, execution: local, config: {result: "${{ item * 2 }}"}}
outputs: {all: "${{ tasks.each.outputs }}"}
"""
GATE = """
      - id: gate
        activity_type: human_approval
        depends_on: [work]
        config: {message: "${{ string(item) }}?", approvers: {groups: [admins]}}
"""


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of more than ten items are cut into slices of ten."""
    monkeypatch.setattr(slices, "SLICE_ITEMS", 10)


@pytest.mark.usefixtures("small_slices")
async def test_a_cut_map_gives_what_an_uncut_one_gives(at_home: House) -> None:
    await at_home.deploy(MAP)
    run = await at_home.run("mapped", n=35)
    assert run["outputs"] == {"all": [n * 2 for n in range(35)]}
    names = await at_home.events(run["id"])
    assert names.count("START_CHILD_WORKFLOW_EXECUTION_INITIATED") == 4
    assert "ACTIVITY_TASK_SCHEDULED" not in names
    tasks = await at_home.tasks(run["id"])
    assert tasks == {"each": "COMPLETED", **{f"each[{n}].work": "COMPLETED" for n in range(35)}}


@pytest.mark.usefixtures("small_slices")
async def test_failures_come_back_at_their_index(at_home: House) -> None:
    await at_home.deploy(MAP.replace("config: {", 'config: {fail_until: "${{ item == 23 ? 9 : 0 }}", '))
    run = await at_home.run("mapped", n=25)
    assert run["outputs"]["all"][23] is None
    assert run["outputs"]["all"][24] == 48
    assert (await at_home.tasks(run["id"]))["each[23].work"] == "FAILED"


@pytest.mark.usefixtures("small_slices")
async def test_a_cancel_reaches_the_slices(at_home: House) -> None:
    await at_home.deploy(
        MAP.replace("timeout: 1s, execution: local, config: {", "timeout: 1m, config: {sleep: 30, ")
    )
    run = await at_home.start("mapped", n=25)
    await at_home.until(lambda: _started(at_home, 10), "tasks to run")
    await at_home.executor.cancel(run, by="ada", reason="enough")
    await at_home.ended(run, "CANCELLED")
    assert set((await at_home.tasks(run)).values()) <= {"CANCELLED", "SKIPPED"}
    await at_home.until(lambda: _nothing_open(at_home, run), "the slices to be over")


@pytest.mark.usefixtures("small_slices")
async def test_under_drain_a_slice_ends_at_its_first_failure_and_the_others_begin_no_items(
    at_home: House,
) -> None:
    text = MAP.replace("name: mapped", "name: mapped\non_task_failure: drain\nmax_concurrency: 60", 1)
    text = text.replace("    tolerated_failures: 100%\n", "").replace(
        "timeout: 1s, execution: local,", "timeout: 1m,"
    )
    slow = 'config: {sleep: "${{ item < 10 ? 0.0 : 1.0 }}", '
    await at_home.deploy(text.replace("config: {", slow))
    at_home.ledger.broken.add("each[0].work")
    run = await at_home.run("mapped", status="FAILED", n=50)
    assert run["error"]["type"] == "ITEMS_FAILED"
    assert len(set(at_home.ledger.started())) < 50
    for offset in (10, 20):
        assert (await at_home.events(f"{run['id']}/each[{offset}]")).count("WORKFLOW_EXECUTION_SIGNALED") == 1


async def _started(at_home: House, count: int) -> bool:
    return len(at_home.ledger.attempts) >= count


async def _nothing_open(at_home: House, run: str) -> bool:
    running: set[str] = set()
    async for page in at_home.executor.open_runs():
        running |= {id for id in page if id.startswith(run)}
    return not running


@pytest.mark.usefixtures("small_slices")
async def test_an_approval_inside_of_a_slice_is_answered_to_the_slice(at_home: House) -> None:
    await at_home.deploy(
        MAP.replace("outputs: {all", f"{GATE[1:]}outputs: {{all").replace(
            "tasks.work.outputs", "tasks.gate.outputs.decision"
        )
    )
    run = await at_home.start("mapped", n=12)

    async def pending() -> list[str]:
        found = await at_home.rows(
            "SELECT id FROM approval_requests WHERE execution_id = :r AND status = 'PENDING'", r=run
        )
        return [row["id"] for row in found] if len(found) == 12 else []

    ids = await at_home.until(pending, "twelve requests")
    told = await at_home.rows("SELECT DISTINCT told FROM approval_requests ORDER BY told")
    assert [row["told"] for row in told] == [f"{run}/each[0]", f"{run}/each[10]"]
    for id in ids:
        await at_home.services.approvals.decide(ADA, id, "approve")
    row = await at_home.ended(run)
    assert row["outputs"] == {"all": ["approved"] * 12}


@pytest.mark.usefixtures("small_slices")
async def test_slices_that_are_under_way_are_found_again_after_a_fresh_history(
    at_home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "CALM_EVENTS", 30)
    monkeypatch.setattr(workflow, "DRAIN_EVENTS", 40)
    busy = """
  - id: busy
    type: loop
    state: {n: 0}
    tasks: [{id: step, activity_type: echo, config: {}}]
    next: {n: "${{ state.n + 1 }}"}
    until: "${{ state.n >= 12 }}"
    max_iterations: 20
"""
    slow = MAP.replace(
        "timeout: 1s, execution: local, config: {", "timeout: 1m, execution: worker, config: {sleep: 2, "
    )
    await at_home.deploy(slow.replace("outputs: {all", f"{busy[1:]}outputs: {{all"))
    run = await at_home.run("mapped", n=12)
    assert run["outputs"] == {"all": [n * 2 for n in range(12)]}
    assert sorted(at_home.ledger.started()).count("each[3].work") == 1
    assert len(await at_home.histories(run["id"])) > 3


@pytest.mark.usefixtures("small_slices")
async def test_a_slice_that_is_terminated_by_hand_fails_its_items_not_the_engine(at_home: House) -> None:
    await at_home.deploy(
        MAP.replace("timeout: 1s, execution: local, config: {", "timeout: 1m, config: {sleep: 30, ")
    )
    run = await at_home.start("mapped", n=12)
    await at_home.until(lambda: _started(at_home, 10), "tasks to run")
    for offset in (0, 10):
        await at_home.executor.terminate(f"{run}/each[{offset}]", reason="by hand")
    row = await at_home.ended(run)
    assert row["outputs"] == {"all": [None] * 12}


@pytest.mark.timeout(280)
async def test_thousands_of_items_run_to_the_end_in_short_histories(at_home: House) -> None:
    await at_home.deploy(MAP)
    run = await at_home.run("mapped", n=2000, seconds=240)
    assert run["outputs"]["all"] == [n * 2 for n in range(2000)]
    histories = await at_home.until(lambda: _all_listed(at_home, run["id"], 5), "the index")
    assert max(histories.values()) < 5_000


async def _all_listed(at_home: House, run: str, count: int) -> dict[str, int]:
    found = await at_home.histories(run)
    return found if len(found) >= count else {}


@pytest.mark.usefixtures("small_slices")
async def test_items_of_slices_take_turns_in_a_concurrency_group(at_home: House) -> None:
    turns = MAP.replace("execution: local,", "concurrency: {group: deploy, limit: 1},")
    await at_home.deploy(turns)
    run = await at_home.run("mapped", n=12, seconds=30)
    assert run["outputs"] == {"all": [n * 2 for n in range(12)]}
    assert await at_home.rows("SELECT * FROM slots") == []
