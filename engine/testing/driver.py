"""The offline driver of the brain: a heap of what will happen, and a clock that jumps to the next of it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from engine.core.approvals import Circumstances, approval_id
from engine.core.contracts import (
    ActivityCancelled,
    ActivityFailed,
    ApprovalRequested,
    CancelActivity,
    CancelRequested,
    CancelTimer,
    CloseApproval,
    Command,
    Event,
    FinishRun,
    Json,
    Pin,
    RequestApproval,
    RunStart,
    StartActivity,
    Started,
    StartTimer,
    TaskError,
    TimerFired,
)
from engine.core.plan import ON_FAILURE, Plan
from engine.core.run_state import error_to_json
from engine.core.state_machine import Brain
from engine.core.values import ValueProblem
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.json_schemas import compile_schema
from engine.testing.attempts import NoAnswer, play
from engine.testing.cases import Case, Vote
from engine.testing.people import Request, rfc3339
from engine.testing.spans import duration

RUN_ID: Final = "test-run"
COMMIT: Final = "0" * 40
"""What `run.id` and `run.commit_sha` are in a test."""


@dataclass(slots=True)
class TaskEnd:
    """How a task ended. `when` is what its condition gave: True, False, or None if it was not asked."""

    status: str
    skip_reason: str
    attempts: int
    when: bool | None
    error: Json


@dataclass(frozen=True, slots=True)
class Missing:
    """A task ran for which the case says nothing; `attempt` counts from 1."""

    task: str
    activity_type: str
    attempt: int = 1


@dataclass(slots=True)
class Trace:
    """What came of a case. `took` is in seconds of the run's own clock; `path` as in the test file.

    `status` is "" if the run could not be played to its end: `missing` and `waits` say why. `refused` are votes that
    nobody could have given, each with the reason.
    """

    status: str = ""
    outputs: Json = None
    error: Json = None
    took: float = 0.0
    tasks: dict[str, TaskEnd] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    refused: list[tuple[Vote, str]] = field(default_factory=list)


class Driver:
    """Plays the cases of one definition."""

    def __init__(self, compiled: dict[str, Any], types: ActivityTypes) -> None:
        self._plan = Plan(compiled)
        self._types = types
        self._validators: dict[str, Any] = {}

    def play(self, case: Case) -> Trace:
        """One run, from its start to its end. Never waits, touches nothing outside, gives the same every time."""
        return _Run(self._plan, case, self._config_fault).play()

    def _config_fault(self, activity_type: str, config: Json) -> str:
        """What the worker would say of a resolved config, "" if it fits."""
        if activity_type not in self._validators:
            info = self._types.get(activity_type)
            self._validators[activity_type] = compile_schema(info.config_schema) if info else None
        validator = self._validators[activity_type]
        if validator is None or validator.is_valid(config):
            return ""
        error = next(iter(validator.iter_errors(config)))
        where = ".".join(["config", *map(str, error.instance_path)])
        return f"{where}: " + str(error.message).split("\n", 1)[0][:300]


class _Run:
    """One run under way."""

    def __init__(self, plan: Plan, case: Case, config_fault: Callable[[str, Json], str]) -> None:
        self._plan = plan
        self._case = case
        self._config_fault = config_fault
        self._brain = Brain(plan)
        self._trace = Trace()
        self._around = Circumstances(case.started_by, frozenset({case.commit_author} - {""}))
        self._now = case.started_at
        self._heap: list[tuple[float, int, Callable[[], Event | None]]] = []
        self._count = 0
        self._timers: set[str] = set()
        self._running: set[str] = set()
        self._requests: dict[str, Request] = {}
        self._given: list[Vote] = []
        self._finish: FinishRun | None = None

    def play(self) -> Trace:
        case = self._case
        pin = Pin(self._plan.name, "test", COMMIT, COMMIT, "", "")
        start = RunStart(RUN_ID, pin, case.inputs, case.started_by, rfc3339(self._now))
        self._later(self._now, lambda: Started(start, self._now))
        if (cancel := case.cancel) is not None:
            self._later(
                self._now + cancel.after,
                lambda: CancelRequested(cancel.by, cancel.reason, self._now, "test"),
            )
        while self._heap and self._finish is None and not self._trace.missing:
            self._now, _, happen = heapq.heappop(self._heap)
            event = happen()
            if event is not None:
                for command in self._brain.apply(event):
                    self._perform(command)
        return self._told()

    # --- commands -------------------------------------------------------------------------------------------------

    def _perform(self, command: Command) -> None:
        match command:
            case StartActivity():
                self._start(command)
            case CancelActivity(task=task):
                if task in self._running:
                    self._running.discard(task)
                    self._later(self._now, lambda: ActivityCancelled(task, self._now))
            case StartTimer(timer=timer, seconds=seconds):
                self._timers.add(timer)
                self._later(self._now + seconds, lambda: self._fire(timer))
            case CancelTimer(timer=timer):
                self._timers.discard(timer)
            case RequestApproval():
                self._request(command)
            case CloseApproval(task=task, why=why):
                request = self._requests[task]
                request.close(why, self._now)
                self._later(self._now, lambda: request.resolved(self._now))
            case FinishRun():
                self._finish = command

    def _start(self, command: StartActivity) -> None:
        task, kind = command.task, command.call.activity_type
        mock = self._case.mocks.get(task)
        if mock is None:
            self._trace.missing.append(Missing(task, kind))
            return
        self._running.add(task)
        if fault := self._config_fault(kind, command.call.config):
            failed = ActivityFailed(task, TaskError("INVALID_CONFIG", fault, task), 1, self._now)
            self._later(self._now, lambda: self._ended(task, failed))
            return
        end = play(command, mock, self._now)
        if isinstance(end, NoAnswer):
            attempt = end.attempt
            self._later(end.at, lambda: self._unanswered(task, kind, attempt))
        else:
            self._later(end.at, lambda: self._ended(task, end))

    def _ended(self, task: str, event: Event) -> Event | None:
        """The end of an activity, unless it was asked to end before."""
        if task not in self._running:
            return None
        self._running.discard(task)
        return event

    def _unanswered(self, task: str, kind: str, attempt: int) -> None:
        if task in self._running:
            self._trace.missing.append(Missing(task, kind, attempt))

    def _fire(self, timer: str) -> Event | None:
        return TimerFired(timer, self._now) if timer in self._timers else None

    def _request(self, command: RequestApproval) -> None:
        task, config = command.task, command.call.config
        fault = self._config_fault(command.call.activity_type, config)
        try:
            request = None if fault else Request(task, approval_id(RUN_ID, task), config, self._now)
        except ValueProblem as problem:
            request, fault = None, f"config.deadline: {problem}"
        if request is None:
            failed = ActivityFailed(task, TaskError("INVALID_CONFIG", fault, task), 1, self._now)
            self._later(self._now, lambda: failed)
            return
        self._requests[task] = request
        self._later(
            self._now,
            lambda: ApprovalRequested(task, request.id, request.opened, self._now, request.deadline),
        )
        for vote in self._case.approvals.get(task, ()):
            self._later(self._now + vote.after, partial(self._vote, request, vote))

    def _vote(self, request: Request, vote: Vote) -> Event | None:
        self._given.append(vote)
        refused = request.decide(vote, self._around, self._now)
        if refused:
            self._trace.refused.append((vote, refused))
            return None
        return None if request.outcome == "PENDING" else request.resolved(self._now)

    def _later(self, at: float, happen: Callable[[], Event | None]) -> None:
        self._count += 1  # what happens at one moment happens in the order in which it was set going
        heapq.heappush(self._heap, (at, self._count, happen))

    # --- what came of it ------------------------------------------------------------------------------------------

    def _told(self) -> Trace:
        trace, snapshot = self._trace, self._brain.snapshot()
        if self._finish is not None:
            trace.refused += [
                (vote, f"the run was over after {duration(self._now - self._case.started_at)}")
                for task in self._requests
                for vote in self._case.approvals.get(task, ())
                if vote not in self._given
            ]
        trace.took = self._now - self._case.started_at
        if self._finish is not None:
            trace.status = self._finish.status
            trace.outputs = self._finish.outputs
            trace.error = error_to_json(self._finish.error)
        elif not trace.missing:
            trace.waits = [awaited["task"] for awaited in snapshot["waiting"]]
        orders = {name: kept.get("order", 0) for name, kept in self._brain.to_json()["tasks"].items()}
        for task, end in zip(self._plan.tasks, snapshot["tasks"], strict=True):
            trace.tasks[task.id] = TaskEnd(
                end["status"],
                end["skip_reason"] or "",
                end["attempts"],
                self._condition(task.when is not None, task.phase, end),
                end["error"],
            )
        ended = [name for name, order in orders.items() if order and trace.tasks[name].status != "SKIPPED"]
        trace.path = sorted(ended, key=orders.__getitem__)
        return trace

    def _condition(self, has: bool, phase: int, end: dict[str, Any]) -> bool | None:
        if not has or end["status"] == "PENDING" or end["skip_reason"] in ("upstream", "ended"):
            return None
        if end["skip_reason"] == "condition":
            whole_phase = phase == ON_FAILURE and self._trace.status not in ("FAILED", "TIMED_OUT")
            return None if whole_phase else False
        return True if end["started_at"] is not None else None
