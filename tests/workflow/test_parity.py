"""The same cases offline and on a real Temporal server: each task ends in the same way, after as many attempts, in order.

On the server the pauses of retries are short, people answer as soon as they can, and activities are doubles that answer
from the case's own mocks.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from engine.core.approvals import ApprovalPolicy, standing
from engine.core.attempts import EXPRESSION, judge_error, judge_result
from engine.core.contracts import TaskError
from engine.core.workflow import WorkflowEngineWorkflow
from engine.testing.cases import Answer, Case, CaseFile
from engine.testing.discovery import Library
from engine.testing.driver import Driver
from engine.testing.traces import Trace
from tests.support.casefiles import HTTP, TYPES, read_cases
from tests.workflow.stage import Ledger, Stage, ended, judgement, until

GALLERY = Path(__file__).parents[2] / "workflows"
SLOW = {"a slow target is cut off after five seconds, each time"}
"""Cases that would take real time: attempts cut off by their time limit."""

ORDER = f"""
name: w
on_task_failure: drain
tasks:
  - {{id: a, {HTTP}, timeout: 1s, retry: {{max_attempts: 3, when: "${{{{ attempt < 2 }}}}"}}, continue_on_failure: true}}
  - {{id: b, depends_on: [a], {HTTP}, timeout: 1s, success_when: "${{{{ result.status == 200 }}}}"}}
  - {{id: never, depends_on: [a], when: "${{{{ tasks.a.status == 'COMPLETED' }}}}", type: set, values: {{}}}}
  - {{id: after_never, depends_on: [never], type: wait, duration: 50ms}}
  - {{id: rescue, depends_on: [b], run_on: failure, {HTTP}}}
  - {{id: c, depends_on: [b, after_never], {HTTP}}}
finally: [{{id: unlock, {HTTP}}}, {{id: told, depends_on: [unlock], type: set, values: {{s: "${{{{ run.status }}}}"}}}}]
"""
ORDER_TESTS = """
workflow: w
cases:
  - name: all is well
    mocks: {a: {result: {status: 200}}, b: {result: {status: 200}}, c: {result: 1}, unlock: {result: 1}}
    expect: {status: COMPLETED}
  - name: a tolerated failure, then one that counts
    mocks: {a: {error: {type: X}}, b: {result: {status: 500}}, rescue: {result: 1}, unlock: {error: {type: Y}}}
    expect: {status: FAILED, path: [a, b]}
  - name: outputs of an attempt that cannot be judged
    mocks: {a: {error: {type: DENIED}}, b: {result: {}}, rescue: {error: {type: Z}}, unlock: {result: 1}}
    expect: {status: FAILED}
"""


def gallery() -> list[CaseFile]:
    library = Library(TYPES)
    return [library.load(str(path)) for path in sorted(GALLERY.glob("*.test.yaml"))]


CASES = [
    pytest.param(each.compiled, case, id=f"{each.workflow}: {case.name}")
    for each in [*gallery(), read_cases(ORDER, ORDER_TESTS)]
    for case in each.cases
    if case.name not in SLOW
]


@pytest.mark.parametrize(("compiled", "case"), CASES)
async def test_offline_as_on_temporal(client: Client, compiled: dict[str, Any], case: Case) -> None:
    offline = Driver(compiled, TYPES).play(case)
    record = await _on_temporal(client, _quick(compiled, case), case)
    online = {task["id"]: task for task in record["tasks"]}
    assert {name: (end.status, end.skip_reason, end.attempts) for name, end in offline.tasks.items()} == {
        name: (end["status"], end["skip_reason"] or "", end["attempts"]) for name, end in online.items()
    }
    assert (offline.status, _type(offline.error)) == (record["status"], _type(record["error"]))
    if case.expect.path is not None:  # else the order of what runs in parallel is chance
        assert [online[name]["finished_at"] for name in offline.path] == sorted(
            online[name]["finished_at"] for name in offline.path
        )
    _same_outputs(offline, record)


def _same_outputs(offline: Trace, record: dict[str, Any]) -> None:
    if isinstance(offline.outputs, dict):
        known = {"commit"}  # the server's run has a commit of its own
        assert {k: v for k, v in offline.outputs.items() if k not in known} == {
            k: v for k, v in record["outputs"].items() if k not in known
        }


def _type(error: Any) -> str:
    return error["type"] if error else ""


def _quick(compiled: dict[str, Any], case: Case) -> dict[str, Any]:
    """The definition with pauses that a test can wait for."""
    quick = copy.deepcopy(compiled)
    for task in [*quick["tasks"], *quick["on_failure"], *quick["finally"]]:
        if task["retry"]:
            task["retry"] |= {"initial_interval": 0.01, "max_interval": 0.05}
        if task["type"] == "wait":
            task["duration"] = "50ms"
        if task["activity_type"] == "human_approval" and not case.approvals and case.cancel is None:
            task["config"]["deadline"] = "200ms"
    return quick


async def _on_temporal(client: Client, compiled: dict[str, Any], case: Case) -> dict[str, Any]:
    stage = Stage(client, f"parity-{uuid.uuid4()}", Ledger())
    async with Worker(
        client,
        task_queue=stage.queue,
        workflows=[WorkflowEngineWorkflow],
        activities=_doubles(stage.ledger, case),
        max_heartbeat_throttle_interval=timedelta(seconds=0.5),
    ):
        handle = await stage.start(compiled, **case.inputs)
        for task, votes in case.approvals.items():
            await until(handle, task, "WAITING")
            said = [{"by": vote.by, "decision": vote.decision, "comment": vote.comment} for vote in votes]
            config = next(each["config"] for each in compiled["tasks"] if each["id"] == task)
            outcome = standing(ApprovalPolicy.from_json(config), said)
            word = {"task": task, "approval_id": f"id-{task}", "outcome": outcome, "decisions": said}
            await handle.signal("pinflow.approval", word)
        if case.cancel is not None:
            stopped = (name for name, status in case.expect.tasks.items() if status == "CANCELLED")
            await until(handle, next(stopped), "WAITING")
            await handle.signal(
                "pinflow.cancel", {"by": case.cancel.by, "reason": case.cancel.reason, "id": "1"}
            )
        await ended(handle)
    return stage.record()


def _doubles(ledger: Ledger, case: Case) -> list[Callable[..., Any]]:
    async def perform(raw: dict[str, Any]) -> dict[str, Any]:
        attempt = activity.info().attempt
        answer = case.mocks[raw["task"]].answer(attempt)
        assert answer is not None
        await asyncio.sleep(min(answer.after * 0.1, 0.5))
        error, retryable = _failure(raw, answer, attempt)
        if error is None:
            return {"result": answer.result, "attempt": attempt}
        final = judge_error(judgement(raw.get("retry_when")), error, attempt) if retryable else error
        told = final or error
        raise ApplicationError(
            told.message,
            {"attempt": attempt, "details": None},
            type=told.type,
            non_retryable=final is not None,
        )

    @activity.defn(name="pinflow.request_approval")
    async def request_approval(raw: dict[str, Any]) -> dict[str, Any]:
        now = activity.info().scheduled_time.timestamp()
        short = raw["config"].get("deadline") == "200ms"
        deadline = now + 0.2 if short else None
        return {"approval_id": f"id-{raw['task']}", "requested_at": now, "deadline": deadline}

    @activity.defn(name="pinflow.close_approval")
    async def close_approval(raw: dict[str, Any]) -> dict[str, Any]:
        outcome = "CANCELLED" if raw["why"] == "cancelled" else "TIMED_OUT"
        return {"outcome": outcome, "decisions": [], "deadline": None}

    @activity.defn(name="pinflow.record_run")
    async def record_run(raw: dict[str, Any]) -> None:
        ledger.records.append(raw)

    @activity.defn(name="http_request")
    async def http_request(raw: dict[str, Any]) -> dict[str, Any]:
        return await perform(raw)

    @activity.defn(name="python_function")
    async def python_function(raw: dict[str, Any]) -> dict[str, Any]:
        return await perform(raw)

    return [http_request, python_function, request_approval, close_approval, record_run]


def _failure(raw: dict[str, Any], answer: Answer, attempt: int) -> tuple[TaskError | None, bool]:
    if answer.error is not None:
        return TaskError(answer.error.type, answer.error.message), answer.error.retryable
    problem = judge_result(judgement(raw.get("success_when")), answer.result, attempt)
    return problem, problem is None or problem.type != EXPRESSION
