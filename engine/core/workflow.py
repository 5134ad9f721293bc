"""The Temporal driver of the brain: one dynamic workflow class, whatever the definition.

It performs commands, feeds back events, answers queries from the state, and continues as new when history grows.
It runs outside of the SDK's sandbox: determinism is held by the import contract, by lint and by replayed histories.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.sdk.v1 import ExternalStorageReference
from temporalio.common import RawValue, RetryPolicy
from temporalio.converter import JSONProtoPayloadConverter
from temporalio.exceptions import ApplicationError

from engine.core.contracts import CancelRequested, Command, FinishRun, Json, RunStart, Started, TaskError
from engine.core.plan import Plan
from engine.core.run_state import error_to_json, start_from_json
from engine.core.state_machine import Brain
from engine.core.task_executor import MARK, News, TaskExecutor, resolution

SNAPSHOT_QUERY: Final = "pinflow.snapshot"
APPROVAL_SIGNAL: Final = "pinflow.approval"
CANCEL_SIGNAL: Final = "pinflow.cancel"
RECORD_RUN: Final = "pinflow.record_run"
INTERNAL: Final = "INTERNAL"

# The marks (with `MARK` of the task executor) and the driver's name are those of the payload storage; histories carry them, so they are fixed for ever.
_DEFINITION: Final = b"definition"
_INLINE: Final = b"inline"
_DRIVER: Final = "registry"

ANSWER_BYTES: Final = 2_000_000
"""Above it, a snapshot leaves out the outputs: Temporal carries answers of 4 MiB at most."""
CALM_EVENTS: Final = 2_000
"""Events since the last fresh start before a new one is thought of, so that a run can never only begin anew."""
DRAIN_EVENTS: Final = 10_000
"""Events from which on nothing new is started until a fresh start is possible. Temporal's end is at 51,200."""


@workflow.defn(dynamic=True, sandboxed=False)
class WorkflowEngineWorkflow:
    """A run. Arguments: the compiled definition, `RunStart` as JSON, and after a fresh start the brain's state."""

    def __init__(self) -> None:
        self._brain: Brain | None = None
        self._news: deque[News] = deque()
        self._finish: FinishRun | None = None
        self._executor: TaskExecutor | None = None
        self._cancel_seen = False
        self._began_with = 0

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        """Until the run ends; its result are the run's outputs."""
        start: RunStart | None = None
        try:
            start = start_from_json(_json(args[1].payload))
            await self._drive(start, args)
            finish = self._finish
            assert finish is not None
        except MemoryError:
            raise  # the machine's trouble: the workflow task is tried again
        except Exception as error:
            # A bug of ours. Raised as it is, it would fail the workflow task again and again, for ever.
            workflow.logger.exception("the engine failed")
            finish = FinishRun("FAILED", None, TaskError(INTERNAL, f"{type(error).__name__}: {error}"[:2000]))
        if start is not None:
            await self._record(start.execution_id, finish)
        return self._end(finish)

    # --- signals and queries --------------------------------------------------------------------------------------

    @workflow.signal(name=APPROVAL_SIGNAL)
    def approval(self, body: RawValue) -> None:
        """An approval request was resolved, or escalated: `{task, approval_id, outcome, decisions, deadline}`."""
        try:
            event = resolution(_json(body.payload), workflow.time())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            workflow.logger.warning("signal %s makes no sense: %s", APPROVAL_SIGNAL, error)
            return
        self._tell(lambda: event)

    @workflow.signal(name=CANCEL_SIGNAL)
    def cancel(self, body: RawValue) -> None:
        """Somebody wants the run to end: `{by, reason, id}`; a repeat with the same `id` is no second request."""
        try:
            said = _json(body.payload)
            event = CancelRequested(
                str(said.get("by") or ""),
                str(said.get("reason") or ""),
                workflow.time(),
                str(said.get("id") or ""),
            )
        except (TypeError, ValueError, AttributeError) as error:
            workflow.logger.warning("signal %s makes no sense: %s", CANCEL_SIGNAL, error)
            return
        self._tell(lambda: event)

    @workflow.query(name=SNAPSHOT_QUERY)
    def snapshot(self) -> RawValue:
        """How the run stands; see `Brain.snapshot`. Marked so that an answer is never kept outside of the reply."""
        standing: dict[str, Json] = (
            {"status": "PENDING", "error": None, "tasks": [], "waiting": []}
            if self._brain is None
            else self._brain.snapshot()
        )
        answer = _payload(standing, _INLINE)
        if len(answer.payload.data) > ANSWER_BYTES:
            slim = [task | {"outputs": None} for task in standing["tasks"]]
            answer = _payload(standing | {"tasks": slim, "outputs": None, "outputs_left_out": True}, _INLINE)
        return answer

    # --- the loop -------------------------------------------------------------------------------------------------

    async def _drive(self, start: RunStart, args: Sequence[RawValue]) -> None:
        plan = _plan(args[0].payload.data)
        state = _json(args[2].payload) if len(args) > 2 else None
        brain = self._brain = Brain(plan, state)
        self._executor = TaskExecutor(start.execution_id, self._news.append)
        if state is None:
            self._perform(brain.apply(Started(start, workflow.time())))
        else:
            self._perform(brain.resume(workflow.time()))
        while self._finish is None:
            workflow.set_current_details(brain.summary())
            self._continue_as_new_if_due(brain, args)
            await self._wait()
            while self._news and self._finish is None:
                event = self._news.popleft()()
                if event is not None:
                    self._perform(brain.apply(event))

    async def _wait(self) -> None:
        try:
            await workflow.wait_condition(lambda: bool(self._news))
        except asyncio.CancelledError:
            if not self._take_cancel():
                raise

    def _take_cancel(self) -> bool:
        """A cancel of the main task: Temporal's request, once. Anything else (False) is our eviction from the cache."""
        reason = workflow.cancellation_reason()
        if reason is None or self._cancel_seen:
            return False
        self._cancel_seen = True
        by, why = _who_and_why(reason)
        event = CancelRequested(by, why, workflow.time(), "temporal")
        self._tell(lambda: event)
        return True

    def _tell(self, news: News) -> None:
        if self._executor is not None:
            self._executor.workflow_task_began()
        self._news.append(news)

    def _perform(self, commands: Sequence[Command]) -> None:
        assert self._executor is not None
        for command in commands:
            if isinstance(command, FinishRun):
                self._finish = command
            else:
                self._executor.perform(command)

    # --- a fresh history ------------------------------------------------------------------------------------------

    def _continue_as_new_if_due(self, brain: Brain, args: Sequence[RawValue]) -> None:
        info = workflow.info()
        length = info.get_current_history_length()
        if not self._began_with:
            self._began_with = length
        grown = length - self._began_with
        if grown < CALM_EVENTS or not (info.is_continue_as_new_suggested() or grown >= DRAIN_EVENTS):
            return
        if grown >= DRAIN_EVENTS:
            brain.hold()
        if brain.in_flight == 0 and not self._news:
            workflow.continue_as_new(args=[_fresh_reference(args), args[1], _payload(brain.to_json())])

    # --- the end --------------------------------------------------------------------------------------------------

    async def _record(self, execution_id: str, finish: FinishRun) -> None:
        """Have the end of the run written to Postgres: it must not be lost, however long Postgres is away."""
        snapshot = {} if self._brain is None else self._brain.snapshot()
        body = {
            "execution_id": execution_id,
            "status": finish.status,
            "outputs": finish.outputs,
            "error": error_to_json(finish.error),
            "tasks": snapshot.get("tasks", []),
            "finished_at": workflow.time(),
        }
        workflow.set_current_details(finish.status)
        quick = workflow.start_local_activity(
            RECORD_RUN,
            body,
            start_to_close_timeout=timedelta(seconds=2),
            schedule_to_close_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=0.1), maximum_attempts=3),
            activity_id=RECORD_RUN,
        )
        if await self._ended_well(quick):
            return
        patient = workflow.start_activity(
            RECORD_RUN,
            body,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=15)
            ),
            activity_id=RECORD_RUN,
            summary="record the end of the run",
        )
        await self._ended_well(patient)

    async def _ended_well(self, handle: Any) -> bool:
        # Not awaited directly: a cancel of the run would be handed on to it.
        while not handle.done():
            try:
                await workflow.wait_condition(handle.done)
            except asyncio.CancelledError:
                if not self._take_cancel():
                    raise
        return not handle.cancelled() and handle.exception() is None

    def _end(self, finish: FinishRun) -> Json:
        if finish.status == "COMPLETED":
            return finish.outputs
        if finish.status == "CANCELLED" and workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        error = finish.error or TaskError(INTERNAL, f"the run ended {finish.status} without an error")
        raise ApplicationError(error.message, error_to_json(error), type=error.type, non_retryable=True)


@lru_cache(maxsize=64)
def _plan(definition: bytes) -> Plan:
    """The index of a compiled definition; runs of one definition share it, as it never changes."""
    return Plan(json.loads(definition))


def _fresh_reference(args: Sequence[RawValue]) -> RawValue:
    """The definition for a fresh start: by reference if it came from the registry, so that no history carries it."""
    payload = args[0].payload
    if payload.metadata.get(MARK) != _DEFINITION:
        return args[0]
    digest = start_from_json(_json(args[1].payload)).pin.compiled_digest
    reference = JSONProtoPayloadConverter().to_payload(
        ExternalStorageReference(driver_name=_DRIVER, claim_data={"digest": digest})
    )
    assert reference is not None
    reference.external_payloads.add().size_bytes = len(payload.data)
    return RawValue(reference)


def _who_and_why(reason: str) -> tuple[str, str]:
    """From Temporal's cancel: our own JSON, or the free text of somebody who used Temporal's tools."""
    try:
        said = json.loads(reason)
        return str(said["by"]), str(said["reason"])
    except (ValueError, TypeError, KeyError):
        return "temporal", reason


def _json(payload: Payload) -> Any:
    return json.loads(payload.data)


def _payload(value: Json, mark: bytes = b"") -> RawValue:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    metadata = {"encoding": b"json/plain"} | ({MARK: mark} if mark else {})
    return RawValue(Payload(metadata=metadata, data=data))
