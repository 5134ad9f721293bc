"""The driver with everything real around it but the tasks: Postgres, Temporal, the services that start runs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from engine.activities.door import engine_activities
from engine.core.workflow import WorkflowEngineWorkflow
from engine.dsl.activity_types import ActivityTypeInfo, ActivityTypes
from engine.dsl.checking import check
from engine.executor.dispatcher import Dispatcher
from engine.executor.payloads import data_converter
from engine.executor.reconciler import Reconciler
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.services.callers import Caller
from engine.services.workflow_service import WorkflowService
from engine.storage.database import Database
from tests.support.registered import register
from tests.support.runs import rows
from tests.workflow.stage import Ledger, activities

ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
ADA = Caller("ada", frozenset({"admin"}), ("admins",))
TYPES = ActivityTypes(
    [
        ActivityTypeInfo(name, {"type": "object"}, True, ("BOOM",))
        for name in ("echo", "http_request", "human_approval")
    ],
    entry_points=False,
)


_T = TypeVar("_T")


class House:
    """One database, one task queue; definitions are deployed as text, runs started as a caller does."""

    def __init__(self, database: Database, executor: TemporalWorkflowExecutor, queue: str) -> None:
        self.database = database
        self.executor = executor
        self.queue = queue
        self.ledger = Ledger()
        self.services = WorkflowService(database, executor, callback_base="https://pinflow.example.test")
        self.dispatcher = Dispatcher(database, executor, interval=0.1)
        self.reconciler = Reconciler(database, executor, interval=0.1)

    async def deploy(self, *texts: str) -> None:
        """Deploy definitions in order: a child before its parent."""
        for text in texts:
            checked = check(text.encode(), "w.yaml", TYPES)
            assert checked.compiled is not None, "\n".join(map(str, checked.problems))
            await register(self.database, checked.compiled["name"], compiled=checked.compiled)

    async def start(self, name: str, **inputs: Any) -> str:
        return (await self.services.executions.execute(ADA, name, inputs)).id

    async def run(self, name: str, *, status: str = "COMPLETED", seconds: float = 60, **inputs: Any) -> Any:
        """Start a run and wait for its recorded end; its row."""
        return await self.ended(await self.start(name, **inputs), status, seconds)

    async def ended(self, run: str, status: str = "COMPLETED", seconds: float = 60) -> dict[str, Any]:
        """Wait until the row of a run has ended; it must be so."""

        async def over() -> dict[str, Any] | None:
            row = await self.row(run)
            return row if row is not None and row["status"] in ENDS else None

        row = await self.until(over, f"{run} to end", seconds)
        assert row is not None
        assert row["status"] == status, row["error"]
        return row

    async def row(self, run: str) -> dict[str, Any] | None:
        found = await self.rows("SELECT * FROM workflow_executions WHERE id = :run", run=run)
        return found[0] if found else None

    async def child(self, parent: str, task: str = "call") -> dict[str, Any]:
        """Wait for the newest child of a task; its row."""
        query = (
            "SELECT * FROM workflow_executions WHERE parent_id = :parent AND parent_task = :task"
            " ORDER BY started_at DESC LIMIT 1"
        )

        async def there() -> dict[str, Any] | None:
            found = await self.rows(query, parent=parent, task=task)
            return found[0] if found else None

        return await self.until(there, f"the child of {task}") or {}

    async def tasks(self, run: str) -> dict[str, str]:
        """How the tasks of a run ended, as recorded."""
        found = await self.rows(
            "SELECT task, status FROM task_states WHERE execution_id = :run ORDER BY position, task", run=run
        )
        return {row["task"]: row["status"] for row in found}

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        return await rows(self.database, query, **values)

    async def standing(self, workflow_id: str) -> dict[str, Any]:
        """The run's (or slice's) own word."""
        answer: dict[str, Any] = await self.handle(workflow_id).query("pinflow.snapshot")
        return answer

    async def task_is(self, workflow_id: str, task: str, status: str) -> dict[str, Any]:
        """Wait until the run says that a task stands so; what it says of it."""

        async def condition() -> dict[str, Any] | None:
            standing = await self.standing(workflow_id)
            return next((t for t in standing["tasks"] if t["id"] == task and t["status"] == status), None)

        return await self.until(condition, f"{task} to be {status}") or {}

    async def until(self, look: Callable[[], Awaitable[_T]], what: str, seconds: float = 30) -> _T:
        """Look again and again until there is something to see."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    if seen := await look():
                        return seen
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise AssertionError(f"waited {seconds:.0f} s for {what}") from error

    def handle(self, workflow_id: str) -> WorkflowHandle[Any, Any]:
        return self.executor.client.get_workflow_handle(workflow_id)

    async def events(self, workflow_id: str, run_id: str | None = None) -> list[str]:
        """The names of the events of a history."""
        handle = self.executor.client.get_workflow_handle(workflow_id, run_id=run_id)
        history = await handle.fetch_history()
        names = [event["eventType"] for event in history.to_json_dict()["events"]]
        return [name.removeprefix("EVENT_TYPE_") for name in names]

    async def histories(self, run: str) -> dict[str, int]:
        """Every history of a run and of its slices, by workflow and run id, with its number of events."""
        query = f"WorkflowId = '{run}' OR WorkflowId STARTS_WITH '{run}/'"
        found = {}
        async for each in self.executor.client.list_workflows(query):
            found[f"{each.id} {each.run_id}"] = each.history_length
        return found

    def worker(self, **options: Any) -> Worker:
        """A worker of this house; several may run at once."""
        doubles = [
            each
            for each in activities(self.ledger)
            if not activity._Definition.must_from_callable(each).name.startswith("pinflow.")  # type: ignore[union-attr]
        ]
        return Worker(
            self.executor.client,
            task_queue=self.queue,
            workflows=[WorkflowEngineWorkflow],
            activities=[*doubles, *engine_activities(self.database)],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_heartbeat_throttle_interval=timedelta(seconds=0.5),
            **options,
        )


@asynccontextmanager
async def house(database: Database, temporal: str, **options: Any) -> AsyncIterator[House]:
    """A house with a worker and a dispatcher at work; `options` are those of `temporalio.worker.Worker`."""
    queue = f"test-{uuid.uuid4().hex[:8]}"
    executor = await TemporalWorkflowExecutor.connect(
        temporal, namespace="default", task_queue=queue, converter=data_converter(database), lazy=False
    )
    made = House(database, executor, queue)
    async with AsyncExitStack() as stack:
        if options.pop("working", True):
            await stack.enter_async_context(made.worker(**options))
        relay = asyncio.create_task(made.dispatcher.run())
        try:
            yield made
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)
