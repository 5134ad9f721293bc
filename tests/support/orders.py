"""A proposal's order to push, as the tests of pushing begin with."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.sync.commit_message import message
from engine.sync.pushing import Order
from tests.support.syncing import flow

PATH = "workflows/release.yaml"
ORDER = Order(
    id="0190-a",
    name="release",
    path=PATH,
    branch="pinflow/proposals/0190-a",
    direct=False,
    message=message("Change it", "Since we must.", "0190-a"),
    author="ada",
    at=datetime(2026, 6, 1, tzinfo=UTC),
    files={PATH: flow("release", "2").encode()},
)
