"""Concurrency groups over whole runs: queues, skips, rings, and what a run gives back at its end."""

from __future__ import annotations

from functools import partial

from tests.workflow.house import House

RUN = """
name: guarded
concurrency: {group: deploy, limit: 1, on_conflict: queue}
tasks: [{id: gate, type: signal, signal: go}]
finally: [{id: unlock, activity_type: echo, config: {}}]
"""
TASK = """
name: tasked
tasks:
  - {id: one, activity_type: echo, config: {sleep: 1}, concurrency: {group: deploy, limit: 1}}
  - {id: two, activity_type: echo, config: {sleep: 0.2}, concurrency: {group: deploy, limit: 1}}
"""


def ring(name: str, own: str, other: str) -> str:
    return f"""
name: {name}
concurrency: {{group: {own}, limit: 1}}
tasks:
  - {{id: gate, type: signal, signal: go}}
  - {{id: want, depends_on: [gate], activity_type: echo, config: {{}}, concurrency: {{group: {other}, limit: 1}}}}
"""


async def holds(at_home: House, run: str, group: str = "deploy") -> None:
    """Wait until a run holds the slot of the group."""

    async def look() -> bool:
        found = await at_home.rows(
            'SELECT execution_id FROM slots WHERE "group" = :g AND held_since IS NOT NULL', g=group
        )
        return [row["execution_id"] for row in found] == [run]

    await at_home.until(look, f"{run} to hold {group}")


async def go(at_home: House, run: str) -> None:
    await at_home.executor.signal(run, "pinflow.signal", {"id": "1", "name": "go", "payload": {}})


async def is_queued(at_home: House, run: str) -> None:
    async def look() -> bool:
        return bool((await at_home.standing(run))["status"] == "QUEUED")

    await at_home.until(look, f"{run} to be queued")


async def test_runs_of_a_group_run_one_after_another_in_the_order_of_their_start(at_home: House) -> None:
    await at_home.deploy(RUN)
    runs = []
    for _ in range(3):
        runs.append(await at_home.start("guarded"))
        await at_home.until(lambda: _slots(at_home, len(runs)), "its place")
    await is_queued(at_home, runs[1])
    rows = await at_home.rows("SELECT status FROM workflow_executions ORDER BY created_at")
    assert [row["status"] for row in rows] == ["RUNNING", "QUEUED", "QUEUED"]
    for run in runs:
        await holds(at_home, run)
        await at_home.until(partial(_stands, at_home, run, "RUNNING"), "its row to be RUNNING")
        await go(at_home, run)
        await at_home.ended(run)
    assert await at_home.rows("SELECT * FROM slots") == []
    told = await at_home.rows("SELECT action, details FROM audit WHERE execution_id = :r", r=runs[2])
    assert [row["action"] for row in told if row["action"] in ("execution.queued", "execution.admitted")] == [
        "execution.queued",
        "execution.admitted",
    ]
    assert at_home.ledger.started() == ["unlock"] * 3


async def _stands(at_home: House, run: str, status: str) -> bool:
    return bool((await at_home.row(run) or {})["status"] == status)


async def _slots(at_home: House, count: int) -> bool:
    return len(await at_home.rows("SELECT 1 FROM slots")) == count


async def test_a_queued_run_that_is_cancelled_leaves_the_queue_without_a_clean_up(at_home: House) -> None:
    await at_home.deploy(RUN)
    first = await at_home.start("guarded")
    await holds(at_home, first)
    second = await at_home.start("guarded")
    await is_queued(at_home, second)
    await at_home.executor.cancel(second, by="ada", reason="enough")
    await at_home.ended(second, "CANCELLED")
    await holds(at_home, first)
    assert at_home.ledger.started() == []
    await go(at_home, first)
    await at_home.ended(first)


async def test_skip_ends_the_newer_run_at_once(at_home: House) -> None:
    await at_home.deploy(RUN.replace("queue", "skip"))
    first = await at_home.start("guarded")
    await holds(at_home, first)
    row = await at_home.run("guarded", status="CANCELLED")
    assert row["error"]["type"] == "CONCURRENCY_SKIPPED"
    await go(at_home, first)
    await at_home.ended(first)


async def test_cancel_running_ends_the_older_one_and_the_newer_takes_its_place(at_home: House) -> None:
    await at_home.deploy(RUN.replace("queue", "cancel_running"))
    first = await at_home.start("guarded")
    await holds(at_home, first)
    second = await at_home.start("guarded")
    await at_home.ended(first, "CANCELLED")
    await holds(at_home, second)
    await go(at_home, second)
    await at_home.ended(second)
    assert at_home.ledger.started() == ["unlock", "unlock"]


async def test_tasks_of_a_group_take_turns(at_home: House) -> None:
    await at_home.deploy(TASK)
    run = await at_home.start("tasked")

    async def only_the_second_waits() -> bool:
        waiting = (await at_home.standing(run))["waiting"]
        return [(each["task"], each["kind"]) for each in waiting] == [("two", "slot")]

    await at_home.until(only_the_second_waits, "the second task to wait for the first")
    await at_home.ended(run)
    assert at_home.ledger.started() == ["one", "two"]
    assert await at_home.rows("SELECT * FROM slots") == []


async def test_the_newer_of_two_runs_that_would_wait_for_each_other_is_refused(at_home: House) -> None:
    await at_home.deploy(ring("left", "x", "y"), ring("right", "y", "x"))
    left, right = await at_home.start("left"), await at_home.start("right")
    await holds(at_home, left, "x")
    await holds(at_home, right, "y")
    await go(at_home, left)
    await at_home.task_is(left, "want", "WAITING")
    await go(at_home, right)
    row = await at_home.ended(right, "FAILED")
    assert row["error"]["type"] == "CONCURRENCY_DEADLOCK"
    await at_home.ended(left)


async def test_a_child_re_enters_the_group_of_its_parent(at_home: House) -> None:
    parent = """
name: parent
concurrency: {group: deploy, limit: 1}
tasks: [{id: call, type: workflow, workflow: tasked}]
"""
    await at_home.deploy(TASK, parent)
    run = await at_home.run("parent")
    assert sorted(at_home.ledger.started()) == ["one", "two"]
    assert (await at_home.child(run["id"]))["status"] == "COMPLETED"


async def test_a_run_that_never_heard_of_its_slot_is_told_by_the_reconciler(at_home: House) -> None:
    await at_home.deploy(RUN)
    first, second = await at_home.start("guarded"), ""
    await holds(at_home, first)
    second = await at_home.start("guarded")
    await is_queued(at_home, second)
    await at_home.rows(
        "UPDATE slots SET held_since = now() WHERE execution_id = :second",
        second=second,
    )
    await at_home.rows(
        "UPDATE workflow_executions SET created_at = now() - interval '1 hour',"
        " started_at = now() - interval '1 hour'"
    )

    async def told_again() -> bool:  # the row says QUEUED a moment before the run itself knows that it waits
        return (await at_home.reconciler.pass_once()).told_again == 1

    await at_home.until(told_again, "the reconciler to tell the run of its slot")
    await at_home.task_is(second, "gate", "WAITING")
    for run in (first, second):
        await go(at_home, run)
        await at_home.ended(run)
