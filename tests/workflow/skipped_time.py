"""A case of a test file on a real Temporal server, in skipped time: what `pinflow test` claims, checked against the server.

The workflow, its driver and the server are real, and time passes in the server as it does in the case: retries, timers and
deadlines with their own lengths. Activities are doubles that answer from the case's mocks, and outsiders say what they
said offline, at the moments at which they said it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import TimeSkipper, TimeSkippingConfig, WorkflowEnvironment
from temporalio.worker import Worker

from engine.core.attempts import EXPRESSION, judge_error, judge_result
from engine.core.contracts import (
    ApprovalResolved,
    CancelRequested,
    RunStart,
    SignalReceived,
    TaskError,
)
from engine.core.run_state import start_to_json
from engine.core.values import moment
from engine.core.workflow import WorkflowEngineWorkflow
from engine.dsl.compiler import canonical
from engine.executor.payloads import data_converter, definition_reference
from engine.stack.temporal import DYNAMIC_CONFIG, SEARCH_ATTRIBUTES
from engine.storage import blobs
from engine.storage.database import Database
from engine.testing.cases import Answer, Case, CaseFile, Mock
from engine.testing.people import Request, rfc3339
from engine.testing.slots import Slots
from engine.testing.stage import Stage
from engine.testing.traces import Word
from tests.support.casefiles import TYPES
from tests.workflow.stage import ended, judgement

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_NO_END = 1_000_000
"""Skips of time in one run: the server's own limit is lower than the polls of an hour."""
SKIPPING = "frontend.WorkflowTimeSkippingEnabled=true"


@asynccontextmanager
async def server(database: Database, binary: str) -> AsyncIterator[Client]:
    """A server that can skip time, and a client of it; payloads stand in `database`."""
    extra = [word for value in (*DYNAMIC_CONFIG, SKIPPING) for word in ("--dynamic-config-value", value)]
    for name in SEARCH_ATTRIBUTES:
        extra += ["--search-attribute", f"{name}=Keyword"]
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=binary,
        dev_server_log_level="error",
        dev_server_extra_args=extra,
        data_converter=data_converter(database),
    ) as environment:
        yield environment.client


def at_this_moment(case: Case) -> Case:
    """The case as if it began now, the server's own time; moments among its inputs move along."""
    by = time.time() - case.started_at
    return replace(case, started_at=case.started_at + by, inputs=_moved(case.inputs, by))


def _moved(value: Any, by: float) -> Any:
    if isinstance(value, dict):
        return {name: _moved(item, by) for name, item in value.items()}
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return rfc3339(moment(value) + by)
    return value


def instant(case: Case) -> Case:
    """The case with activities that take no time: what runs in an activity cannot be skipped by the server."""
    mocks = case.mocks.copy()
    for name, mock in case.mocks.items():
        answers = tuple(replace(answer, after=0.0) for answer in mock.answers)
        mocks[name] = Mock(answers, mock.repeats)
    return replace(case, mocks=type(case.mocks)(mocks))


@dataclass
class Played:
    """What came of a case on the server: the record of its run and those of its children, by address of their task."""

    record: dict[str, Any]
    began: float
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def took(self) -> float:
        """Seconds of the run's own clock."""
        return float(self.record["finished_at"]) - self.began


class Theatre:
    """One case under way: the doubles of activities and of the rows in Postgres, for the run and its family."""

    def __init__(self, client: Client, database: Database, case_file: CaseFile, case: Case) -> None:
        self._client = client
        self._database = database
        self._file = case_file
        self._case = case
        self._queue = f"parity-{uuid.uuid4()}"
        self._slots = Slots()
        self._prefixes: dict[str, str] = {}
        self._requests: dict[tuple[str, str], Request] = {}
        self._asked: dict[str, int] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._sliced: list[dict[str, Any]] = []
        self._tell: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()

    async def play(self, words: list[Word]) -> Played:
        """From the start to the end."""
        assert self._file.compiled is not None
        start = await self._start()
        config = TimeSkippingConfig(enabled=not words, max_session_skip_count=_NO_END)
        skipper = TimeSkipper(self._client, config=config)
        async with Worker(
            skipper.client,
            task_queue=self._queue,
            workflows=[WorkflowEngineWorkflow],
            activities=self._doubles(),
            max_heartbeat_throttle_interval=timedelta(seconds=0.5),
        ):
            digest, size = await self._shelve(self._file.compiled)
            handle = await skipper.client.start_workflow(
                self._file.workflow,
                args=[definition_reference(digest, size), start_to_json(start)],
                id=start.execution_id,
                task_queue=self._queue,
            )
            began = (await handle.describe()).start_time.timestamp()
            told = await self._converse(skipper, handle, began, words)
            if words:
                await asyncio.gather(*(skipper.fast_forward(each) for each in told))
            await ended(handle)
        return self._played(start.execution_id, began)

    async def _start(self) -> RunStart:
        assert self._file.compiled is not None
        stage = Stage(self._file.compiled, TYPES, self._file.children)
        start = stage.start(self._case)
        closure = {}
        for key, entry in start.pin.closure.items():
            child = {**self._file.children, self._file.workflow: self._file.compiled}[entry["workflow"]]
            digest, size = await self._shelve(child)
            closure[key] = entry | {"compiled_digest": digest, "digest": digest, "size": size}
        digest, _ = await self._shelve(self._file.compiled)
        pin = replace(start.pin, compiled_digest=digest, digest=digest, closure=closure)
        execution_id = f"run-{uuid.uuid4()}"
        self._prefixes[execution_id] = ""
        return replace(start, execution_id=execution_id, pin=pin)

    async def _shelve(self, compiled: Any) -> tuple[str, int]:
        content = canonical(compiled)
        digest = hashlib.sha256(content).hexdigest()
        async with self._database.begin() as connection:
            await blobs.put(connection, "compiled", {digest: content})
        return digest, len(content)

    async def _converse(
        self, skipper: TimeSkipper, root: WorkflowHandle[Any, Any], began: float, words: list[Word]
    ) -> list[WorkflowHandle[Any, Any]]:
        """Let the clock go on to each moment at which somebody said something, and say it. Those who were told, and the root."""
        told = [root]
        for word in words:
            handle = root if not word.prefix else await self._child(word.prefix)
            now = (await skipper.get_current_time(handle)).timestamp()
            ahead = began + word.at - now
            if ahead > 0.001 and not await skipper.fast_forward(handle, ahead):
                break
            await self._say(handle, word)
            told += [] if handle.id in {each.id for each in told} else [handle]
        return told

    async def _child(self, prefix: str) -> WorkflowHandle[Any, Any]:
        await self._until(lambda: prefix in self._prefixes.values())
        runs = [run for run, known in self._prefixes.items() if known == prefix]
        return self._client.get_workflow_handle(runs[-1])

    async def _until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not happened():
                self._moved.clear()
                await self._moved.wait()

    async def _say(self, handle: WorkflowHandle[Any, Any], word: Word) -> None:
        event = word.event
        match event:
            case ApprovalResolved():
                await self._until(lambda: (handle.id, event.task) in self._requests)
                body: dict[str, Any] = {
                    "task": event.task,
                    "approval_id": f"id-{event.task}",
                    "outcome": event.outcome,
                    "decisions": event.decisions,
                }
                self._requests[handle.id, event.task].outcome = event.outcome
                await handle.signal("pinflow.approval", body)
            case CancelRequested():
                body = {"by": event.by, "reason": event.reason, "id": "1"}
                await handle.signal("pinflow.cancel", body)
            case SignalReceived():
                names = ("id", "name", "payload", "correlation", "task", "by")
                await handle.signal("pinflow.signal", {name: getattr(event, name) for name in names})
            case _:
                raise AssertionError(f"nobody outside says {event}")

    def _played(self, execution_id: str, began: float) -> Played:
        played = Played(self._records[execution_id], began)
        for run, record in self._records.items():
            for task in record["tasks"]:
                played.tasks[self._prefixes[run] + task["id"]] = task
        for task in self._sliced:
            played.tasks.setdefault(task["id"], task)
        return played

    # --- doubles --------------------------------------------------------------------------------------------------

    def _doubles(self) -> list[Callable[..., Any]]:
        @activity.defn(name="pinflow.request_approval")
        async def request_approval(raw: dict[str, Any]) -> dict[str, Any]:
            now = activity.info().scheduled_time.timestamp()
            request = Request(raw["task"], f"id-{raw['task']}", raw["config"], now)
            self._requests[raw["execution_id"], raw["task"]] = request
            self._moved.set()
            return {"approval_id": request.id, "requested_at": now, "deadline": request.deadline}

        @activity.defn(name="pinflow.close_approval")
        async def close_approval(raw: dict[str, Any]) -> dict[str, Any]:
            request = self._requests[raw["execution_id"], raw["task"]]
            request.close(raw["why"], activity.info().scheduled_time.timestamp())
            deadline = request.deadline if request.outcome == "PENDING" else None
            return {"outcome": request.outcome, "decisions": request.decisions, "deadline": deadline}

        @activity.defn(name="pinflow.record_run")
        async def record_run(raw: dict[str, Any]) -> None:
            self._records[raw["execution_id"]] = raw
            self._slots.release_all(raw["execution_id"])

        @activity.defn(name="pinflow.record_tasks")
        async def record_tasks(raw: dict[str, Any]) -> None:
            self._sliced += raw["tasks"]

        @activity.defn(name="pinflow.open_run")
        async def open_run(raw: dict[str, Any]) -> dict[str, Any]:
            parent = raw["parent"]
            self._prefixes[raw["execution_id"]] = f"{self._prefixes[parent['execution_id']]}{parent['task']}."
            self._moved.set()
            return {"error": None}

        @activity.defn(name="pinflow.acquire_slot")
        async def acquire_slot(raw: dict[str, Any]) -> dict[str, str]:
            owner = f"{raw['execution_id']}/{raw['task']}"
            holder = activity.info().workflow_id or ""
            at_once: list[bool] = []
            waiting: list[bool] = []

            def granted() -> None:
                if waiting:
                    self._later(self._grant(holder, raw["task"]))
                at_once.append(True)

            self._slots.acquire(raw["group"], owner, raw["limit"], granted)
            waiting.append(True)
            return {"standing": "HELD" if at_once else "WAITING"}

        @activity.defn(name="pinflow.release_slot")
        async def release_slot(raw: dict[str, Any]) -> None:
            self._slots.release(f"{raw['execution_id']}/{raw['task']}")

        @activity.defn(name="http_request")
        async def http_request(raw: dict[str, Any]) -> dict[str, Any]:
            return self._perform(raw)

        @activity.defn(name="python_function")
        async def python_function(raw: dict[str, Any]) -> dict[str, Any]:
            return self._perform(raw)

        return [
            request_approval,
            close_approval,
            record_run,
            record_tasks,
            open_run,
            acquire_slot,
            release_slot,
            http_request,
            python_function,
        ]

    async def _grant(self, holder: str, task: str) -> None:
        handle = self._client.get_workflow_handle(holder)
        await handle.signal("pinflow.slot", {"task": task, "granted": True})

    def _later(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tell.add(task)
        task.add_done_callback(self._tell.discard)

    def _perform(self, raw: dict[str, Any]) -> dict[str, Any]:
        attempt = activity.info().attempt
        address = self._prefixes[raw["execution_id"]] + raw["task"]
        mock = self._case.mocks.of(address)
        assert mock is not None, address
        # Of a child that is tried again the list goes on, as it does offline.
        before = self._asked.get(address, 0) if attempt == 1 else self._asked[address] - attempt + 1
        self._asked[address] = before + attempt
        answer = mock.answer(before + attempt)
        assert answer is not None, (address, before, attempt)
        if answer.cached:
            return {"result": answer.result, "attempt": attempt, "cached_from": "test"}
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


def _failure(raw: dict[str, Any], answer: Answer, attempt: int) -> tuple[TaskError | None, bool]:
    if answer.error is not None:
        return TaskError(answer.error.type, answer.error.message), answer.error.retryable
    problem = judge_result(judgement(raw.get("success_when")), answer.result, attempt)
    return problem, problem is None or problem.type != EXPRESSION
