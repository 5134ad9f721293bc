"""Messages about webhooks of workflows."""

from __future__ import annotations

from typing import Literal

from engine.api.schemas.common import Message


class Delivered(Message):
    """What came of a delivery."""

    status: Literal["STARTED", "IGNORED"]
    """IGNORED if the trigger's `when` is false."""
    reason: str
    id: str
    """The run; empty if there is none."""
    workflow: str
    commit_sha: str
    repeated: bool
    """The delivery was taken before: this is the run that it led to."""
