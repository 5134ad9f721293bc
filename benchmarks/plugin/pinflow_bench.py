"""An activity type that does nothing, as a package of somebody else's would offer it."""

from __future__ import annotations

from typing import Any

from engine.activities.registry import ActivityConfig, ActivityContext, activity_type


class Noop(ActivityConfig):
    """What the task is called."""

    task: str


@activity_type(name="bench_noop", config=Noop, result=dict[str, Any])
async def BENCH_NOOP(config: Noop, context: ActivityContext) -> dict[str, Any]:
    """Do nothing."""
    return {"task": config.task}
