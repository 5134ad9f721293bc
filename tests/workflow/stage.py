"""What the workflow tests run on: a worker with the real workflow, and activities that do as their config says.

The activities are test doubles, known to Temporal by the names that definitions and the engine use.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from engine.core.attempts import judge_error, judge_result
from engine.core.contracts import Judgement, TaskError
from engine.core.run_state import start_to_json
from engine.core.workflow import WorkflowEngineWorkflow
from tests.support.definitions import start as run_start


@dataclass
class Ledger:
    """What the activities saw: one entry per attempt, and the records of ended runs."""

    attempts: list[tuple[str, int, bool]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    refuse_records: int = 0
    record_is_local: list[bool] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Tasks that fail whatever their config says: what a target looks like that is down."""

    def started(self) -> list[str]:
        return [task for task, _, _ in self.attempts]

    def local(self) -> dict[str, bool]:
        return {task: local for task, _, local in self.attempts}


def activities(ledger: Ledger) -> list[Any]:
    """`echo` (and the built-in names) by config: `{fail_until, error, final, sleep, mute, result}`.

    `mute` sleeps in the first attempt only, without a sign of life: what a worker looks like that is gone.
    """

    async def perform(raw: dict[str, Any]) -> dict[str, Any]:
        info = activity.info()
        config = raw["config"]
        ledger.attempts.append((raw["task"], info.attempt, info.is_local))
        if config.get("mute") and ledger.started().count(raw["task"]) <= config["mute"]:
            await asyncio.sleep(20)
        deadline = asyncio.get_running_loop().time() + config.get("sleep", 0)
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, 0.1))
            if not info.is_local:
                activity.heartbeat()
        if raw["task"] in ledger.broken or info.attempt < config.get("fail_until", 1):
            error = TaskError(config.get("error", "BOOM"), f"attempt {info.attempt} failed")
            final = judge_error(judgement(raw.get("retry_when")), error, info.attempt)
            raise ApplicationError(
                error.message,
                {"attempt": info.attempt, "details": None},
                type=error.type,
                non_retryable=final is not None or bool(config.get("final")),
            )
        result = config.get("result", config)
        problem = judge_result(judgement(raw.get("success_when")), result, info.attempt)
        if problem is not None:
            raise ApplicationError(
                problem.message, {"attempt": info.attempt, "details": None}, type=problem.type
            )
        return {"result": result, "attempt": info.attempt}

    @activity.defn(name="echo")
    async def echo(raw: dict[str, Any]) -> dict[str, Any]:
        return await perform(raw)

    @activity.defn(name="http_request")
    async def http_request(raw: dict[str, Any]) -> dict[str, Any]:
        return await perform(raw)

    @activity.defn(name="pinflow.request_approval")
    async def request_approval(raw: dict[str, Any]) -> dict[str, Any]:
        now = activity.info().scheduled_time.timestamp()
        after = raw["config"].get("deadline")
        return {
            "approval_id": f"id-{raw['task']}",
            "requested_at": now,
            "deadline": None if after is None else now + after,
        }

    @activity.defn(name="pinflow.close_approval")
    async def close_approval(raw: dict[str, Any]) -> dict[str, Any]:
        ledger.closed.append((raw["task"], raw["why"]))
        outcome = "CANCELLED" if raw["why"] == "cancelled" else "TIMED_OUT"
        return {"outcome": outcome, "decisions": [], "deadline": None}

    @activity.defn(name="pinflow.record_run")
    async def record_run(raw: dict[str, Any]) -> None:
        ledger.record_is_local.append(activity.info().is_local)
        if ledger.refuse_records > 0:
            ledger.refuse_records -= 1
            raise ApplicationError("postgres is away")
        ledger.records.append(raw)

    return [echo, http_request, request_approval, close_approval, record_run]


def judgement(raw: dict[str, Any] | None) -> Judgement | None:
    return None if raw is None else Judgement(**raw)


class Stage:
    """A worker on a task queue of its own, and a way to start runs there."""

    def __init__(self, client: Client, queue: str, ledger: Ledger) -> None:
        self.client = client
        self.queue = queue
        self.ledger = ledger

    async def start(self, compiled: dict[str, Any], **inputs: Any) -> WorkflowHandle[Any, Any]:
        execution_id = f"run-{uuid.uuid4()}"
        args = [plain(compiled), plain(start_to_json(run_start(execution_id, **inputs)))]
        return await self.client.start_workflow(
            compiled["name"], args=args, id=execution_id, task_queue=self.queue
        )

    async def run(self, compiled: dict[str, Any], **inputs: Any) -> WorkflowHandle[Any, Any]:
        """Start a run and wait until it is over, however it ends."""
        handle = await self.start(compiled, **inputs)
        await ended(handle)
        return handle

    def record(self) -> dict[str, Any]:
        (record,) = self.ledger.records
        return record

    def statuses(self) -> dict[str, str]:
        return {
            t["id"]: t["status"] + (f":{t['skip_reason']}" if t["skip_reason"] else "")
            for t in self.record()["tasks"]
        }


@asynccontextmanager
async def stage(client: Client, **options: Any) -> AsyncIterator[Stage]:
    """A running worker; `options` are those of `temporalio.worker.Worker`."""
    made = Stage(client, f"test-{uuid.uuid4()}", Ledger())
    async with worker(made, **options):
        yield made


def worker(on: Stage, **options: Any) -> Worker:
    """One more worker on the same task queue, with the same ledger."""
    return Worker(
        on.client,
        task_queue=on.queue,
        workflows=[WorkflowEngineWorkflow],
        activities=activities(on.ledger),
        max_heartbeat_throttle_interval=timedelta(seconds=0.5),
        **options,
    )


async def ended(handle: WorkflowHandle[Any, Any]) -> BaseException | None:
    """Wait for the end of a run; gives the cause of its failure."""
    try:
        async with asyncio.timeout(60):
            await handle.result()
    except WorkflowFailureError as error:
        return error.cause
    return None


async def until(handle: WorkflowHandle[Any, Any], task: str, status: str) -> dict[str, Any]:
    """Poll the run's own word until `task` has `status`; gives the snapshot."""
    async with asyncio.timeout(30):
        while True:
            snapshot: dict[str, Any] = await handle.query("pinflow.snapshot")
            if any(t["id"] == task and t["status"] == status for t in snapshot["tasks"]):
                return snapshot
            await asyncio.sleep(0.02)


async def events(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """The names of the events in a run's history."""
    history: WorkflowHistory = await handle.fetch_history()
    names: Sequence[Any] = history.to_json_dict()["events"]
    return [event["eventType"].removeprefix("EVENT_TYPE_") for event in names]


def plain(value: Any) -> RawValue:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=data))
