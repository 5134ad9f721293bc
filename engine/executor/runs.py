"""What the executor says and hears of a run: plain data, free of Temporal's types."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from engine.core.contracts import Json, RunStart, TaskError

RemoteStatus = Literal["OPEN", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Everything a start needs. `size` is the compiled definition's, in bytes (only told to Temporal's own tools)."""

    start: RunStart
    size: int
    title: str = ""


@dataclass(frozen=True, slots=True)
class RemoteRun:
    """How Temporal sees a run. `outputs`, `error` and `closed_at` are there once it is closed."""

    status: RemoteStatus
    paused: bool = False
    outputs: Json = None
    error: TaskError | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The run's own word on itself: see `Brain.snapshot`."""

    status: str
    tasks: list[dict[str, Any]] = field(default_factory=list)
    error: Any = None
    waiting: list[dict[str, Any]] = field(default_factory=list)
