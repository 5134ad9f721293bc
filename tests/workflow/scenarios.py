"""The runs whose histories are kept: each starts one, plays its part, and gives its handle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from temporalio.client import WorkflowHandle

from tests.support.definitions import approval, definition, retry, task
from tests.workflow.stage import Stage, ended, until

Handle: TypeAlias = WorkflowHandle[Any, Any]
SHORT: dict[str, Any] = {"activity_type": "http_request", "timeout": 1.0}


async def sequential(stage: Stage) -> Handle:
    first = task("a", config={"n": "${{ inputs.n }}"})
    second = task("b", "a", config={"n": "${{ tasks.a.outputs.n + 1 }}"}, outputs={"m": "${{ result.n }}"})
    schema = {"properties": {"n": {"type": "integer"}}}
    return await stage.run(
        definition(first, second, inputs=schema, outputs={"m": "${{ tasks.b.outputs.m }}"}), n=1
    )


async def parallel(stage: Stage) -> Handle:
    return await stage.run(definition(*(task(f"t{i}") for i in range(10))))


async def limited(stage: Stage) -> Handle:
    return await stage.run(definition(*(task(f"t{i}") for i in range(8)), max_concurrency=2))


async def diamond(stage: Stage) -> Handle:
    return await stage.run(definition(task("a"), task("b", "a"), task("c", "a"), task("d", "b", "c")))


async def skipped(stage: Stage) -> Handle:
    return await stage.run(
        definition(
            task("a", when="${{ 1 > 2 }}"), task("b", "a"), task("c", "b", run_on="failure"), task("d", "c")
        )
    )


async def failing(stage: Stage) -> Handle:
    return await stage.run(
        definition(
            task("a", config={"fail_until": 9, "error": "HTTP_5XX"}),
            task("b"),
            task("c", "a"),
            task("page", "a", run_on="failure"),
            on_failure=[task("alert", config={"said": "${{ run.error.message }}"})],
            finally_=[task("unlock"), task("after", "unlock")],
        )
    )


async def failing_and_cancelling(stage: Stage) -> Handle:
    return await stage.run(
        definition(
            task("a", config={"fail_until": 9, "sleep": 0.2}),
            task("b", config={"sleep": 20}),
            task("nap", type="wait", duration=60.0),
            approval("gate", deadline=60.0),
            on_task_failure="cancel",
        )
    )


async def retried(stage: Stage) -> Handle:
    policy = retry(4, when="${{ attempt < 3 }}")
    return await stage.run(
        definition(
            task("a", config={"fail_until": 3}, retry=policy),
            task("b", "a", config={"fail_until": 3}, retry=policy, **SHORT),
            task("c", "b", config={"fail_until": 9}, retry=policy, **SHORT),
        )
    )


async def timed_out_attempt(stage: Stage) -> Handle:
    return await stage.run(
        definition(
            task("a", config={"sleep": 20}, timeout=0.2, continue_on_failure=True),
            task("b", config={"sleep": 20}, **(SHORT | {"timeout": 0.2}), continue_on_failure=True),
        )
    )


async def cancelled(stage: Stage) -> Handle:
    handle = await stage.start(
        definition(task("a", config={"sleep": 20}), task("b", "a"), finally_=[task("unlock")])
    )
    await until(handle, "a", "RUNNING")
    await handle.cancel(reason='{"by": "bob", "reason": "enough"}')
    await ended(handle)
    return handle


async def cancelled_twice(stage: Stage) -> Handle:
    handle = await stage.start(
        definition(task("a", config={"sleep": 20}), finally_=[task("unlock", config={"sleep": 20})])
    )
    await until(handle, "a", "RUNNING")
    await handle.cancel()
    await until(handle, "unlock", "RUNNING")
    await handle.signal("pinflow.cancel", {"by": "bob", "reason": "now", "id": "second"})
    await ended(handle)
    return handle


async def approved(stage: Stage) -> Handle:
    gate = approval("gate", deadline=60.0)
    handle = await stage.start(definition(gate, task("go", "gate", config="${{ tasks.gate.outputs }}")))
    await until(handle, "gate", "WAITING")
    word = {"task": "gate", "approval_id": "id-gate", "outcome": "APPROVED", "deadline": None}
    await handle.signal("pinflow.approval", word | {"decisions": [{"by": "bob", "decision": "approve"}]})
    await ended(handle)
    return handle


async def approval_timed_out(stage: Stage) -> Handle:
    return await stage.run(definition(approval("gate", deadline=0.2), task("go", "gate", run_on="failure")))


async def run_timed_out(stage: Stage) -> Handle:
    return await stage.run(
        definition(
            task("a", config={"sleep": 20}),
            timeout=0.3,
            on_failure=[task("alert")],
            finally_=[task("unlock")],
        )
    )


async def waited_and_set(stage: Stage) -> Handle:
    return await stage.run(
        definition(
            task("n", type="set", values={"n": 3}),
            task("nap", "n", type="wait", duration="${{ '100ms' }}"),
            task("until", "nap", type="wait", until="2020-01-01T00:00:00Z"),
            outputs={"n": "${{ tasks.n.outputs.n }}"},
        )
    )


async def local_with_checkpoints(stage: Stage) -> Handle:
    chain = [task("t0", config={"sleep": 0.4}, **SHORT)]
    chain += [task(f"t{i}", f"t{i - 1}", config={"sleep": 0.4}, **SHORT) for i in range(1, 6)]
    return await stage.run(definition(*chain))


async def local_fan_out(stage: Stage) -> Handle:
    many = [task(f"t{i}", **SHORT) for i in range(20)]
    return await stage.run(definition(*many, task("join", *(t["id"] for t in many), **SHORT)))


async def recorded_late(stage: Stage) -> Handle:
    stage.ledger.refuse_records = 4
    return await stage.run(definition(task("a")))


async def expression_errors(stage: Stage) -> Handle:
    return await stage.run(
        definition(
            task("a", config={"n": "${{ 1 / 0 }}"}, continue_on_failure=True),
            task("b", when="${{ 'yes' }}", continue_on_failure=True),
            task("c", outputs="${{ result.no }}", continue_on_failure=True),
            task("d", success_when="${{ result.no }}"),
        )
    )


SCENARIOS: dict[str, Callable[[Stage], Awaitable[Handle]]] = {
    scenario.__name__: scenario
    for scenario in (
        sequential,
        parallel,
        limited,
        diamond,
        skipped,
        failing,
        failing_and_cancelling,
        retried,
        timed_out_attempt,
        cancelled,
        cancelled_twice,
        approved,
        approval_timed_out,
        run_timed_out,
        waited_and_set,
        local_with_checkpoints,
        local_fan_out,
        recorded_late,
        expression_errors,
    )
}
