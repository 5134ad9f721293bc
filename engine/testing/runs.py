"""One run of a case: performs the commands of its brain in skipped time, and feeds back what comes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from engine.core.approvals import Circumstances, approval_id
from engine.core.contracts import (
    AcquireSlot,
    ActivityCall,
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityOutcome,
    ApprovalRequested,
    CancelActivity,
    CancelChild,
    CancelRequested,
    CancelSlice,
    CancelTimer,
    ChildEnded,
    CloseApproval,
    Command,
    DrainSlice,
    Event,
    FinishRun,
    FinishSlice,
    Json,
    PauseRequested,
    ReleaseSlot,
    RequestApproval,
    ResumeRequested,
    RunStart,
    SliceDrained,
    SliceEnded,
    SlotGranted,
    StartActivity,
    StartChild,
    StartSlice,
    StartTimer,
    TaskError,
    TellFamily,
    TimerFired,
)
from engine.core.state_machine import Brain
from engine.core.values import ValueProblem
from engine.testing.addresses import path_of
from engine.testing.attempts import NoAnswer, play
from engine.testing.cases import Case, Mock, Vote
from engine.testing.people import Request
from engine.testing.slots import Slots
from engine.testing.stage import Stage
from engine.testing.traces import Missing, Trace

SECRET = "***"
"""What stands for a secret: a test has none."""


def with_placeholders(call: ActivityCall) -> Json:
    """The config of a call as the worker sees it, with `SECRET` for the value of every secret."""
    if not call.secrets:
        return call.config
    config = copy.deepcopy(call.config)
    for place in call.secrets:
        *way, last = place["path"]
        holder = config
        for part in way:
            holder = holder[part]
        holder[last] = "".join(part if isinstance(part, str) else SECRET for part in place["parts"])
    return config


class World(Protocol):
    """What a run knows of its case and of the others.

    `now` is in seconds since the epoch, `asked` how often mocks were asked, by address.
    """

    stage: Stage
    case: Case
    trace: Trace
    around: Circumstances
    slots: Slots
    given: list[Vote]
    asked: dict[str, int]
    now: float

    def begin(self, start: RunStart, prefix: str) -> Run:
        """Have one more run under way."""

    def later(self, at: float, run: Run, happen: Callable[[], Event | None]) -> None:
        """Have something happen to a run."""

    def said(self, run: Run, event: Event) -> Event:
        """Note what somebody outside says to a run."""


class Run:
    """A brain and what is under way for it. In the trace its tasks stand behind `prefix`."""

    def __init__(self, world: World, start: RunStart, prefix: str) -> None:
        self._world = world
        self._start_of = start
        self._brain = Brain(world.stage.plan(start.pin.workflow))
        self._timers: set[str] = set()
        self._running: set[str] = set()
        self._members: dict[str, Run] = {}
        self._on_finish: Callable[[FinishRun | FinishSlice], None] | None = None
        self.prefix = prefix
        self.cancels = 0
        self.requests: dict[str, Request] = {}
        self.finish: FinishRun | FinishSlice | None = None

    def take(self, event: Event) -> None:
        """Feed the brain, and do as it says."""
        if self.finish is None:
            for command in self._brain.apply(event):
                self._perform(command)

    def snapshot(self) -> dict[str, Json]:
        """How the run stands. A slice tells of the tasks in its items; the map itself is told of by its run."""
        told = self._brain.snapshot()
        part = self._start_of.slice
        if part is not None:
            told["tasks"] = [task for task in told["tasks"] if task["id"] != part.task]
        return told

    def awaiting(self, path: str) -> list[str]:
        """The addresses of the tasks at `path` that wait for a signal."""
        waiting = [each["task"] for each in self.snapshot()["waiting"] if each["kind"] == "signal"]
        return [address for address in waiting if path in (address, path_of(address))]

    def votes(self, task: str) -> tuple[Vote, ...]:
        """What the case has people say of the request of a task."""
        return self._world.case.approvals.of(self.prefix + task) or ()

    # --- commands -------------------------------------------------------------------------------------------------

    def _perform(self, command: Command) -> None:
        match command:
            case StartActivity():
                self._start(command)
            case CancelActivity(task=task):
                self._cancel_activity(task)
            case StartTimer(timer=timer, seconds=seconds):
                self._timers.add(timer)
                self._later(seconds, lambda: self._fire(timer))
            case CancelTimer(timer=timer):
                self._timers.discard(timer)
            case RequestApproval():
                self._request(command)
            case CloseApproval(task=task, why=why):
                request = self.requests[task]
                request.close(why, self._now)
                self._later(0, lambda: request.resolved(self._now))
            case StartChild():
                self._start_child(command)
            case StartSlice():
                self._start_slice(command)
            case CancelChild(task=task, reason=reason):
                self._cancel_member(task, reason)
            case CancelSlice(task=task, offset=offset):
                self._cancel_member(f"{task}[{offset}]", "")
            case DrainSlice(task=task, offset=offset):
                member = self._members[f"{task}[{offset}]"]
                self._world.later(self._now, member, lambda: SliceDrained(self._now))
            case TellFamily():
                self._tell_family(command)
            case AcquireSlot(task=task, group=group, limit=limit):
                granted = partial(self._later, 0, lambda: SlotGranted(task, self._now))
                self._world.slots.acquire(group, self._owner(task), limit, granted)
            case ReleaseSlot(task=task):
                self._world.slots.release(self._owner(task))
            case FinishRun() | FinishSlice():
                self._end(command)

    @property
    def _now(self) -> float:
        return self._world.now

    def _later(self, seconds: float, happen: Callable[[], Event | None]) -> None:
        self._world.later(self._now + seconds, self, happen)

    def _fire(self, timer: str) -> Event | None:
        return TimerFired(timer, self._now) if timer in self._timers else None

    def _owner(self, task: str) -> str:
        return f"{self._start_of.execution_id}/{task}"

    def _end(self, finish: FinishRun | FinishSlice) -> None:
        self.finish = finish
        if isinstance(finish, FinishRun):
            self._world.slots.release_all(self._start_of.execution_id)
        if self._on_finish is not None:
            self._on_finish(finish)

    # --- activities -----------------------------------------------------------------------------------------------

    def _start(self, command: StartActivity) -> None:
        task, kind = command.task, command.call.activity_type
        address = self.prefix + task
        mock = self._world.case.mocks.of(address)
        if mock is None:
            self._world.trace.missing.append(Missing(address, kind))
            return
        asked = self._world.asked.get(address, 0)
        mock = mock.after(asked)
        self._running.add(task)
        if fault := self._world.stage.config_fault(kind, with_placeholders(command.call)):
            failed = ActivityFailed(task, TaskError("INVALID_CONFIG", fault, task), 1, self._now)
            self._later(0, lambda: self._ended(task, failed))
            return
        if (first := mock.answer(1)) is not None and first.cached:
            hit = ActivityCompleted(task, ActivityOutcome(first.result, 1, cached_from="test"), self._now)
            self._later(0, lambda: self._ended(task, hit))
            return
        end = play(command, mock, self._now)
        if isinstance(end, NoAnswer):
            attempt = asked + end.attempt
            self._world.later(end.at, self, lambda: self._unanswered(task, kind, attempt))
        else:
            attempts = end.attempts if isinstance(end, ActivityFailed) else end.outcome.attempt
            self._world.asked[address] = asked + attempts
            self._world.later(end.at, self, lambda: self._ended(task, end))

    def _ended(self, task: str, event: Event) -> Event | None:
        """The end of an activity, unless it was asked to end before."""
        if task not in self._running:
            return None
        self._running.discard(task)
        return event

    def _unanswered(self, task: str, kind: str, attempt: int) -> None:
        if task in self._running:
            self._world.trace.missing.append(Missing(self.prefix + task, kind, attempt))

    def _cancel_activity(self, task: str) -> None:
        if task in self._running:
            self._running.discard(task)
            self._later(0, lambda: ActivityCancelled(task, self._now))

    # --- people ---------------------------------------------------------------------------------------------------

    def _request(self, command: RequestApproval) -> None:
        task, config = command.task, command.call.config
        fault = self._world.stage.config_fault(command.call.activity_type, config)
        id = approval_id(self._start_of.execution_id, task)
        try:
            request = None if fault else Request(task, id, config, self._now)
        except ValueProblem as problem:
            request, fault = None, f"config.deadline: {problem}"
        if request is None:
            failed = ActivityFailed(task, TaskError("INVALID_CONFIG", fault, task), 1, self._now)
            self._later(0, lambda: failed)
            return
        self.requests[task] = request
        self._later(
            0, lambda: ApprovalRequested(task, request.id, request.opened, self._now, request.deadline)
        )
        for vote in self.votes(task):
            self._later(vote.after, partial(self._vote, request, vote))

    def _vote(self, request: Request, vote: Vote) -> Event | None:
        self._world.given.append(vote)
        refused = request.decide(vote, self._world.around, self._now)
        if refused:
            self._world.trace.refused.append(f"a vote by {vote.by} was not possible: {refused}")
            return None
        return None if request.outcome == "PENDING" else self._world.said(self, request.resolved(self._now))

    # --- children and slices --------------------------------------------------------------------------------------

    def _start_child(self, command: StartChild) -> None:
        task, attempt, workflow = command.task, command.attempt, command.start.pin.workflow
        mock = self._world.case.mocks.of(self.prefix + task)
        if mock is not None:
            self._mocked_child(command, mock)
        elif not self._world.stage.has(workflow):
            self._world.trace.missing.append(Missing(self.prefix + task, "workflow"))
        elif fault := self._world.stage.inputs_fault(workflow, command.start.inputs):
            error = TaskError("INPUTS", fault, task)
            self._later(0, lambda: ChildEnded(task, attempt, "FAILED", None, error, self._now))
        else:
            child = self._world.begin(command.start, f"{self.prefix}{task}.")
            child._on_finish = partial(self._child_finished, task, attempt)
            self._members[task] = child

    def _mocked_child(self, command: StartChild, mock: Mock) -> None:
        task, attempt = command.task, command.attempt
        answer = mock.answer(attempt)
        if answer is None:
            self._world.trace.missing.append(Missing(self.prefix + task, "workflow", attempt))
            return
        failed = answer.error
        status: Any = "COMPLETED" if failed is None else "FAILED"
        error = None if failed is None else TaskError(failed.type, failed.message, task, failed.details)
        self._running.add(task)
        self._later(
            answer.after,
            lambda: self._ended(task, ChildEnded(task, attempt, status, answer.result, error, self._now)),
        )

    def _child_finished(self, task: str, attempt: int, finish: FinishRun | FinishSlice) -> None:
        assert isinstance(finish, FinishRun)
        self._later(
            0, lambda: ChildEnded(task, attempt, finish.status, finish.outputs, finish.error, self._now)
        )

    def _start_slice(self, command: StartSlice) -> None:
        part = command.start.slice
        assert part is not None
        member = self._world.begin(command.start, self.prefix)
        member._on_finish = partial(self._slice_finished, command.task, part.offset)
        self._members[f"{command.task}[{part.offset}]"] = member

    def _slice_finished(self, task: str, offset: int, finish: FinishRun | FinishSlice) -> None:
        assert isinstance(finish, FinishSlice)
        self._later(
            0,
            lambda: SliceEnded(
                task,
                offset,
                finish.status,
                finish.results,
                finish.failures,
                finish.error,
                finish.undo,
                self._now,
                finish.ended,
            ),
        )

    def _cancel_member(self, key: str, reason: str) -> None:
        member = self._members.get(key)
        if member is not None:
            by = self._start_of.started_by
            member.cancels += 1
            id = f"{key}/cancel/{member.cancels}"  # a second one is no repeat: it leaves out the clean-up
            self._world.later(self._now, member, lambda: CancelRequested(by, reason, self._now, id))
        elif key in self._running:  # it is mocked whole
            self._running.discard(key)
            self._later(0, lambda: ChildEnded(key, 0, "CANCELLED", None, None, self._now))

    def _tell_family(self, command: TellFamily) -> None:
        for member in self._members.values():
            event: Callable[[], Event] = (
                partial(PauseRequested, command.by, command.reason, self._now)
                if command.what == "pause"
                else partial(ResumeRequested, command.by, self._now)
            )
            self._world.later(self._now, member, event)
