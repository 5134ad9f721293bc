"""A run that does what a test tells it: a real workflow on a real server, without the brain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from engine.executor.temporal_executor import TemporalWorkflowExecutor


@workflow.defn(dynamic=True, sandboxed=False)
class Puppet:
    """Ends as its inputs say: `{"end": "complete" | "large" | "fail" | "time_out" | "wait"}`. Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.compiled: Any = None
        self.start: Any = None

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        self.compiled = json.loads(args[0].payload.data)
        self.start = json.loads(args[1].payload.data)
        end = self.start["inputs"].get("end", "complete")
        if end == "fail":
            raise ApplicationError("it broke", type="Broken", non_retryable=True)
        if end == "time_out":
            raise ApplicationError("too slow", type="RunTimedOut", non_retryable=True)
        if end == "wait":
            await workflow.wait_condition(lambda: bool(self.told))
        if end == "large":
            return {"run": self.start["execution_id"], "text": "x" * 200_000}
        return {"told": self.told, "name": self.compiled["name"], "run": self.start["execution_id"]}

    @workflow.signal(name="pinflow.approval")
    async def approval(self, said: Any) -> None:
        if self.start and self.start["inputs"].get("deaf") and len(self.told) == 0 and not said.get("loud"):
            return
        self.told.append(said)

    @workflow.signal(name="pinflow.pause")
    async def pause(self, said: Any) -> None:
        self.told.append({"heard": "pause"} | said)

    @workflow.signal(name="pinflow.resume")
    async def resume(self, said: Any) -> None:
        self.told.append({"heard": "resume"} | said)

    @workflow.signal(name="pinflow.signal")
    async def signalled(self, said: Any) -> None:
        self.told.append({"heard": "signal"} | said)

    @workflow.signal(name="pinflow.slot")
    async def slot(self, said: Any) -> None:
        self.told.append({"heard": "slot"} | said)

    @workflow.query(name="pinflow.snapshot")
    def snapshot(self) -> RawValue:
        status = "COMPLETED" if self.told else "WAITING"
        said = {
            "status": "RUNNING" if not self.told else "COMPLETED",
            "tasks": [{"id": "gate", "status": status, "skip_reason": "", "attempts": 0, "started_at": 1.5}],
            "waiting": self.start["inputs"].get("waiting", []) if self.start else [],
        }
        return RawValue(
            Payload(
                metadata={"encoding": b"json/plain", "pinflow": b"inline"}, data=json.dumps(said).encode()
            )
        )


@asynccontextmanager
async def worker(executor: TemporalWorkflowExecutor, task_queue: str) -> AsyncIterator[None]:
    """A worker for puppets, for as long as the block runs."""
    await executor.ping()
    running = Worker(
        executor.client,
        task_queue=task_queue,
        workflows=[Puppet],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    task = asyncio.create_task(running.run())
    try:
        yield
    finally:
        await running.shutdown()
        await task
