"""Kill -9 of every part in the middle of its work: nothing lost, nothing doubled, no hand needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.git import Repository
from tests.support.ledger import Ledger
from tests.support.system import System

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

CHAIN = """\
name: chain
inputs: {{type: object, properties: {{run: {{type: string, default: none}}}}}}
tasks:
{tasks}
outputs: {{last: "${{{{ tasks.t4.outputs.body.path }}}}"}}
"""
GATED = """\
name: gated
tasks:
  - id: gate
    activity_type: human_approval
    config: {{message: "Go?", approvers: {{groups: [admins]}}}}
  - id: after
    depends_on: [gate]
    activity_type: http_request
    timeout: 5s
    retry: {{max_attempts: 5, initial_interval: 200ms}}
    config: {{method: POST, url: "{url}/gated"}}
"""


def chain(url: str) -> str:
    """Five tasks, one after another, each of which leaves an entry in the ledger."""
    tasks = "\n".join(
        f"  - {{id: t{n}, activity_type: http_request, depends_on: [{f't{n - 1}' if n else ''}], timeout: 5s,"
        f" retry: {{max_attempts: 5, initial_interval: 200ms}},"
        f' config: {{method: POST, url: "{url}/chain/${{{{ inputs.run }}}}/{n}"}}}}'
        for n in range(5)
    )
    return CHAIN.format(tasks=tasks)


@pytest_asyncio.fixture(loop_scope="session")
async def ledger() -> AsyncIterator[Ledger]:
    target = await Ledger().start()
    yield target
    await target.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def system(tmp_path: Path, git_repo: Repository, ledger: Ledger) -> AsyncIterator[System]:
    git_repo.commit(
        {"workflows/chain.yaml": chain(ledger.url), "workflows/gated.yaml": GATED.format(url=ledger.url)}
    )
    whole = System(tmp_path / "system")
    whole.folder.mkdir()
    whole.sources = [{"name": "main", "url": str(git_repo.path), "poll_interval": 1}]
    try:
        await whole.start()
        await whole.live("gated")
        yield whole
    finally:
        await whole.stop()


async def runs(system: System, workflow: str) -> list[Any]:
    """All runs of a workflow."""
    return list((await system.ok("GET", f"/executions?workflow={workflow}"))["items"])


def effects_once(ledger: Ledger, run: str) -> None:
    """Each task of the chain left its effect, and every repetition carried the key of the first."""
    for number in range(5):
        keys = ledger.keys(f"/chain/{run}/{number}")
        assert keys, f"task t{number} of {run} left no effect"
        assert len(set(keys)) == 1, f"task t{number} of {run} used several keys: {keys}"


@pytest.mark.parametrize("point", ["start.before_commit", "start.after_commit", "dispatch.after_send"])
async def test_a_start_whose_api_dies_leads_to_exactly_one_run(
    system: System, ledger: Ledger, point: str
) -> None:
    system.kill("api")
    system.launch("api", faults=f"{point}=kill")
    await system.until(system._ready, "the API to be ready")
    request = {"inputs": {"run": "killed"}}
    reply = await system.call("POST", "/executions/workflows/chain/execute", request, Idempotency_Key="one")
    assert reply.status == 0
    await system.died("api")
    system.launch("api")
    await system.until(system._ready, "the API to be ready")
    again = await system.execute("chain", {"run": "killed"}, key="one")
    await system.finished(again["id"])
    assert [run["id"] for run in await runs(system, "chain")] == [again["id"]]
    effects_once(ledger, "killed")


async def test_a_decision_whose_api_dies_takes_effect_once(system: System, ledger: Ledger) -> None:
    run = await system.execute("gated")
    approval = await system.approval(run["id"])
    system.kill("api")
    system.launch("api", faults="decide.after_commit=kill")
    await system.until(system._ready, "the API to be ready")
    reply = await system.call(
        "POST", f"/approvals/{approval}/approve", {"decision": "approve", "comment": "yes"}
    )
    assert reply.status == 0
    await system.died("api")
    system.launch("api")
    await system.until(system._ready, "the API to be ready")
    second = await system.call("POST", f"/approvals/{approval}/approve", {"decision": "reject"})
    assert second.status == 409
    await system.finished(run["id"])
    assert len(set(ledger.keys("/gated"))) == 1


@pytest.mark.parametrize(
    "point", ["approval.after_commit", "record.before_commit", "record.after_commit", "dispatch.before_send"]
)
async def test_a_worker_that_dies_at_a_fault_point_loses_no_run(
    system: System, ledger: Ledger, point: str
) -> None:
    system.kill("worker")
    if point == "dispatch.before_send":
        # Leave the sending to the worker: the API's own fast path dies first.
        system.kill("api")
        system.launch("api", faults="dispatch.before_send=kill")
        await system.until(system._ready, "the API to be ready")
        await system.call("POST", "/executions/workflows/gated/execute", {"inputs": {}}, Idempotency_Key="k")
        await system.died("api")
        system.launch("api")
        await system.until(system._ready, "the API to be ready")
    system.launch("worker", faults=f"{point}=kill")
    run = await system.execute("gated", key="k")
    if point.startswith("record"):
        await decide(system, run["id"])
    await system.died("worker", 60)
    system.launch("worker")
    if not point.startswith("record"):
        await decide(system, run["id"])
    await system.finished(run["id"])
    assert len(await runs(system, "gated")) == 1
    assert len(set(ledger.keys("/gated"))) == 1


async def decide(system: System, execution: str) -> None:
    """Approve the run's request."""
    approval = await system.approval(execution)
    await system.ok("POST", f"/approvals/{approval}/approve", {"decision": "approve"})


async def test_a_worker_killed_again_and_again_finishes_every_run(system: System, ledger: Ledger) -> None:
    ledger.delay = 0.2
    started = [await system.execute("chain", {"run": f"r{n}"}) for n in range(5)]
    for _ in range(3):
        await asyncio.sleep(0.7)  # somewhere in the middle of the chains
        system.kill("worker")
        system.launch("worker")
    for number, run in enumerate(started):
        done = await system.finished(run["id"])
        assert done["outputs"] == {"last": f"/chain/r{number}/4"}
        effects_once(ledger, f"r{number}")


@pytest.mark.parametrize("victim", ["temporal", "postgres"])
async def test_a_server_killed_in_the_middle_of_runs_and_syncs_costs_nothing(
    system: System, ledger: Ledger, git_repo: Repository, victim: str
) -> None:
    ledger.delay = 0.2
    started = [await system.execute("chain", {"run": f"r{n}"}) for n in range(4)]
    shas = [
        git_repo.commit({"workflows/gated.yaml": GATED.format(url=ledger.url) + f"# {n}\n"}) for n in range(3)
    ]
    server = system.temporal if victim == "temporal" else system.postgres
    await asyncio.sleep(0.5)
    await kill_server(server)
    await asyncio.sleep(1)
    if victim == "temporal":
        read = await system.call("GET", f"/executions/{started[0]['id']}")
        assert read.status == 200, "reads from Postgres go on while Temporal is away"
    else:
        reply = await system.call("GET", "/workflows")
        assert (reply.status, "retry-after" in {name.lower() for name in reply.headers}) == (503, True)
    await server.start()
    for number, run in enumerate(started):
        await system.finished(run["id"], seconds=120)
        effects_once(ledger, f"r{number}")
    await system.live("gated", shas[-1])
    seen = [item["sha"] for item in (await system.ok("GET", "/revisions"))["items"]]
    assert seen[:3] == shas[::-1]


async def kill_server(server: Any) -> None:
    """SIGKILL of Postgres or Temporal."""
    import os
    import signal

    os.kill(server.pid, signal.SIGKILL)
    for _ in range(200):
        if not server.alive():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the server did not die")


@pytest.mark.parametrize("point", ["sync.after_fetch", "publish.before_commit", "publish.after_commit"])
async def test_a_sync_daemon_that_dies_at_a_fault_point_registers_each_commit_once(
    system: System, git_repo: Repository, ledger: Ledger, point: str
) -> None:
    system.kill("sync")
    shas = [
        git_repo.commit({"workflows/gated.yaml": GATED.format(url=ledger.url) + f"# {n}\n"}) for n in range(3)
    ]
    system.launch("sync", faults=f"{point}=kill")
    await system.died("sync")
    system.launch("sync")
    await system.live("gated", shas[-1])
    revisions = (await system.ok("GET", "/revisions"))["items"]
    assert [item["sha"] for item in revisions][:3] == shas[::-1]
    assert len(revisions) == 4
