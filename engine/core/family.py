"""The workflows that a run has open beside its own: children, and slices of its large maps.

Each is a workflow of its own under an id that is always the same, so that it is started once whoever starts it. A run
that goes on in a fresh history finds them there by that id: Temporal says nothing of their end to it any more, so it
asks, by an activity whose retries cost the history nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

from temporalio import workflow
from temporalio.common import (
    RawValue,
    RetryPolicy,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    TerminatedError,
    TimeoutError,
    WorkflowAlreadyStartedError,
)
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from engine.core.contracts import (
    CancelChild,
    CancelSlice,
    ChildEnded,
    DrainSlice,
    Event,
    Json,
    RunStart,
    SliceEnded,
    StartChild,
    StartSlice,
    TaskError,
    TellFamily,
)
from engine.core.run_state import error_from_json, start_to_json
from engine.core.wire import (
    AWAIT_WORKFLOW,
    CANCEL_SIGNAL,
    COMMIT_SHA,
    DIGEST,
    DRAIN_SIGNAL,
    PAUSE_SIGNAL,
    RESUME_SIGNAL,
    SOURCE,
    definition_reference,
    large,
    payload,
    slice_id,
)

SMALL: Final = 1_024
"""Bytes of a start that stand in the parent's history; larger ones stand outside, as there may be many of them."""

WORDS_TO_THE_FAMILY: Final = "words-to-the-family"
"""The patch since which slices are drained, and second cancels go on to children and to what undoes a slice."""

_ASK: Final = RetryPolicy(
    initial_interval=timedelta(seconds=0.5), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=10)
)
"""How often an adopted member is asked whether it has ended: without end, and free of events."""

RunEnd: TypeAlias = Literal["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
Ending: TypeAlias = tuple[RunEnd, Json, TaskError | None]
_ENDED_AS: Final[dict[str, RunEnd]] = {"RunTimedOut": "TIMED_OUT", "RunCancelled": "CANCELLED"}


class _Member:
    """One open workflow. `handle` is there once Temporal has started it for us, `adopted` if it ran already."""

    def __init__(self, id: str, *, undoes: bool = False) -> None:
        self.id = id
        self.undoes = undoes
        self.handle: Any = None
        self.adopted = False
        self.cancels: list[str] = []
        self.words: list[tuple[str, Json]] = []

    @property
    def reachable(self) -> bool:
        return self.handle is not None or self.adopted


class Family:
    """Starts, cancels and tells the members of one run.

    `deliver` is called, inside the workflow, with each piece of news, after `began` (a new workflow task has begun).
    """

    def __init__(
        self,
        start: RunStart,
        definition: RawValue,
        deliver: Callable[[Callable[[], Event | None]], None],
        began: Callable[[], None],
    ) -> None:
        self._start = start
        self._definition = definition
        self._deliver = deliver
        self._began = began
        self._members: dict[tuple[str, int], _Member] = {}
        self._calls = 0
        self._running: set[asyncio.Future[Any]] = set()

    @property
    def settling(self) -> int:
        """Starts, signals and cancels that Temporal has not yet answered: a fresh history would lose the answer."""
        return self._calls + sum(not member.reachable for member in self._members.values())

    # --- children ---------------------------------------------------------------------------------------------------

    def start_child(self, command: StartChild) -> None:
        """Start the child run of a task, or find it there."""
        pin = command.start.pin
        member = _Member(command.start.execution_id)
        self._members[command.task, _CHILD] = member

        def begin() -> Awaitable[Any]:
            return self._begin(
                member,
                command.start,
                definition_reference(pin.compiled_digest, command.size),
                command.summary,
            )

        def ended(ending: Ending) -> Event:
            status, outputs, error = ending
            error = (
                None if error is None else TaskError(error.type, error.message, command.task, error.details)
            )
            return ChildEnded(command.task, command.attempt, status, outputs, error, workflow.time())

        self._under_way(self._live((command.task, _CHILD), member, begin, ended))

    def cancel_child(self, command: CancelChild) -> None:
        """Ask the child of a task to end; a second time, to leave out its clean-up."""
        self._cancel((command.task, _CHILD), command.reason)

    # --- slices -----------------------------------------------------------------------------------------------------

    def start_slice(self, command: StartSlice) -> None:
        """Run or undo a part of a map, in the name of this run."""
        part = command.start.slice
        assert part is not None
        undoes = part.undo is not None
        id = slice_id(command.start.execution_id, command.task, part.offset, undo=undoes)
        member = _Member(id, undoes=undoes)
        key = (command.task, part.offset)
        self._members[key] = member

        def begin() -> Awaitable[Any]:
            return self._begin(member, command.start, self._definition, command.summary)

        def ended(ending: Ending) -> Event:
            return _slice_ended(command.task, part.offset, len(part.items), ending, workflow.time())

        self._under_way(self._live(key, member, begin, ended))

    def cancel_slice(self, command: CancelSlice) -> None:
        """Ask a slice to end."""
        self._cancel((command.task, command.offset), "")

    def drain_slice(self, command: DrainSlice) -> None:
        """Have a slice begin no further items."""
        member = self._members.get((command.task, command.offset))
        if member is not None and workflow.patched(WORDS_TO_THE_FAMILY):
            self._say(member, DRAIN_SIGNAL, {})

    # --- all --------------------------------------------------------------------------------------------------------

    def tell(self, command: TellFamily) -> None:
        """Hand a pause or its end on to everybody who is open."""
        signal = PAUSE_SIGNAL if command.what == "pause" else RESUME_SIGNAL
        body = {"by": command.by, "reason": command.reason, "id": str(workflow.uuid4())}
        for member in self._members.values():
            self._say(member, signal, body)

    def _say(self, member: _Member, signal: str, body: Json) -> None:
        if not member.reachable:
            member.words.append((signal, body))
            return
        handle = workflow.get_external_workflow_handle(member.id)
        self._call(handle.signal(signal, payload(body)))

    def _cancel(self, key: tuple[str, int], reason: str) -> None:
        member = self._members.get(key)
        if member is None:
            return
        new = member.cancels and (key[1] == _CHILD or member.undoes)
        if new and not workflow.patched(WORDS_TO_THE_FAMILY):
            return
        member.cancels.append(reason)
        if member.reachable:
            self._send_cancel(member, len(member.cancels))

    def _send_cancel(self, member: _Member, number: int) -> None:
        by, reason = f"run {self._start.execution_id}", member.cancels[number - 1]
        why = json.dumps({"by": by, "reason": reason}, ensure_ascii=False)
        if number > 1:  # Temporal takes a cancel once
            body = {"by": by, "reason": reason, "id": f"{by}/{number}"}
            self._say(member, CANCEL_SIGNAL, body)
        elif member.handle is not None:
            member.handle.cancel(why)
        else:
            self._call(workflow.get_external_workflow_handle(member.id).cancel(reason=why))

    # --- the life of a member -----------------------------------------------------------------------------------------

    def _begin(
        self,
        member: _Member,
        start: RunStart,
        definition: RawValue,
        summary: str,
    ) -> Awaitable[Any]:
        pin = start.pin
        attributes = TypedSearchAttributes(
            [
                SearchAttributePair(COMMIT_SHA, pin.commit_sha),
                SearchAttributePair(DIGEST, pin.digest),
                SearchAttributePair(SOURCE, pin.source),
            ]
        )
        return workflow.start_child_workflow(
            pin.workflow,
            args=[definition, large(start_to_json(start), SMALL)],
            id=member.id,
            # Any other policy ends it when its parent begins a fresh history. Whom a parent leaves behind that was
            # ended from outside, the reconciler ends.
            parent_close_policy=ParentClosePolicy.ABANDON,
            cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
            # Also one that has ended: it must not run a second time.
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=attributes,
            static_summary=summary or None,
        )

    async def _live(
        self,
        key: tuple[str, int],
        member: _Member,
        begin: Callable[[], Awaitable[Any]],
        ended: Callable[[Ending], Event],
    ) -> None:
        ending: Ending
        try:
            member.handle = await begin()
        except WorkflowAlreadyStartedError:
            member.adopted = True
            self._catch_up(member)
            ending = await self._asked(member)
        except (FailureError, RuntimeError) as error:
            ending = "FAILED", None, TaskError("START_FAILED", f"Temporal did not start it: {error}")
        else:
            self._catch_up(member)
            ending = await _ending_of(member.handle)
        self._began()
        if self._members.get(key) is member:
            del self._members[key]
        self._deliver(lambda: ended(ending))

    def _catch_up(self, member: _Member) -> None:
        for number in range(1, len(member.cancels) + 1):
            self._send_cancel(member, number)
        words, member.words = member.words, []
        for signal, body in words:
            self._say(member, signal, body)

    async def _asked(self, member: _Member) -> Ending:
        try:
            said = await workflow.start_activity(
                AWAIT_WORKFLOW,
                {"workflow_id": member.id},
                start_to_close_timeout=timedelta(seconds=30),
                retry_policy=_ASK,
                activity_id=f"await {member.id}",
                summary=f"the end of {member.id}",
            )
        except ActivityError as error:  # a worker that does not know how: nobody will ever tell us
            return "FAILED", None, TaskError("LOST", f"its end cannot be asked for: {error.cause or error}")
        return said["status"], said["outputs"], error_from_json(said["error"])

    def _under_way(self, life: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(life)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _call(self, call: Coroutine[Any, Any, Any] | Awaitable[Any]) -> None:
        """A signal or cancel. That its receiver is gone is no trouble: the end of it is on its way to us."""

        async def quietly() -> None:
            try:
                await call
            except (FailureError, RuntimeError) as error:
                workflow.logger.info("not heard: %s", error)
            finally:
                self._calls -= 1

        self._calls += 1
        self._under_way(quietly())


_CHILD: Final = -1
"""Where a slice has its offset."""


async def _ending_of(handle: Any) -> Ending:
    try:
        return "COMPLETED", await handle, None
    except ChildWorkflowError as error:
        return _failed(error.cause)
    except CancelledError:
        return "CANCELLED", None, None


def _failed(cause: BaseException | None) -> Ending:
    if isinstance(cause, CancelledError):
        return "CANCELLED", None, TaskError("RunCancelled", cause.message or "cancelled")
    if isinstance(cause, TimeoutError):
        return "TIMED_OUT", None, TaskError("RunTimedOut", "Temporal's own limit for the run has passed")
    if isinstance(cause, TerminatedError):
        return "FAILED", None, TaskError("Terminated", f"terminated through Temporal: {cause.message}")
    if isinstance(cause, ApplicationError):
        type_ = cause.type or "WorkflowFailure"
        told = cause.details[0] if cause.details and isinstance(cause.details[0], dict) else {}
        error = TaskError(type_, cause.message, str(told.get("task") or ""), told.get("details"))
        return _ENDED_AS.get(type_, "FAILED"), None, error
    return "FAILED", None, TaskError("WorkflowFailure", str(cause))


def _slice_ended(task: str, offset: int, items: int, ending: Ending, at: float) -> SliceEnded:
    status, said, error = ending
    if status == "COMPLETED":
        return SliceEnded(
            task=task,
            offset=offset,
            status=said["status"],
            results=said["results"],
            failures=said["failures"],
            error=error_from_json(said["error"]),
            undo=said["undo"],
            at=at,
            ended=said.get("ended"),
        )
    # It was ended from outside: nobody knows what its items did.
    wanted = status == "CANCELLED"
    why = error or TaskError("CANCELLED", "the slice was cancelled from outside")
    return SliceEnded(task, offset, "CANCELLED" if wanted else "FAILED", [None] * items, [], why, None, at)
