"""All that a run remembers, and its JSON form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeVar

from engine.core.block import Block
from engine.core.contracts import (
    Carried,
    Json,
    Parent,
    Pin,
    RunStart,
    Slice,
    TaskError,
)
from engine.core.frames import Frame, Task
from engine.core.gates import Gate

_T = TypeVar("_T")

UNSTARTED: Final = -1
OVER: Final = 3

Cut = Literal["", "cancelled", "timed_out", "cleanup_timed_out", "skipped", "ended"]


class RunState:
    """The run as a whole. `frames` are its three phases; `timers` maps an open timer to when it is due.

    `phase` is UNSTARTED, the number of the phase under way, or OVER.  `queued`: it waits for a slot of its concurrency
    group, `group`.  `cut` says why the phase under way takes no new tasks and ends what runs; `ended` is what a task of
    type `end` said.  `cancels` and `pauses` are the ids of the requests taken.  `failed` are the ids of FAILED tasks in
    the order in which they failed.  `signals` are those that came before anybody waited, `heard` the ids of all.
    """

    def __init__(self, blocks: list[Block], gate: Gate) -> None:
        self.start: RunStart | None = None
        self.started_at = 0.0
        self.finished_at: float | None = None
        self.title = ""
        self.phase: int = UNSTARTED
        self.status = "PENDING"
        self.verdict = ""
        self.cut: Cut = ""
        self.cancels: list[str] = []
        self.cancelled_by = ""
        self.cancel_reason = ""
        self.skip_cleanup = False
        self.failed: list[str] = []
        self.error: TaskError | None = None
        self.outputs: Json = None
        self.order = 0
        self.kept = 0
        self.queued = False
        self.group = ""
        self.ended: Json = None
        self.unwinding = False
        self.paused = False
        self.pauses: list[str] = []
        self.signals: list[Json] = []
        self.heard: dict[str, None] = {}
        self.timers: dict[str, float] = {}
        self.frames = [Frame(block, gate) for block in blocks]

    @property
    def is_slice(self) -> bool:
        """Whether this is a part of a map, on behalf of a run elsewhere."""
        return self.start is not None and self.start.slice is not None

    @property
    def first_error(self) -> TaskError | None:
        """The first failure among the tasks that counts."""
        return self.frames[0].error

    def tasks(self) -> Iterator[Task]:
        """The run's own tasks, over all phases."""
        for frame in self.frames:
            yield from frame.tasks


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
