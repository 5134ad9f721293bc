"""Kill -9 of every part in the middle of its work: nothing lost, nothing doubled, no hand needed."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.faults import POINTS
from engine.stack.postgres import EmbeddedPostgres
from engine.stack.processes import until
from engine.stack.temporal import EmbeddedTemporal
from tests.support.git import Repository
from tests.support.ledger import Ledger
from tests.support.system import PROCESSES, System

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
inputs: {{type: object, properties: {{run: {{type: string, default: none}}}}}}
description: {note}
tasks:
  - id: gate
    activity_type: human_approval
    config: {{message: "Go?", approvers: {{groups: [admins]}}}}
  - id: after
    depends_on: [gate]
    activity_type: http_request
    timeout: 5s
    retry: {{max_attempts: 5, initial_interval: 200ms}}
    config: {{method: POST, url: "{url}/gated/${{{{ inputs.run }}}}"}}
"""

HTTP = "activity_type: http_request, timeout: 1s, retry: {{max_attempts: 3, initial_interval: 200ms}}"
LEAF = f"""\
name: leaf
inputs: {{{{type: object, required: [run], properties: {{{{run: {{{{type: string}}}}}}}}}}}}
tasks: [{{{{id: work, {HTTP}, config: {{{{method: POST, url: "{{url}}/leaf/${{{{{{{{ inputs.run }}}}}}}}"}}}}}}}}]
outputs: {{{{path: "${{{{{{{{ tasks.work.outputs.body.path }}}}}}}}"}}}}
"""
PARENT = """\
name: parent
inputs: {type: object, required: [run], properties: {run: {type: string}}}
tasks: [{id: call, type: workflow, workflow: leaf, inputs: {run: "${{ inputs.run }}"}}]
outputs: {path: "${{ tasks.call.outputs.path }}"}
"""
GUARDED = f"""\
name: guarded
inputs: {{{{type: object, required: [run], properties: {{{{run: {{{{type: string}}}}}}}}}}}}
concurrency: {{{{group: guarded, limit: 1}}}}
tasks: [{{{{id: work, {HTTP}, config: {{{{method: POST, url: "{{url}}/guarded/${{{{{{{{ inputs.run }}}}}}}}"}}}}}}}}]
"""
MAPPED = f"""\
name: mapped
inputs: {{{{type: object, required: [run], properties: {{{{run: {{{{type: string}}}}}}}}}}}}
tasks:
  - id: each
    type: map
    items: "${{{{{{{{ range(520) }}}}}}}}"
    results: "${{{{{{{{ tasks.work.outputs.body.path }}}}}}}}"
    tasks:
      - {{{{id: work, {HTTP}, config: {{{{method: POST, url: "{{url}}/mapped/${{{{{{{{ inputs.run }}}}}}}}/${{{{{{{{ item }}}}}}}}"}}}}}}}}
outputs: {{{{count: "${{{{{{{{ size(tasks.each.outputs) }}}}}}}}"}}}}
"""


AWAITING = """\
name: awaiting
inputs: {{type: object, properties: {{run: {{type: string, default: none}}}}}}
tasks:
  - id: order
    activity_type: http_request
    config: {{method: POST, url: "{url}/order/${{{{ inputs.run }}}}", json: {{notify: "${{{{ tasks.word.callback_url }}}}"}}}}
  - {{id: word, type: signal, signal: word, depends_on: [order]}}
  - id: after
    depends_on: [word]
    activity_type: http_request
    timeout: 5s
    retry: {{max_attempts: 5, initial_interval: 200ms}}
    config: {{method: POST, url: "{url}/after/${{{{ inputs.run }}}}"}}
"""


def gated(url: str, note: str = "first") -> str:
    """A gate, then an entry in the ledger."""
    return GATED.format(url=url, note=note)


def chain(url: str) -> str:
    """Five tasks, one after another, each of which leaves an entry in the ledger."""
    tasks = "\n".join(
        f"  - {{id: t{n}, activity_type: http_request, depends_on: [{f't{n - 1}' if n else ''}], timeout: 5s,"
        f" retry: {{max_attempts: 5, initial_interval: 200ms}},"
        f' config: {{method: POST, url: "{url}/chain/${{{{ inputs.run }}}}/{n}"}}}}'
        for n in range(5)
    )
    return CHAIN.format(tasks=tasks)


@dataclass
class Bench:
    """What the tests of this module share: starting the whole costs more than most of them."""

    system: System
    ledger: Ledger
    repository: Repository
    serial: Iterator[int]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    ledger = await Ledger().start()
    repository = Repository(tmp_path_factory.mktemp("source"))
    texts = {"chain": chain(ledger.url), "gated": gated(ledger.url), "parent": PARENT}
    texts |= {
        name: text.format(url=ledger.url)
        for name, text in (
            ("leaf", LEAF),
            ("guarded", GUARDED),
            ("mapped", MAPPED),
            ("awaiting", AWAITING),
        )
    }
    repository.commit({f"workflows/{name}.yaml": text for name, text in texts.items()})
    system = System(tmp_path_factory.mktemp("system"))
    system.sources = [{"name": "main", "url": str(repository.path), "poll_interval": 1}]
    try:
        await system.start()
        await system.live("gated")
        yield Bench(system, ledger, repository, itertools.count())
    finally:
        await system.stop()
        await ledger.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def whole(bench: Bench) -> AsyncIterator[Bench]:
    """The system, with a ledger that answers at once; afterwards every process runs again without faults."""
    bench.ledger.delay = 0.0
    yield bench
    for name in PROCESSES:
        if not bench.system.runs(name):
            bench.system.launch(name)
    await bench.system.until(bench.system.ready, "the API to be ready")


def name_of_run(bench: Bench) -> str:
    """A name that no other run of this module has."""
    return f"r{next(bench.serial)}"


async def with_faults(system: System, process: str, faults: str) -> None:
    """Launch a process again, so that it dies at a fault point."""
    system.kill(process)
    system.launch(process, faults=faults)
    if process == "api":
        await system.until(system.ready, "the API to be ready")


async def again(system: System, process: str) -> None:
    """Wait until a process has died of its fault, and launch it without."""
    await system.died(process)
    system.launch(process)
    await system.until(system.ready, "the API to be ready")


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
async def test_a_start_whose_api_dies_leads_to_exactly_one_run(whole: Bench, point: str) -> None:
    system, run = whole.system, name_of_run(whole)
    before = len(await runs(system, "chain"))
    await with_faults(system, "api", f"{point}=kill")
    request = {"inputs": {"run": run}}
    reply = await system.call("POST", "/executions/workflows/chain/execute", request, Idempotency_Key=run)
    assert reply.status == 0
    await again(system, "api")
    started = await system.execute("chain", {"run": run}, key=run)
    await system.finished(started["id"])
    assert len(await runs(system, "chain")) == before + 1
    effects_once(whole.ledger, run)


async def test_a_decision_whose_api_dies_takes_effect_once(whole: Bench) -> None:
    system, run = whole.system, name_of_run(whole)
    started = await system.execute("gated", {"run": run})
    approval = await system.approval(started["id"])
    await with_faults(system, "api", "decide.after_commit=kill")
    reply = await system.call(
        "POST", f"/approvals/{approval}/approve", {"decision": "approve", "comment": "yes"}
    )
    assert reply.status == 0
    await again(system, "api")
    second = await system.call("POST", f"/approvals/{approval}/approve", {"decision": "reject"})
    assert second.status == 409
    await system.finished(started["id"])
    assert len(set(whole.ledger.keys(f"/gated/{run}"))) == 1


async def test_a_cancel_whose_api_dies_ends_the_run(whole: Bench) -> None:
    system, run = whole.system, name_of_run(whole)
    started = await system.execute("gated", {"run": run})
    await system.approval(started["id"])
    await with_faults(system, "api", "steer.after_commit=kill")
    reply = await system.call("POST", f"/executions/{started['id']}/cancel", {"reason": "enough"})
    assert reply.status == 0
    await again(system, "api")
    await system.finished(started["id"], "CANCELLED")
    assert whole.ledger.keys(f"/gated/{run}") == []


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_pause_or_its_end_whose_api_dies_takes_effect(whole: Bench, verb: str) -> None:
    system, run = whole.system, name_of_run(whole)
    path = f"/executions/{(await system.execute('gated', {'run': run}))['id']}"
    approval = await system.approval(path.rpartition("/")[2])
    if verb == "resume":
        await system.ok("POST", f"{path}/pause")
    await with_faults(system, "api", "steer.after_commit=kill")
    assert (await system.call("POST", f"{path}/{verb}")).status == 0
    await again(system, "api")
    assert (await system.ok("POST", f"{path}/{verb}"))["status"] == {"pause": "PAUSED", "resume": "RUNNING"}[
        verb
    ]
    await system.ok("POST", f"/approvals/{approval}/approve", {"decision": "approve"})
    if verb == "pause":
        await system.until(lambda: _approved(system, path), "the paused run to hear of the approval")
        assert whole.ledger.keys(f"/gated/{run}") == []
        await system.ok("POST", f"{path}/resume")
    await system.finished(path.rpartition("/")[2])
    assert len(set(whole.ledger.keys(f"/gated/{run}"))) == 1


async def _approved(system: System, path: str) -> bool:
    run = await system.ok("GET", path)
    return bool(run["live"] and run["tasks"][0]["status"] == "COMPLETED" and run["status"] == "PAUSED")


@pytest.mark.parametrize("point", ["signal.after_commit", "dispatch.after_send"])
async def test_a_signal_whose_api_dies_is_taken_once(whole: Bench, point: str) -> None:
    system, run = whole.system, name_of_run(whole)
    started = await system.execute("awaiting", {"run": run})
    path = f"/executions/{started['id']}/signal"
    await with_faults(system, "api", f"{point}=kill")
    assert (await system.call("POST", path, {"name": "word"}, Idempotency_Key="w")).status == 0
    await again(system, "api")
    repeated = await system.ok("POST", path, {"name": "word"}, Idempotency_Key="w")
    assert repeated["repeated"] is True
    done = await system.finished(started["id"])
    assert len(done["signals"]) == 1
    assert len(set(whole.ledger.keys(f"/after/{run}"))) == 1


async def test_a_callback_whose_api_dies_is_used_up_and_taken_once(whole: Bench) -> None:
    system, run = whole.system, name_of_run(whole)
    started = await system.execute("awaiting", {"run": run})
    await system.until(lambda: _is(whole.ledger.keys(f"/order/{run}") != []), "the callback's URL")
    body = next(effect.body for effect in whole.ledger.effects if effect.path == f"/order/{run}")
    _, _, path = body["notify"].partition(f":{system.port}")
    await with_faults(system, "api", "callback.after_commit=kill")
    assert (await system.call("POST", path, {"n": 1})).status == 0
    await again(system, "api")
    assert (await system.call("POST", path, {"n": 1})).status == 404
    await system.finished(started["id"])
    assert len(set(whole.ledger.keys(f"/after/{run}"))) == 1


async def _is(value: bool) -> bool:
    return value


@pytest.mark.parametrize("point", ["start.before_commit", "start.after_commit", "dispatch.after_send"])
async def test_a_rerun_whose_api_dies_leads_to_exactly_one_run(whole: Bench, point: str) -> None:
    system, run = whole.system, name_of_run(whole)
    old = (await system.execute("gated", {"run": run}))["id"]
    approval = await system.approval(old)
    await system.ok("POST", f"/approvals/{approval}/approve", {"decision": "reject"})
    await system.finished(old, "FAILED")
    await with_faults(system, "api", f"{point}=kill")
    asked = {"from_failed": True}
    assert (await system.call("POST", f"/executions/{old}/rerun", asked, Idempotency_Key=run)).status == 0
    await again(system, "api")
    new = await system.ok("POST", f"/executions/{old}/rerun", asked, Idempotency_Key=run)
    await decide(system, new["id"])
    await system.finished(new["id"])
    reruns = (await system.ok("GET", f"/executions?rerun_of={old}"))["items"]
    assert [each["id"] for each in reruns] == [new["id"]]
    assert len(set(whole.ledger.keys(f"/gated/{run}"))) == 1


@pytest.mark.parametrize("point", ["approval.after_commit", "dispatch.before_send"])
async def test_a_worker_that_dies_before_the_approval_loses_no_run(whole: Bench, point: str) -> None:
    system, run = whole.system, name_of_run(whole)
    before = len(await runs(system, "gated"))
    if point == "dispatch.before_send":
        # Leave the sending to the worker: the API dies before its own fast path.
        await with_faults(system, "api", "start.after_commit=kill")
    await with_faults(system, "worker", f"{point}=kill")
    await system.call(
        "POST", "/executions/workflows/gated/execute", {"inputs": {"run": run}}, Idempotency_Key=run
    )
    if point == "dispatch.before_send":
        await again(system, "api")
    await again(system, "worker")
    started = await system.execute("gated", {"run": run}, key=run)
    await decide(system, started["id"])
    await system.finished(started["id"])
    assert len(await runs(system, "gated")) == before + 1
    assert len(set(whole.ledger.keys(f"/gated/{run}"))) == 1


@pytest.mark.parametrize("point", ["record.before_commit", "record.after_commit"])
async def test_a_worker_that_dies_at_the_last_step_records_the_run_once(whole: Bench, point: str) -> None:
    system, run = whole.system, name_of_run(whole)
    await with_faults(system, "worker", f"{point}=kill")
    started = await system.execute("gated", {"run": run})
    await decide(system, started["id"])
    await again(system, "worker")
    await system.finished(started["id"])
    audit = (await system.ok("GET", f"/audit?execution_id={started['id']}"))["items"]
    assert [entry["action"] for entry in audit].count("execution.completed") == 1
    assert len(set(whole.ledger.keys(f"/gated/{run}"))) == 1


async def test_a_worker_that_dies_between_a_childs_row_and_its_work_runs_the_child_once(whole: Bench) -> None:
    system, run = whole.system, name_of_run(whole)
    await with_faults(system, "worker", "child.after_commit=kill")
    started = await system.execute("parent", {"run": run})
    await again(system, "worker")
    done = await system.finished(started["id"])
    assert done["outputs"] == {"path": f"/leaf/{run}"}
    children = (await system.ok("GET", f"/executions?parent={started['id']}"))["items"]
    assert [child["status"] for child in children] == ["COMPLETED"]
    audit = (await system.ok("GET", f"/audit?execution_id={children[0]['id']}"))["items"]
    assert [entry["action"] for entry in audit].count("execution.started") == 1
    assert len(set(whole.ledger.keys(f"/leaf/{run}"))) == 1


@pytest.mark.parametrize("point", ["slot.after_commit", "record.before_commit", "record.after_commit"])
async def test_a_slot_survives_the_death_of_a_worker_and_is_given_back(whole: Bench, point: str) -> None:
    system = whole.system
    names = [name_of_run(whole) for _ in range(3)]
    whole.ledger.delay = 0.5
    await with_faults(
        system, "worker", f"{point}=kill:2" if point == "slot.after_commit" else f"{point}=kill"
    )
    started = [await system.execute("guarded", {"run": name}) for name in names]
    await again(system, "worker")
    for name, run in zip(names, started, strict=True):
        await system.finished(run["id"])
        assert len(set(whole.ledger.keys(f"/guarded/{name}"))) == 1
    assert (await system.finished((await system.execute("guarded", {"run": "last"}))["id"]))["error"] is None


async def test_a_slice_whose_worker_dies_after_its_record_gives_its_results_once(whole: Bench) -> None:
    system, run = whole.system, name_of_run(whole)
    await with_faults(system, "worker", "slice.after_record=kill")
    started = await system.execute("mapped", {"run": run})
    await again(system, "worker")
    done = await system.finished(started["id"])
    assert done["outputs"] == {"count": 520}
    keys = [whole.ledger.keys(f"/mapped/{run}/{n}") for n in range(520)]
    assert {len(set(each)) for each in keys} == {1}


async def decide(system: System, execution: str) -> None:
    """Approve the run's request."""
    approval = await system.approval(execution)
    await system.ok("POST", f"/approvals/{approval}/approve", {"decision": "approve"})


async def test_a_worker_killed_again_and_again_finishes_every_run(whole: Bench) -> None:
    system, ledger = whole.system, whole.ledger
    ledger.delay = 0.2
    names = [name_of_run(whole) for _ in range(5)]
    started = [await system.execute("chain", {"run": name}) for name in names]
    for kill in range(3):
        seen = len(ledger.effects)
        await system.until(lambda seen=seen: _more(ledger, seen + 2), f"effects before kill {kill}")  # type: ignore[misc]
        system.kill("worker")
        system.launch("worker")
    for name, run in zip(names, started, strict=True):
        done = await system.finished(run["id"])
        assert done["outputs"] == {"last": f"/chain/{name}/4"}
        effects_once(ledger, name)


async def _more(ledger: Ledger, count: int) -> bool:
    return len(ledger.effects) >= count


@pytest.mark.parametrize("victim", ["temporal", "postgres"])
async def test_a_server_killed_in_the_middle_of_runs_and_syncs_costs_nothing(
    whole: Bench, victim: str
) -> None:
    system, ledger = whole.system, whole.ledger
    ledger.delay = 0.2
    names = [name_of_run(whole) for _ in range(4)]
    started = [await system.execute("chain", {"run": name}) for name in names]
    seen = len(ledger.effects)
    shas = [
        whole.repository.commit({"workflows/gated.yaml": gated(ledger.url, f"{victim} {n}")})
        for n in range(3)
    ]
    await system.until(lambda: _more(ledger, seen + 2), "runs to be in the middle")
    server = system.temporal if victim == "temporal" else system.postgres
    await kill_server(server)
    if victim == "temporal":
        read = await system.call("GET", f"/executions/{started[0]['id']}")
        assert read.status == 200, "reads from Postgres go on while Temporal is away"
    else:
        reply = await system.call("GET", "/workflows")
        assert reply.status == 503
        assert "retry-after" in {name.lower() for name in reply.headers}
    await server.start()
    for name, run in zip(names, started, strict=True):
        await system.finished(run["id"], seconds=120)
        effects_once(ledger, name)
    await system.live("gated", shas[-1])
    assert await newest(system, 3) == shas[::-1]


async def newest(system: System, count: int) -> list[str]:
    """The SHAs of the newest revisions, newest first."""
    return [item["sha"] for item in (await system.ok("GET", "/revisions"))["items"]][:count]


async def kill_server(server: EmbeddedPostgres | EmbeddedTemporal) -> None:
    """SIGKILL of Postgres or Temporal."""
    os.kill(server.pid, signal.SIGKILL)
    assert await until(lambda: not server.alive(), 10)


@pytest.mark.parametrize("point", ["sync.after_fetch", "publish.before_commit", "publish.after_commit"])
async def test_a_sync_daemon_that_dies_registers_each_commit_once(whole: Bench, point: str) -> None:
    system = whole.system
    before = len((await system.ok("GET", "/revisions?limit=200"))["items"])
    system.kill("sync")
    shas = [
        whole.repository.commit({"workflows/gated.yaml": gated(whole.ledger.url, f"{point} {n}")})
        for n in range(3)
    ]
    system.launch("sync", faults=f"{point}=kill")
    await again(system, "sync")
    await system.live("gated", shas[-1])
    assert await newest(system, 3) == shas[::-1]
    assert len((await system.ok("GET", "/revisions?limit=200"))["items"]) == before + 3


def test_every_fault_point_is_one_that_a_test_kills_at() -> None:
    # Proposals, forges and environments need no system: their kills stand with the tests of their rooms.
    elsewhere = (
        "acceptance/test_trigger_kills.py",
        "integration/forge/test_reporter.py",
        "integration/sync/test_proposal_kills.py",
        "integration/api/test_proposals.py",
        "unit/activities/test_environments.py",
    )
    tests = Path(__file__).parents[1]
    source = Path(__file__).read_text() + "".join((tests / name).read_text() for name in elsewhere)
    assert [name for name in POINTS if f'"{name}' not in source] == []
