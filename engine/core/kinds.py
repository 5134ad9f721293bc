"""Every kind of task, and how it behaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.core.activity_tasks import ActivityKind, ApprovalKind
from engine.core.child_tasks import ChildKind
from engine.core.composites import GroupKind
from engine.core.kind import TaskKind
from engine.core.loops import LoopKind
from engine.core.maps import MAP
from engine.core.plain_tasks import EndKind, SetKind, WaitKind
from engine.core.signal_tasks import SignalKind
from engine.core.task_plan import Kind

KINDS: Final[Mapping[Kind, TaskKind]] = {
    "activity": ActivityKind(),
    "approval": ApprovalKind(),
    "end": EndKind(),
    "group": GroupKind(),
    "loop": LoopKind(),
    "map": MAP,
    "set": SetKind(),
    "signal": SignalKind(),
    "wait": WaitKind(),
    "workflow": ChildKind(),
}
