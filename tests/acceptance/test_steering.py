"""Families of runs, signals, callbacks, pauses and reruns on the whole system: git, Postgres, Temporal and every process."""

from __future__ import annotations

import asyncio
import itertools
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError

import pytest
import pytest_asyncio

from tests.support.git import Repository
from tests.support.ledger import Ledger
from tests.support.system import System

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

RUN = "inputs: {type: object, required: [run], properties: {run: {type: string}}}"


def post(id: str, url: str, path: str, *after: str, more: str = "") -> str:
    """A task that leaves an entry in the ledger, at the path of its run."""
    return (
        f"  - {{id: {id}, activity_type: http_request, depends_on: [{', '.join(after)}], timeout: 10s,"
        f' config: {{method: POST, url: "{url}/${{{{ inputs.run }}}}/{path}"{more}}}}}\n'
    )


def starts(child: str, *after: str) -> str:
    """A task that starts a child for the same run of a test."""
    inputs = '{run: "${{ inputs.run }}"}'
    return f"  - {{id: {child}, type: workflow, workflow: {child}, depends_on: [{', '.join(after)}], inputs: {inputs}}}\n"


def family(url: str, mark: str) -> dict[str, str]:
    """Three definitions: the top waits for a signal, then starts the middle, which starts the leaf."""
    go = "  - {id: go, type: signal, signal: go}\n"
    end = f"finally:\n{post('end', url, 'ended-NAME')}"
    return {
        "workflows/top.yaml": f"name: top\n{RUN}\ntasks:\n{go}{post('a', url, f'top-{mark}', 'go')}{starts('middle', 'a')}",
        "workflows/middle.yaml": f"name: middle\n{RUN}\ntasks:\n{post('b', url, f'middle-{mark}')}{starts('leaf', 'b')}"
        f"{end.replace('NAME', 'middle')}",
        "workflows/leaf.yaml": f"name: leaf\n{RUN}\ntasks:\n{post('c', url, f'leaf-{mark}')}"
        f"  - {{id: hold, type: signal, signal: release, depends_on: [c]}}\n{end.replace('NAME', 'leaf')}",
    }


def others(url: str) -> dict[str, str]:
    """Definitions for signals, callbacks, pauses and reruns."""
    hook = ', json: {notify: "${{ tasks.built.callback_url }}"}'
    built = "  - {id: built, type: signal, signal: built, depends_on: [order], schema: {type: object, required: [image]}}\n"
    outputs = 'outputs: {image: "${{ tasks.built.outputs.image }}"}\n'
    steps = "".join(post(f"t{n}", url, f"step-{n}", *([f"t{n - 1}"] if n else [])) for n in range(4))
    return {
        "workflows/two-words.yaml": "name: two-words\ntasks:\n  - {id: one, type: signal, signal: one}\n"
        "  - {id: two, type: signal, signal: two, depends_on: [one]}\n"
        'outputs: {said: ["${{ tasks.one.outputs }}", "${{ tasks.two.outputs }}"]}\n',
        "workflows/hooked.yaml": f"name: hooked\n{RUN}\ntasks:\n{post('order', url, 'order', more=hook)}{built}{outputs}",
        "workflows/steps.yaml": f"name: steps\n{RUN}\ntasks:\n{steps}",
        "workflows/breaks.yaml": f"name: breaks\n{RUN}\ntasks:\n{post('build', url, 'build')}{post('deploy', url, 'broken', 'build')}",
    }


@dataclass
class Bench:
    """The whole system over one repository."""

    system: System
    ledger: Ledger
    repository: Repository
    serial: Iterator[int]

    def name(self) -> str:
        """A name for a run that no other has."""
        return f"r{next(self.serial)}"

    def entries(self, run: str) -> list[str]:
        """What a run has left in the ledger, in order, without repetitions."""
        paths = [effect.path for effect in self.ledger.effects if effect.path.startswith(f"/{run}/")]
        return [path.rpartition("/")[2] for path in dict.fromkeys(paths)]

    async def left(self, run: str, entry: str) -> None:
        """Wait for an entry of a run."""
        await self.system.until(lambda: _is(entry in self.entries(run)), f"{entry} of {run}")

    async def signal(self, execution: str, name: str, payload: Any = None) -> Any:
        """Send a signal."""
        body = {"name": name, "payload": payload}
        return await self.system.ok("POST", f"/executions/{execution}/signal", body)

    async def below(self, execution: str) -> dict[str, Any]:
        """All that a run started, by workflow."""
        items = (await self.system.ok("GET", f"/executions?root={execution}"))["items"]
        return {item["workflow"]: item for item in items}


async def _is(value: bool) -> bool:
    return value


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    ledger = await Ledger().start()
    repository = Repository(tmp_path_factory.mktemp("source"))
    repository.commit(family(ledger.url, "v1") | others(ledger.url))
    system = System(tmp_path_factory.mktemp("system"))
    system.sources = [{"name": "main", "url": str(repository.path), "poll_interval": 1}]
    try:
        await system.start()
        await system.live("top")
        yield Bench(system, ledger, repository, itertools.count())
    finally:
        await system.stop()
        await ledger.stop()


async def test_a_family_stays_on_its_commit_while_all_of_it_is_merged_anew(bench: Bench) -> None:
    system, run = bench.system, bench.name()
    first = bench.repository.head()
    started = await system.execute("top", {"run": run})
    second = bench.repository.commit(family(bench.ledger.url, "v2"))
    await system.live("leaf", second)
    await bench.signal(started["id"], "go")
    await bench.left(run, "leaf-v1")
    below = await bench.below(started["id"])
    assert {each["commit_sha"] for each in below.values()} == {first}
    assert (below["middle"]["parent_id"], below["leaf"]["parent_id"]) == (
        started["id"],
        below["middle"]["id"],
    )
    await bench.signal(below["leaf"]["id"], "release")
    done = await system.finished(started["id"])
    assert bench.entries(run) == ["top-v1", "middle-v1", "leaf-v1", "ended-leaf", "ended-middle"]
    assert [(each["workflow"], each["status"]) for each in done["children"]] == [("middle", "COMPLETED")]
    assert {each["commit_sha"] for each in done["closure"].values()} == {first}
    newer = bench.name()
    again = await system.execute("top", {"run": newer})
    await bench.signal(again["id"], "go")
    await bench.left(newer, "leaf-v2")
    await system.ok("POST", f"/executions/{again['id']}/cancel")
    await system.finished(again["id"], "CANCELLED")


async def test_a_cancel_goes_through_the_family_and_lets_each_clean_up(bench: Bench) -> None:
    system, run = bench.system, bench.name()
    started = await system.execute("top", {"run": run})
    await bench.signal(started["id"], "go")
    await system.until(lambda: _has(bench, started["id"], "leaf"), "the leaf to begin")
    await system.ok("POST", f"/executions/{started['id']}/cancel", {"reason": "enough"})
    await system.finished(started["id"], "CANCELLED")
    below = await bench.below(started["id"])
    assert {each["status"] for each in below.values()} == {"CANCELLED"}
    assert {"ended-leaf", "ended-middle"} <= set(bench.entries(run))


async def _has(bench: Bench, execution: str, workflow: str) -> bool:
    return workflow in await bench.below(execution)


async def test_signals_may_come_early_and_each_feeds_its_task(bench: Bench) -> None:
    started = await bench.system.execute("two-words")
    await bench.signal(started["id"], "two", {"n": 2})
    unknown = await bench.system.call("POST", f"/executions/{started['id']}/signal", {"name": "three"})
    assert (unknown.status, unknown.body["hint"]) == (404, "there are: one, two")
    await bench.signal(started["id"], "one", {"n": 1})
    done = await bench.system.finished(started["id"])
    assert done["outputs"] == {"said": [{"n": 1}, {"n": 2}]}
    assert [each["name"] for each in done["signals"]] == ["two", "one"]
    late = await bench.system.call("POST", f"/executions/{started['id']}/signal", {"name": "one"})
    assert late.status == 409


async def test_a_callback_is_known_before_its_task_and_good_for_one_use(bench: Bench) -> None:
    system, run = bench.system, bench.name()
    started = await system.execute("hooked", {"run": run})
    await bench.left(run, "order")
    (body,) = [effect.body for effect in bench.ledger.effects if effect.path == f"/{run}/order"]
    url = body["notify"]
    assert url.startswith(f"http://127.0.0.1:{system.port}/callbacks/{started['id']}/built?token=")
    assert await asyncio.to_thread(sent, url, b'{"no": 1}') == 422
    assert (
        await asyncio.to_thread(sent, url[:-1] + ("0" if url[-1] != "0" else "1"), b'{"image": "x"}') == 404
    )
    assert await asyncio.to_thread(sent, url, b'{"image": "web:1"}') == 202
    assert await asyncio.to_thread(sent, url, b'{"image": "web:2"}') == 404
    assert (await system.finished(started["id"]))["outputs"] == {"image": "web:1"}


def sent(url: str, body: bytes) -> int:
    """The status of a POST without any token."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


async def test_a_paused_run_begins_nothing_until_it_is_resumed(bench: Bench) -> None:
    system, run = bench.system, bench.name()
    bench.ledger.delay = 0.5
    try:
        started = await system.execute("steps", {"run": run})
        await bench.left(run, "step-0")
        await system.ok("POST", f"/executions/{started['id']}/pause", {"reason": "freeze"})
        await system.until(lambda: _rests(bench, started["id"]), "the run to rest")
        resting = bench.entries(run)
        assert "step-3" not in resting
        assert (await system.ok("POST", f"/executions/{started['id']}/pause"))["status"] == "PAUSED"
        listed = (await system.ok("GET", "/executions?status=PAUSED"))["items"]
        assert [each["id"] for each in listed] == [started["id"]]
        assert bench.entries(run) == resting
        await system.ok("POST", f"/executions/{started['id']}/resume")
        await system.finished(started["id"])
        assert bench.entries(run) == [f"step-{n}" for n in range(4)]
    finally:
        bench.ledger.delay = 0.0


async def _rests(bench: Bench, execution: str) -> bool:
    run = await bench.system.ok("GET", f"/executions/{execution}")
    statuses = [task["status"] for task in run["tasks"]]
    return bool(
        run["live"] and run["status"] == "PAUSED" and "RUNNING" not in statuses and "COMPLETED" in statuses
    )


async def test_a_rerun_from_the_failed_task_on_the_commit_that_mends_it(bench: Bench) -> None:
    system, ledger, run = bench.system, bench.ledger, bench.name()
    ledger.failures[f"/{run}/broken"] = 1_000
    started = await system.execute("breaks", {"run": run})
    old = await system.finished(started["id"], "FAILED")
    mended = f"name: breaks\n{RUN}\ntasks:\n{post('build', ledger.url, 'build')}{post('deploy', ledger.url, 'mended', 'build')}"
    sha = bench.repository.commit({"workflows/breaks.yaml": mended})
    await system.live("breaks", sha)
    answer = await system.ok("POST", f"/executions/{old['id']}/rerun", {"ref": "latest", "from_failed": True})
    assert {each["task"]: each["verdict"] for each in answer["tasks"]} == {"build": "reuse", "deploy": "run"}
    done = await system.finished(answer["id"])
    assert (done["commit_sha"], done["rerun_of"]) == (sha, old["id"])
    assert {task["id"]: task.get("reused_from", "") for task in done["tasks"]} == {
        "build": old["id"],
        "deploy": "",
    }
    assert len(set(ledger.keys(f"/{run}/build"))) == 1, "what was reused had no second effect"
    assert bench.entries(run) == ["build", "broken", "mended"]
    before = await system.ok("GET", f"/executions/{old['id']}")
    assert before["tasks"][1]["attempt_log"][0]["status"] == "FAILED"


async def test_targets_run_alone_with_what_they_depend_on(bench: Bench) -> None:
    run = bench.name()
    body = {"inputs": {"run": run}, "targets": ["t1"]}
    started = await bench.system.ok("POST", "/executions/workflows/steps/execute", body)
    done = await bench.system.finished(started["id"])
    assert bench.entries(run) == ["step-0", "step-1"]
    assert [task["skip_reason"] for task in done["tasks"]] == ["", "", "untargeted", "untargeted"]
