"""The only Temporal client: connect, start, signal, cancel, query, describe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, timedelta
from typing import Any

from temporalio.api.common.v1 import Payload, Payloads, SearchAttributes, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import (
    EventType,
    HistoryEventFilterType,
    IndexedValueType,
    WorkflowExecutionStatus,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
)
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.sdk.v1 import UserMetadata
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
    ListWorkflowExecutionsRequest,
    QueryWorkflowRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client, GrpcCompression, RetryConfig
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from engine.core import wire
from engine.core.contracts import Json, TaskError
from engine.core.run_state import start_to_json
from engine.core.wire import CANCEL_SIGNAL, SNAPSHOT_QUERY
from engine.errors import Misconfigured, NotFound, Unavailable
from engine.executor.door import translated
from engine.executor.payloads import EXTERNAL_ABOVE, definition_reference
from engine.executor.runs import RemoteRun, RemoteStatus, Snapshot, StartRequest

COMMIT_SHA = wire.COMMIT_SHA.name
DIGEST = wire.DIGEST.name
SOURCE = wire.SOURCE.name

_STATUS: dict[int, RemoteStatus] = {
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED: "COMPLETED",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_FAILED: "FAILED",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CANCELED: "CANCELLED",
    # Somebody ended it from outside, with no clean-up: not what "cancelled" promises.
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED: "FAILED",
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TIMED_OUT: "TIMED_OUT",
}
# Ends that Temporal knows only as a failure, by the type of the error.
_ENDED_AS: dict[str, RemoteStatus] = {"RunTimedOut": "TIMED_OUT", "RunCancelled": "CANCELLED"}
_PAUSED = 8
"""Paused through Temporal's own API.  The SDK's `describe` and `list_workflows` raise on it, hence the raw RPCs."""

_WORD = 4 * 1024
"""Bytes of a signal that stand in the history itself: thousands of larger ones would end the run at Temporal's 50 MB."""

_CALL_LIMIT = 5.0
"""Seconds for one call, the SDK's own retries included; an API caller hears of an absent Temporal within it."""
_RPC_TIMEOUT = timedelta(seconds=4)
_CONNECT_LIMIT = 10.0


class TemporalWorkflowExecutor:
    """Runs on Temporal, addressed by execution id. Safe to share; one per process.

    Every method raises `Unavailable` when Temporal is away and `NotFound` when it knows no such run (or, for a signal
    and a cancel, no open one).  `away` says why Temporal was not there at the last call or look, "" if it was.
    """

    def __init__(self, client: Client, *, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue
        self._attributes_ready = False
        self.away = ""

    @classmethod
    async def connect(
        cls, address: str, *, namespace: str, task_queue: str, converter: DataConverter, lazy: bool = True
    ) -> TemporalWorkflowExecutor:
        """An executor that connects at its first call, and by itself again after every absence.

        A worker cannot use such a client: with `lazy=False` the connection is made now, or `Unavailable` raised.
        """
        async with translated(f"connection to {address}", _CONNECT_LIMIT):
            client = await Client.connect(
                address,
                namespace=namespace,
                data_converter=converter,
                lazy=lazy,
                retry_config=RetryConfig(max_elapsed_time_millis=2000),
                # Requests are references and small JSON: compressing them costs more than it saves.
                grpc_compression=GrpcCompression.NONE,
            )
        return cls(client, task_queue=task_queue)

    @property
    def client(self) -> Client:
        """The connection, for a worker in the same process."""
        return self._client

    @property
    def task_queue(self) -> str:
        """Where our workers listen."""
        return self._task_queue

    # --- writes -------------------------------------------------------------------------------------------------

    async def start(self, request: StartRequest) -> None:
        """Start the run, once: a repeat, at any time within Temporal's retention, finds it there and is a success."""
        await self.ensure_search_attributes()
        try:
            await self._start(request)
        except Misconfigured:
            # A server that was wiped or replaced has lost our search attributes.
            self._attributes_ready = False
            await self.ensure_search_attributes()
            await self._start(request)

    async def _start(self, request: StartRequest) -> None:
        start = request.start
        pin = start.pin
        body = _json_value(start_to_json(start)).payload
        async with self._call(f"start of {start.execution_id}"):
            if body.ByteSize() > EXTERNAL_ABOVE:
                (body,) = await self._client.data_converter.encode([RawValue(body)])
            try:
                # Built by hand: the SDK's way to the same request costs a third of a start's CPU.
                await self._client.workflow_service.start_workflow_execution(
                    StartWorkflowExecutionRequest(
                        namespace=self._client.namespace,
                        workflow_id=start.execution_id,
                        request_id=start.execution_id,
                        workflow_type=WorkflowType(name=pin.workflow),
                        task_queue=TaskQueue(name=self._task_queue),
                        input=Payloads(
                            payloads=[definition_reference(pin.compiled_digest, request.size).payload, body]
                        ),
                        identity=self._client.service_client.config.identity,
                        workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
                        workflow_id_reuse_policy=WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
                        search_attributes=SearchAttributes(
                            indexed_fields={
                                COMMIT_SHA: _keyword(pin.commit_sha),
                                DIGEST: _keyword(pin.digest),
                                SOURCE: _keyword(pin.source),
                            }
                        ),
                        user_metadata=UserMetadata(summary=_json_value(request.title).payload)
                        if request.title
                        else None,
                    ),
                    retry=True,
                    timeout=_RPC_TIMEOUT,
                )
            except RPCError as error:
                if error.status != RPCStatusCode.ALREADY_EXISTS:
                    raise
                # It ran and is closed: what was promised has happened.

    async def signal(self, workflow_id: str, name: str, body: Json) -> None:
        """Tell a run, or a slice of its map, something by one of the signals of `core/wire.py`."""
        async with self._call(f"{name} for {workflow_id}"):
            handle = self._client.get_workflow_handle(workflow_id)
            await handle.signal(name, wire.large(body, _WORD), rpc_timeout=_RPC_TIMEOUT)

    async def terminate(self, workflow_id: str, *, reason: str) -> None:
        """End a workflow at once, with no clean-up: for what nobody waits for any more."""
        async with self._call(f"end of {workflow_id}"):
            handle = self._client.get_workflow_handle(workflow_id)
            await handle.terminate(reason=reason, rpc_timeout=_RPC_TIMEOUT)

    async def cancel(self, execution_id: str, *, by: str, reason: str) -> None:
        """Ask the run to end. Temporal takes this once per run; its own pages show it."""
        async with self._call(f"cancel of {execution_id}"):
            handle = self._client.get_workflow_handle(execution_id)
            why = json.dumps({"by": by, "reason": reason}, ensure_ascii=False)
            await handle.cancel(reason=why, rpc_timeout=_RPC_TIMEOUT)

    async def cancel_again(self, execution_id: str, *, by: str, reason: str, id: str) -> None:
        """Ask a run that is ending to leave out its clean-up; the same `id` counts once."""
        await self.signal(execution_id, CANCEL_SIGNAL, {"by": by, "reason": reason, "id": id})

    async def ensure_search_attributes(self) -> None:
        """Register our search attributes, once per process: a start with an unknown one is refused."""
        if self._attributes_ready:
            return
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        async with self._call("search attributes"):
            try:
                await self._client.operator_service.add_search_attributes(
                    AddSearchAttributesRequest(
                        namespace=self._client.namespace,
                        search_attributes=dict.fromkeys((COMMIT_SHA, DIGEST, SOURCE), keyword),
                    ),
                    timeout=_RPC_TIMEOUT,
                )
            except RPCError as error:
                if error.status != RPCStatusCode.ALREADY_EXISTS:  # how some servers say that all is well
                    raise
        self._attributes_ready = True

    # --- reads --------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Raise `Unavailable` unless Temporal answers for our namespace within two seconds."""
        async with self._call("health", limit=2.0):
            await self._client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=self._client.namespace), timeout=timedelta(seconds=2)
            )

    async def watch(self, interval: float = 2.0) -> None:
        """Keep `away` true to life, until cancelled."""
        while True:
            try:
                await self.ping()
            except Unavailable:
                pass  # `away` has it
            except Exception as error:
                # Whatever it is, nobody else would look again: callers are refused as long as `away` says so.
                self.away = str(error) or type(error).__name__
            await asyncio.sleep(interval)

    async def snapshot(self, execution_id: str, *, limit: float = 1.0) -> Snapshot:
        """The run's own word on how it stands, within `limit` seconds.

        Raises `Unavailable` also when no worker answers, or while local work hides the run from queries.
        """
        # Not through `_call`: a silent worker says nothing about Temporal.
        async with translated(f"snapshot of {execution_id}", limit):
            response = await self._client.workflow_service.query_workflow(
                QueryWorkflowRequest(
                    namespace=self._client.namespace,
                    execution=WorkflowExecution(workflow_id=execution_id),
                    query=WorkflowQuery(query_type=SNAPSHOT_QUERY),
                ),
                timeout=timedelta(seconds=limit),
            )
        values = await self._values(response.query_result.payloads)
        if response.HasField("query_rejected") or not values:
            raise Unavailable(f"{execution_id} answers no queries now")
        said: dict[str, Any] = values[0]
        return Snapshot(
            status=said["status"],
            tasks=said.get("tasks") or [],
            error=said.get("error"),
            waiting=said.get("waiting") or [],
        )

    async def describe(self, execution_id: str) -> RemoteRun:
        """How Temporal sees the run; with its result or failure once it is closed.

        A result that stands outside and cannot be had is an error of its own: it says nothing about Temporal.
        """
        async with self._call(f"look at {execution_id}"):
            response = await self._client.workflow_service.describe_workflow_execution(
                DescribeWorkflowExecutionRequest(
                    namespace=self._client.namespace, execution=WorkflowExecution(workflow_id=execution_id)
                ),
                timeout=_RPC_TIMEOUT,
            )
            info = response.workflow_execution_info
            status = _STATUS.get(info.status)
            if status is None:
                return RemoteRun("OPEN", paused=int(info.status) == _PAUSED)
            event = await self._close_event(info)
        return await self._closed(status, info, event)

    async def open_runs(self) -> AsyncIterator[set[str]]:
        """The ids of all our open runs, a page at a time. From Temporal's index: may be seconds behind."""
        token = b""
        while True:
            async with self._call("list of open runs", limit=20.0):
                response = await self._client.workflow_service.list_workflow_executions(
                    ListWorkflowExecutionsRequest(
                        namespace=self._client.namespace,
                        page_size=1000,
                        next_page_token=token,
                        query=f"ExecutionStatus = 'Running' AND {DIGEST} IS NOT NULL",
                    ),
                    timeout=timedelta(seconds=15),
                )
            yield {info.execution.workflow_id for info in response.executions}
            token = response.next_page_token
            if not token:
                return

    async def _close_event(self, info: WorkflowExecutionInfo) -> HistoryEvent:
        response = await self._client.workflow_service.get_workflow_execution_history(
            GetWorkflowExecutionHistoryRequest(
                namespace=self._client.namespace,
                execution=info.execution,
                history_event_filter_type=HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT,
            ),
            timeout=_RPC_TIMEOUT,
        )
        return response.history.events[-1] if response.history.events else HistoryEvent()

    async def _closed(
        self, status: RemoteStatus, info: WorkflowExecutionInfo, event: HistoryEvent
    ) -> RemoteRun:
        closed_at = info.close_time.ToDatetime(tzinfo=UTC)
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            values = await self._values(event.workflow_execution_completed_event_attributes.result.payloads)
            return RemoteRun(status, outputs=values[0] if values else None, closed_at=closed_at)
        error = _error_of(event)
        if error is not None:
            status = _ENDED_AS.get(error.type, status)
        return RemoteRun(status, error=error, closed_at=closed_at)

    async def _values(self, payloads: Sequence[Payload]) -> list[Any]:
        return await self._client.data_converter.decode(payloads) if payloads else []

    @asynccontextmanager
    async def _call(self, what: str, limit: float = _CALL_LIMIT) -> AsyncIterator[None]:
        """The door, which also notes whether Temporal was there."""
        try:
            async with translated(what, limit):
                yield
        except Unavailable as error:
            self.away = error.message
            raise
        except (NotFound, Misconfigured):
            self.away = ""
            raise
        self.away = ""


def _json_value(value: Json) -> RawValue:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=data))


def _keyword(value: str) -> Payload:
    return Payload(metadata={"encoding": b"json/plain", "type": b"Keyword"}, data=json.dumps(value).encode())


def _error_of(event: HistoryEvent) -> TaskError | None:
    match event.event_type:
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
            return _error_in(event.workflow_execution_failed_event_attributes.failure)
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
            ended = event.workflow_execution_terminated_event_attributes
            by = f" by {ended.identity}" if ended.identity else ""
            return TaskError(
                "Terminated", f"terminated through Temporal{by}: {ended.reason or 'no reason given'}"
            )
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
            return TaskError("RunTimedOut", "Temporal's own limit for the run has passed")
        case _:
            return None


def _error_in(failure: Failure) -> TaskError:
    type_ = failure.application_failure_info.type if failure.HasField("application_failure_info") else ""
    return TaskError(type_ or failure.source or "WorkflowFailure", failure.message)
