"""The Temporal driver of the brain: one dynamic workflow class, whatever the definition.

It performs commands, feeds back events, answers queries from the state, and continues as new when history grows.
It runs outside of the SDK's sandbox: determinism is held by the import contract, by lint and by replayed histories.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError

from engine.core import contracts
from engine.core.contracts import (
    CancelRequested,
    Command,
    Event,
    FinishRun,
    FinishSlice,
    Json,
    PauseRequested,
    ResumeRequested,
    RunStart,
    SignalReceived,
    SliceDrained,
    Started,
    TaskError,
)
from engine.core.plan import Plan
from engine.core.run_state import error_from_json, error_to_json, start_from_json, start_to_json
from engine.core.state_machine import Brain
from engine.core.states import TASK_ENDS
from engine.core.task_executor import TaskExecutor
from engine.core.task_runner import News
from engine.core.translation import error_of, failure, resolution, slot_news
from engine.core.wire import (
    APPROVAL_SIGNAL,
    CANCEL_SIGNAL,
    DEFINITION,
    DRAIN_SIGNAL,
    INLINE,
    MARK,
    OPEN_RUN,
    PAUSE_SIGNAL,
    RECORD_RUN,
    RECORD_TASKS,
    RESUME_SIGNAL,
    SIGNAL_SIGNAL,
    SLOT_SIGNAL,
    SNAPSHOT_QUERY,
    definition_reference,
    large,
    payload,
)

INTERNAL: Final = "INTERNAL"

ANSWER_BYTES: Final = 2_000_000
"""Above it, a snapshot leaves out the outputs, and then tasks: Temporal carries answers of 4 MiB at most."""
SMALL: Final = 1_024
"""Bytes of a record or a slice's result that stand in a history themselves."""
CALM_EVENTS: Final = 2_000
"""Events since the last fresh start before a new one is thought of, so that a run can never only begin anew."""
DRAIN_EVENTS: Final = 4_800
"""Events that a history may come to by what is under way: nothing new is started until a fresh start is possible."""
EVENTS_BACK: Final = 5
"""Events at most for the end of one activity: started, completed, and a workflow task of its own."""
LONG_DRAIN_EVENTS: Final = 20_000
"""The same while an activity is out that nobody should wait for. Temporal's end is at 51,200."""
OLD_DRAIN_EVENTS: Final = 10_000
"""As it was before `SHORT_HISTORIES`: runs of then go on as they began."""
SHORT_HISTORIES: Final = "short-histories"
SETTLED_SLICES: Final = "settled-slices"
"""The patch since which a slice ends only when its slots are given back."""


@workflow.defn(dynamic=True, sandboxed=False)
class WorkflowEngineWorkflow:
    """A run. Arguments: the compiled definition, `RunStart` as JSON, and after a fresh start the brain's state."""

    def __init__(self) -> None:
        self._brain: Brain | None = None
        self._news: deque[News] = deque()
        self._finish: FinishRun | FinishSlice | None = None
        self._executor: TaskExecutor | None = None
        self._cancel_seen = False
        self._began_with = 0
        self._draining = False

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        """Until the run ends; its result are the run's outputs, that of a slice what its run needs of it."""
        start: RunStart | None = None
        finish: FinishRun | FinishSlice | None
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
            finish = _broken(start, TaskError(INTERNAL, f"{type(error).__name__}: {error}"[:2000]))
        if isinstance(finish, FinishSlice):
            assert start is not None
            if self._brain is not None and self._brain.over:
                await self._settle()
            await self._record_slice(start)
            return large(_slice_result(finish), SMALL)
        if start is not None:
            await self._record(start.execution_id, finish)
        return self._end(finish)

    # --- signals and queries --------------------------------------------------------------------------------------

    @workflow.signal(name=APPROVAL_SIGNAL)
    def approval(self, body: RawValue) -> None:
        """An approval request was resolved, or escalated: `{task, approval_id, outcome, decisions, deadline}`."""
        self._hear(APPROVAL_SIGNAL, body, resolution)

    @workflow.signal(name=CANCEL_SIGNAL)
    def cancel(self, body: RawValue) -> None:
        """Somebody wants the run to end: `{by, reason, id}`; a repeat with the same `id` is no second request."""
        self._hear(
            CANCEL_SIGNAL,
            body,
            lambda said, at: CancelRequested(_text(said, "by"), _text(said, "reason"), at, _text(said, "id")),
        )

    @workflow.signal(name=PAUSE_SIGNAL)
    def pause(self, body: RawValue) -> None:
        """Nothing new is to be started: `{by, reason, id}`."""
        self._hear(
            PAUSE_SIGNAL,
            body,
            lambda said, at: PauseRequested(_text(said, "by"), _text(said, "reason"), at, _text(said, "id")),
        )

    @workflow.signal(name=RESUME_SIGNAL)
    def resume(self, body: RawValue) -> None:
        """The end of a pause: `{by, id}`."""
        self._hear(
            RESUME_SIGNAL,
            body,
            lambda said, at: ResumeRequested(_text(said, "by"), at, _text(said, "id")),
        )

    @workflow.signal(name=SIGNAL_SIGNAL)
    def signalled(self, body: RawValue) -> None:
        """A signal for a task of the run: `{id, name, payload, correlation, task, by}`."""
        self._hear(
            SIGNAL_SIGNAL,
            body,
            lambda said, at: SignalReceived(
                str(said["id"]),
                _text(said, "name"),
                said.get("payload"),
                at,
                _text(said, "correlation"),
                _text(said, "task"),
                _text(said, "by"),
            ),
        )

    @workflow.signal(name=SLOT_SIGNAL)
    def slot(self, body: RawValue) -> None:
        """A concurrency group has room now: `{task, granted: true}`, or has not: `{task, error}`."""
        self._hear(SLOT_SIGNAL, body, slot_news)

    @workflow.signal(name=DRAIN_SIGNAL)
    def drain(self, body: RawValue) -> None:
        """Of a slice: no further items are to be begun."""
        self._hear(DRAIN_SIGNAL, body, lambda _, at: SliceDrained(at))

    def _hear(self, name: str, body: RawValue, read: Callable[[Any, float], Event]) -> None:
        """Take a signal. One that makes no sense must not end the run: anybody who reaches Temporal can send it."""
        try:
            event = read(_json(body.payload), workflow.time())
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            workflow.logger.warning("signal %s makes no sense: %s", name, error)
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
        answer = payload(standing, INLINE)
        if len(answer.payload.data) > ANSWER_BYTES:
            answer = payload(_slim(standing), INLINE)
        return answer

    # --- the loop -------------------------------------------------------------------------------------------------

    async def _drive(self, start: RunStart, args: Sequence[RawValue]) -> None:
        plan = _plan(args[0].payload.data)
        state = _json(args[2].payload) if len(args) > 2 else None
        if state is None and start.parent is not None and start.slice is None:
            opened = await self._open_row(start)
            if isinstance(opened, TaskError):
                self._finish = FinishRun("FAILED", None, opened)
                return
            start = opened
        brain = self._brain = Brain(plan, state)
        self._executor = TaskExecutor(start, _reference(args[0], start), self._news.append)
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
            self._executor.runner.workflow_task_began()
        self._news.append(news)

    def _perform(self, commands: Sequence[Command]) -> None:
        assert self._executor is not None
        for command in commands:
            if isinstance(command, FinishRun | FinishSlice):
                self._finish = command
            else:
                self._executor.perform(command)

    # --- a fresh history ------------------------------------------------------------------------------------------

    def _continue_as_new_if_due(self, brain: Brain, args: Sequence[RawValue]) -> None:
        """Begin a fresh history before this one grows long. Children and slices live on: see `family.py`."""
        info = workflow.info()
        length = info.get_current_history_length()
        if not self._began_with:
            self._began_with = length
        assert self._executor is not None
        recorded = length - self._began_with
        grown = recorded + self._executor.runner.unrecorded
        if grown < CALM_EVENTS:
            return
        # Once nothing new is started there is no way back: what was feared for the history's length need not come.
        full = self._draining = self._draining or self._is_full(grown, self._executor)
        if not full and (recorded < CALM_EVENTS or not info.is_continue_as_new_suggested()):
            return
        if full:
            brain.hold()
        if self._executor.under_way == 0 and not self._news:
            start = start_from_json(_json(args[1].payload))
            workflow.continue_as_new(args=[_reference(args[0], start), args[1], payload(brain.to_json())])

    def _is_full(self, grown: int, executor: TaskExecutor) -> bool:
        if not workflow.patched(SHORT_HISTORIES):
            return grown - executor.runner.unrecorded >= OLD_DRAIN_EVENTS
        limit = LONG_DRAIN_EVENTS if executor.runner.long_work else DRAIN_EVENTS
        return grown + EVENTS_BACK * executor.under_way >= limit

    # --- the rows in Postgres -------------------------------------------------------------------------------------

    async def _open_row(self, start: RunStart) -> RunStart | TaskError:
        """A child's own row, and what the run begins with: its inputs have their defaults then. Or why it does not."""
        done = await self._done(OPEN_RUN, start_to_json(start), "open the row of the run")
        error = error_of(done)
        if error is not None:
            return failure(error, contracts.RetryPolicy())[0]
        said = done.result()
        if said["error"] is not None:
            return error_from_json(said["error"]) or TaskError(INTERNAL, "no reason given")
        return replace(start, inputs=said.get("inputs", start.inputs))

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
        await self._done(RECORD_RUN, body, "record the end of the run")

    async def _settle(self) -> None:
        """Wait until the slots of a slice's last tasks are given back.

        Temporal forgets what is asked for in the very answer that ends a workflow, and the run itself goes on: its
        record, which gives back everything, may be days away.
        """
        executor = self._executor
        if executor is not None and executor.under_way and workflow.patched(SETTLED_SLICES):
            await self._until(lambda: executor.under_way == 0)

    async def _record_slice(self, start: RunStart) -> None:
        """Have what the slice knows of its tasks written to Postgres, as part of its run."""
        assert start.slice is not None
        tasks = [] if self._brain is None else self._brain.snapshot()["tasks"]
        if tasks:
            body = {"execution_id": start.execution_id, "offset": start.slice.offset, "tasks": tasks}
            await self._done(RECORD_TASKS, body, "record the tasks of the slice")

    async def _done(self, name: str, body: Json, summary: str) -> Any:
        """Have an activity of ours done: at once if that goes well, else however long Postgres is away. Its handle."""
        quick = workflow.start_local_activity(
            name,
            payload(body, INLINE),
            start_to_close_timeout=timedelta(seconds=2),
            schedule_to_close_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=0.1), maximum_attempts=3),
            activity_id=name,
        )
        if await self._ended_well(quick):
            return quick
        patient = workflow.start_activity(
            name,
            large(body, SMALL),
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=15)
            ),
            activity_id=name,
            summary=summary,
        )
        await self._ended_well(patient)
        return patient

    async def _ended_well(self, handle: Any) -> bool:
        # Not awaited directly: a cancel of the run would be handed on to it.
        await self._until(handle.done)
        return not handle.cancelled() and handle.exception() is None

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            try:
                await workflow.wait_condition(condition)
            except asyncio.CancelledError:
                if not self._take_cancel():
                    raise

    # --- the end --------------------------------------------------------------------------------------------------

    def _end(self, finish: FinishRun) -> Json:
        if finish.status == "COMPLETED":
            return finish.outputs
        if finish.status == "CANCELLED" and workflow.cancellation_reason() is not None:
            raise asyncio.CancelledError
        error = finish.error or TaskError(INTERNAL, f"the run ended {finish.status} without an error")
        raise ApplicationError(error.message, error_to_json(error), type=error.type, non_retryable=True)


def _broken(start: RunStart | None, error: TaskError) -> FinishRun | FinishSlice:
    if start is not None and start.slice is not None:
        return FinishSlice("FAILED", [None] * len(start.slice.items), [], error, None)
    return FinishRun("FAILED", None, error)


def _slice_result(finish: FinishSlice) -> Json:
    return {
        "status": finish.status,
        "results": finish.results,
        "failures": finish.failures,
        "error": error_to_json(finish.error),
        "undo": finish.undo,
        "ended": finish.ended,
    }


def _slim(standing: dict[str, Json]) -> dict[str, Json]:
    """A snapshot that Temporal can carry: without outputs, and if need be only with the tasks that come first."""
    tasks = [task | {"outputs": None} for task in standing["tasks"]]
    room = ANSWER_BYTES
    kept: list[Json] = []
    # What is under way comes before what is over.
    for task in sorted(tasks, key=lambda task: task["status"] in TASK_ENDS):
        room -= len(json.dumps(task, ensure_ascii=False).encode()) + 1
        if room < 0:
            break
        kept.append(task)
    left_out = len(tasks) - len(kept)
    if left_out:
        names = {task["id"] for task in kept}
        kept = [task for task in tasks if task["id"] in names]
    slim = standing | {"tasks": kept, "outputs": None, "outputs_left_out": True}
    return slim | ({"tasks_left_out": left_out} if left_out else {})


@lru_cache(maxsize=64)
def _plan(definition: bytes) -> Plan:
    """The index of a compiled definition; runs of one definition share it, as it never changes."""
    return Plan(json.loads(definition))


def _reference(definition: RawValue, start: RunStart) -> RawValue:
    """The definition to pass on: by reference if it came from the registry, so that no history carries it."""
    made = definition.payload
    if made.metadata.get(MARK) != DEFINITION:
        return definition
    return definition_reference(start.pin.compiled_digest, len(made.data))


def _who_and_why(reason: str) -> tuple[str, str]:
    """From Temporal's cancel: our own JSON, or the free text of somebody who used Temporal's tools."""
    try:
        said = json.loads(reason)
        return str(said["by"]), str(said["reason"])
    except (ValueError, TypeError, KeyError):
        return "temporal", reason


def _text(said: Any, name: str) -> str:
    return str(said.get(name) or "")


def _json(content: Payload) -> Any:
    return json.loads(content.data)
