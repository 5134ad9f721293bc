"""Runs with children, slices, loops, signals and slots whose histories are kept: each gives the workflows to keep, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from engine.core import workflow
from tests.workflow import test_children, test_groups_of_concurrency, test_slices
from tests.workflow.house import House

Kept: TypeAlias = dict[str, str]
"""Name of the history → workflow id."""

LANGUAGE = """
name: everything
inputs: {type: object, properties: {n: {type: integer, default: 3}}}
tasks:
  - id: each
    type: map
    items: "${{ range(inputs.n) }}"
    max_concurrency: 2
    tasks:
      - {id: a, activity_type: echo, config: {result: "${{ item }}"}, compensate: {activity_type: echo, config: {undo: "${{ item }}"}}}
      - {id: b, depends_on: [a], activity_type: echo, execution: local, timeout: 1s, config: {result: "${{ tasks.a.outputs }}"}}
  - id: again
    type: loop
    state: {n: 0}
    tasks: [{id: step, activity_type: echo, config: {}}]
    next: {n: "${{ state.n + 1 }}"}
    until: "${{ state.n >= 3 }}"
    interval: 10ms
    max_iterations: 5
  - {id: both, type: group, depends_on: [each, again], tasks: [{id: x, activity_type: echo, config: {}}, {id: y, type: set, values: {v: 1}}]}
  - {id: gate, type: signal, depends_on: [both], signal: go}
  - {id: stop, type: end, depends_on: [gate], when: "${{ inputs.n == 3 }}", status: FAILED, message: enough}
  - {id: never, depends_on: [stop], activity_type: echo, config: {}}
finally: [{id: unlock, activity_type: echo, config: {}}]
"""


def short_histories(patch: pytest.MonkeyPatch) -> None:
    """Begin afresh after a few dozen events."""
    patch.setattr(workflow, "CALM_EVENTS", 30)
    patch.setattr(workflow, "DRAIN_EVENTS", 40)


async def everything(home: House) -> Kept:
    await home.deploy(LANGUAGE)
    run = await home.start("everything")
    await home.executor.signal(run, "pinflow.pause", {"by": "ada", "reason": "", "id": "1"})
    await home.executor.signal(run, "pinflow.resume", {"by": "ada", "id": "2"})
    await home.task_is(run, "gate", "WAITING")
    await home.executor.signal(run, "pinflow.signal", {"id": "3", "name": "go", "payload": {}})
    await home.ended(run, "FAILED")
    return {"everything": run}


async def called(home: House) -> Kept:
    await home.deploy(test_children.LEAF, test_children.PARENT)
    run = (await home.run("parent", n=4))["id"]
    return {"called_parent": run, "called_child": (await home.child(run))["id"]}


async def cancelled_family(home: House) -> Kept:
    await home.deploy(test_children.SLOW, test_children.CALLS)
    run = await home.start("parent")
    child = (await home.child(run))["id"]
    await home.task_is(child, "work", "RUNNING")
    await home.executor.cancel(run, by="ada", reason="enough")
    await home.ended(run, "CANCELLED")
    return {"cancelled_parent": run, "cancelled_child": child}


async def cut(home: House) -> Kept:
    await home.deploy(test_slices.MAP)
    run = (await home.run("mapped", n=520))["id"]
    return {"cut_map": run, "slice": f"{run}/each[500]"}


async def queued(home: House) -> Kept:
    await home.deploy(test_groups_of_concurrency.RUN)
    first = await home.start("guarded")
    await test_groups_of_concurrency.holds(home, first)
    second = await home.start("guarded")
    await test_groups_of_concurrency.is_queued(home, second)
    for run in (first, second):
        await test_groups_of_concurrency.holds(home, run)
        await test_groups_of_concurrency.go(home, run)
        await home.ended(run)
    return {"queued": second}


async def fresh(home: House) -> Kept:
    """The history of a run that began afresh and found its child there."""
    with pytest.MonkeyPatch.context() as patch:
        short_histories(patch)
        await home.deploy(test_children.GATED, test_children.LONG)
        run = await home.start("parent")
        child = (await home.child(run))["id"]
        await test_children.fresh_history(home, run)
        await home.executor.signal(child, "pinflow.signal", {"id": "1", "name": "go", "payload": {}})
        await home.ended(run)
    return {"adopting": run}


HOUSE_SCENARIOS: dict[str, Callable[[House], Awaitable[Kept]]] = {
    scenario.__name__: scenario for scenario in (everything, called, cancelled_family, cut, queued, fresh)
}
KEPT_NAMES = frozenset(
    [
        *("everything", "called_parent", "called_child", "cancelled_parent", "cancelled_child"),
        *("cut_map", "slice", "queued", "adopting"),
    ]
)
