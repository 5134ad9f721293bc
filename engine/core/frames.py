"""Tasks and blocks under way.

A `Frame` is one pass through a block: a phase of the run, an item of a map, an iteration of a loop, the inside of a group.
A `Task` is one task in one frame: what the run remembers of it, and where it stands.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from engine.core.block import Block
from engine.core.contracts import Json, SkipReason, TaskError, TaskStatus
from engine.core.gates import Gate, Key, Ticket
from engine.core.task_plan import TaskPlan

Stage = Literal["", "queued", "granted", "requesting", "open", "expiring", "closing", "pausing"]
"""Of a task with a concurrency group: it waits for a slot of the group; it has one and waits for a place in the run.
Of an approval: its row is being made; people may decide; its deadline is being applied; it is being cancelled.
Of a child: the pause before the next attempt."""


class Task(Ticket):
    """How one task stands.

    `failed_upstream`: skipped because an ancestor FAILED. `order`: the how-manieth task of the run to end, from 1.
    `acted`: its work was done, whatever became of the task (what a later undo asks for).
    `stopping`: it was asked to end; `doom` is what it fails with then (None: it is CANCELLED).
    `timer` and `limit` are the names of its open timers: that of its next step, that of its whole time.
    `group` is the concurrency group that it holds a slot of, or waits for one; `correlation` what a signal must bear. `work` is what a map or a loop remembers
    beyond its `frames`, by index. `undo` is its compensation once that was begun; `undone` of a compensation is the task that
    it belongs to.
    """

    # What every task begins with stands here, once for all: a map makes thousands of them.
    status: TaskStatus = "PENDING"
    skip_reason: SkipReason | None = None
    failed_upstream = False
    attempts = 0
    started_at: float | None = None
    finished_at: float | None = None
    error: TaskError | None = None
    outputs: Json = None
    order = 0
    acted = False
    stopping = False
    doom: TaskError | None = None
    stage: Stage = ""
    approval_id = ""
    deadlines = 0
    timer = ""
    limit = ""
    group = ""
    cached_from = ""
    reused_from = ""
    child_id = ""
    correlation: str | None = None
    compensation: Literal["", "DONE", "FAILED"] = ""
    work: Json = None
    frames: dict[int, Frame] = MappingProxyType({})  # type: ignore[assignment]  # `Frame.inside` makes room
    undo: Task | None = None
    # What is known of those that it depends on; see `scope.py`.
    completed = 0
    failed = 0
    blocked = 0
    blocked_by_failure = 0

    def __init__(self, plan: TaskPlan, frame: Frame, undone: Task | None = None) -> None:
        super().__init__((*frame.key, plan.position + frame.block.base), frame.gate)
        self.plan = plan
        self.frame = frame
        self.undone = undone
        self.address: str = frame.prefix + plan.id
        self.missing = len(plan.predecessors)

    @property
    def in_flight(self) -> bool:
        """Whether its activity or child runs, or its approval is being asked for: then it holds its places."""
        if self.plan.body is not None:
            return False
        return (self.status == "RUNNING" and self.stage != "pausing") or self.stage == "requesting"


class Frame:
    """One pass through a block.

    Of `left` tasks no end was told yet. `open` are the positions of those that are RUNNING or WAITING. `locals` are
    the names that only it has. `error` is its first failure that counts. `draining` and `stopping`: nothing new but
    what runs in a failed run; nothing new at all. `over`: it has ended, and is kept for what comes later.
    `unwinding`: its compensations run.
    """

    __slots__ = (
        "block",
        "draining",
        "error",
        "gate",
        "index",
        "key",
        "left",
        "locals",
        "open",
        "over",
        "owner",
        "prefix",
        "stopping",
        "tasks",
        "unwinding",
    )

    def __init__(self, block: Block, gate: Gate, prefix: str = "", key: Key = ()) -> None:
        self.block = block
        self.gate = gate
        self.prefix = prefix
        self.key = key
        self.owner: Task | None = None
        self.index = 0
        self.locals: dict[str, Json] = {}
        self.left = len(block)
        self.open: dict[int, None] = {}
        self.error: TaskError | None = None
        self.draining = False
        self.stopping = False
        self.over = False
        self.unwinding: Json = None
        self.tasks: list[Task] = [Task(plan, self) for plan in block.tasks]

    @classmethod
    def inside(cls, owner: Task, index: int, locals: dict[str, Json]) -> Frame:
        """A pass through the body of a composite, which has it from now on."""
        plan = owner.plan
        block = plan.body
        assert block is not None
        if plan.kind == "group":
            gate = owner.gate if plan.max_concurrency is None else Gate(plan.max_concurrency, owner.gate)
            frame = cls(block, gate, f"{owner.address}.", (*owner.key, index))
        else:
            frame = cls(block, owner.gate, f"{owner.address}[{index}].", (*owner.key, index))
        frame.owner = owner
        frame.index = index
        if not owner.frames:
            owner.frames = {}
        owner.frames[index] = frame
        frame.locals = locals
        return frame

    @property
    def around(self) -> Frame | None:
        """The frame that its composite stands in."""
        return None if self.owner is None else self.owner.frame


def undo_of(task: Task) -> Task:
    """The compensation of a task, not yet started."""
    assert task.plan.undo is not None
    return Task(task.plan.undo, task.frame, undone=task)
