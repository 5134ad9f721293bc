"""What a Temporal Schedule starts each time: a small workflow whose only activity starts the run, or says why not.

The schedule holds no definition.  What runs is what is live when the activity asks, so a merge needs no schedule changed
unless the times do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey

FIRE: Final = "pinflow.fire"
_SCHEDULED_AT: Final = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")


@workflow.defn(name=FIRE, sandboxed=False)
class FireWorkflow:
    """One moment of a schedule. It stays open while its run has to wait for another to end."""

    @workflow.run
    async def run(self, said: dict[str, Any]) -> Any:
        """`said` is `{source, workflow, id, seq}` of the trigger; the result is what came of it."""
        info = workflow.info()
        at = info.typed_search_attributes.get(_SCHEDULED_AT) or info.start_time
        fired = {
            "source": said["source"],
            "workflow": said["workflow"],
            "trigger": said["id"],
            "scheduled_at": at.isoformat(),
            "fired_at": info.start_time.isoformat(),
        }
        return await workflow.execute_activity(
            FIRE,
            fired,
            start_to_close_timeout=timedelta(seconds=20),
            # An attempt that has to wait fails with the time of the next one, which leaves no event in the history.
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30)
            ),
            summary=f"{said['workflow']}: {said['id']}",
        )
