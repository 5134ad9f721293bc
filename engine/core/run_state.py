"""All that a run remembers, and its JSON form."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

from engine.core.contracts import (
    Carried,
    Json,
    Parent,
    Pin,
    RunStart,
    SkipReason,
    Slice,
    TaskError,
    TaskStatus,
)

_T = TypeVar("_T")

UNSTARTED: Final = -1
OVER: Final = 3

Stage = Literal["", "requesting", "open", "expiring", "closing"]
"""Of an approval: its row is being made; people may decide; its deadline is being applied; it is being cancelled."""

Cut = Literal["", "cancelled", "timed_out", "cleanup_timed_out", "skipped"]


class TaskRecord:
    """How one task stands.

    `failed_upstream`: skipped because an ancestor FAILED. `order`: the how-manieth task of the run to end, from 1.
    `acted`: its activity did its work, whatever became of the task (what a later undo asks for).
    `stage`, `approval_id`, `deadlines` belong to approvals; `timer` is the name of its open timer.
    """

    __slots__ = (
        "acted",
        "approval_id",
        "attempts",
        "deadlines",
        "error",
        "failed_upstream",
        "finished_at",
        "order",
        "outputs",
        "skip_reason",
        "stage",
        "started_at",
        "status",
        "stopping",
        "timer",
    )

    def __init__(self) -> None:
        self.status: TaskStatus = "PENDING"
        self.skip_reason: SkipReason | None = None
        self.failed_upstream = False
        self.attempts = 0
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.error: TaskError | None = None
        self.outputs: Json = None
        self.order = 0
        self.acted = False
        self.stopping = False
        self.stage: Stage = ""
        self.approval_id = ""
        self.deadlines = 0
        self.timer = ""

    def to_json(self) -> dict[str, Json]:
        """What differs from a task that nothing has happened to yet."""
        changed = {
            name: getattr(self, name)
            for name in self.__slots__
            if getattr(self, name) != getattr(_FRESH, name)
        }
        if self.error is not None:
            changed["error"] = error_to_json(self.error)
        return changed

    @classmethod
    def from_json(cls, value: dict[str, Json]) -> TaskRecord:
        """The inverse of `to_json`."""
        record = cls()
        for name, content in value.items():
            setattr(record, name, error_from_json(content) if name == "error" else content)
        return record


_FRESH: Final = TaskRecord()


class RunState:
    """The run as a whole. `records` stand in the order of the plan; `timers` maps an open timer to when it is due.

    `phase` is UNSTARTED, the number of the phase under way, or OVER.  `cut` says why the phase under way takes no new
    tasks and ends what runs.  `cancels` are the ids of the cancel requests taken.  `failed` are the ids of FAILED
    tasks in the order in which they failed; `first_error` is the one that the verdict of the tasks stands on.
    """

    def __init__(self, tasks: int) -> None:
        self.start: RunStart | None = None
        self.started_at = 0.0
        self.finished_at: float | None = None
        self.title = ""
        self.phase: int = UNSTARTED
        self.status = "PENDING"
        self.verdict = ""
        self.cut: Cut = ""
        self.draining = False
        self.cancels: list[str] = []
        self.cancelled_by = ""
        self.cancel_reason = ""
        self.skip_cleanup = False
        self.failed: list[str] = []
        self.first_error: TaskError | None = None
        self.cleanup_error: TaskError | None = None
        self.error: TaskError | None = None
        self.outputs: Json = None
        self.order = 0
        self.timers: dict[str, float] = {}
        self.records = [TaskRecord() for _ in range(tasks)]

    def to_json(self, ids: list[str]) -> dict[str, Json]:
        """The whole state; tasks by id, those that nothing happened to left out."""
        state: dict[str, Json] = {name: getattr(self, name) for name in _PLAIN}
        state["start"] = None if self.start is None else start_to_json(self.start)
        state |= {name: error_to_json(getattr(self, name)) for name in _ERRORS}
        state["cancels"] = list(self.cancels)
        state["failed"] = list(self.failed)
        state["timers"] = dict(self.timers)
        tasks = ((name, record.to_json()) for name, record in zip(ids, self.records, strict=True))
        state["tasks"] = {name: changed for name, changed in tasks if changed}
        return state

    @classmethod
    def from_json(cls, state: dict[str, Json], positions: dict[str, int]) -> RunState:
        """The inverse of `to_json`."""
        run = cls(len(positions))
        for name in (*_PLAIN, "cancels", "failed", "timers"):
            value = state[name]
            setattr(run, name, value.copy() if isinstance(value, (list, dict)) else value)
        run.start = None if state["start"] is None else start_from_json(state["start"])
        for name in _ERRORS:
            setattr(run, name, error_from_json(state[name]))
        for name, changed in state["tasks"].items():
            run.records[positions[name]] = TaskRecord.from_json(changed)
        return run


_PLAIN: Final = (
    "started_at",
    "finished_at",
    "title",
    "phase",
    "status",
    "verdict",
    "cut",
    "draining",
    "cancelled_by",
    "cancel_reason",
    "skip_cleanup",
    "outputs",
    "order",
)
_ERRORS: Final = ("first_error", "cleanup_error", "error")


def error_to_json(error: TaskError | None) -> dict[str, Json] | None:
    """`{type, message, task, details}`."""
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "task": error.task, "details": error.details}


def error_from_json(value: Json) -> TaskError | None:
    """The inverse of `error_to_json`; missing keys get their defaults."""
    if value is None:
        return None
    return TaskError(value["type"], value["message"], value.get("task") or "", value.get("details"))


def start_to_json(start: RunStart) -> dict[str, Json]:
    """`RunStart` as JSON; inputs are not copied. What is empty is left out: history carries all of it."""
    pin = start.pin
    body: dict[str, Json] = {
        "execution_id": start.execution_id,
        "pin": {name: getattr(pin, name) for name in _PIN},
        "inputs": start.inputs,
        "started_by": start.started_by,
        "started_at": start.started_at,
    }
    if pin.closure:
        body["pin"] |= {"calls": pin.calls, "closure": pin.closure}
    if start.trigger is not None:
        body["trigger"] = start.trigger
    if start.targets:
        body["targets"] = list(start.targets)
    if start.parent is not None:
        body["parent"] = {name: getattr(start.parent, name) for name in Parent.__slots__}
    if start.carried:
        body["carried"] = {address: _plainly(carried) for address, carried in start.carried.items()}
    if start.rerun_of:
        body["rerun_of"] = start.rerun_of
    if start.callback is not None:
        body["callback"] = start.callback
    if start.groups:
        body["groups"] = list(start.groups)
    if start.slice is not None:
        body["slice"] = _plainly(start.slice)
    return body


def start_from_json(value: dict[str, Any]) -> RunStart:
    """The inverse of `start_to_json`; keys that this engine does not know are left alone."""
    pin, parent, part = value["pin"], value.get("parent"), value.get("slice")
    return RunStart(
        execution_id=value["execution_id"],
        pin=_known(Pin, pin),
        inputs=value["inputs"],
        started_by=value["started_by"],
        started_at=value["started_at"],
        trigger=value.get("trigger"),
        targets=tuple(value.get("targets") or ()),
        parent=None if parent is None else _known(Parent, parent),
        carried={address: _known(Carried, kept) for address, kept in (value.get("carried") or {}).items()},
        rerun_of=value.get("rerun_of") or "",
        callback=value.get("callback"),
        groups=tuple(value.get("groups") or ()),
        slice=None if part is None else _known(Slice, part),
    )


_PIN: Final = tuple(name for name in Pin.__slots__ if name not in ("calls", "closure"))


def _plainly(value: Any) -> dict[str, Json]:
    return {name: getattr(value, name) for name in value.__slots__}


def _known(kind: type[_T], value: dict[str, Any]) -> _T:
    names: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]
    return kind(**{name: value[name] for name in names if name in value})
