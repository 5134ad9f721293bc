"""What the engine does for children: their row at the beginning, and a look at how one ended."""

from __future__ import annotations

from typing import Any

import structlog
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from engine import faults
from engine.activities.failures import ActivityFailure
from engine.core.contracts import Json, RunStart, TaskError
from engine.core.run_state import error_to_json, start_from_json
from engine.errors import NotFound
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.registry.inputs import fitted, titled
from engine.registry.workflow_registry import WorkflowRegistry
from engine.storage import children
from engine.storage.database import Database

_ACTOR = "worker"
_log = structlog.get_logger(__name__)


class ChildDesk:
    """Opens the rows of children. Holds what is known of definitions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._registry = WorkflowRegistry(database)

    async def open(self, raw: dict[str, Any]) -> dict[str, Json]:
        """Write the row of a child once, however often it is asked.

        Gives `{error, inputs}`: with an `error` the run has ended before it began; `inputs` (with their defaults) only
        if they differ from those that were sent. Raises `ActivityFailure` UNKNOWN_VERSION for a pin
        that the registry does not hold.
        """
        start = start_from_json(raw)
        try:
            compiled = await self._registry.compiled(start.pin.compiled_digest)
        except NotFound as missing:
            raise _unknown_version(start) from missing
        inputs, problems = fitted(compiled, start.inputs)
        error = error_to_json(_inputs_error(start, problems)) if problems else None
        child = children.NewChild(start, inputs, titled(compiled, inputs), error)
        async with self._database.begin() as connection:
            known = await children.open(connection, child, actor=_ACTOR)
        await faults.point("child.after_commit")
        if not known:
            raise _unknown_version(start)
        answer: dict[str, Json] = {"error": error}
        return answer if inputs == start.inputs else answer | {"inputs": inputs}


async def look(executor: TemporalWorkflowExecutor, workflow_id: str) -> dict[str, Json]:
    """How a workflow ended: `{status, outputs, error}`. While it is open, an error that has Temporal ask again."""
    try:
        remote = await executor.describe(workflow_id)
    except NotFound:
        error = TaskError("LOST", f"Temporal does not know the workflow {workflow_id} any more")
        return {"status": "FAILED", "outputs": None, "error": error_to_json(error)}
    if remote.status == "OPEN":
        raise ApplicationError(
            f"{workflow_id} is still open", type="STILL_OPEN", category=ApplicationErrorCategory.BENIGN
        )
    return {"status": remote.status, "outputs": remote.outputs, "error": error_to_json(remote.error)}


def _inputs_error(start: RunStart, problems: list[str]) -> TaskError:
    return TaskError(
        "INPUTS", f"the inputs do not fit the workflow {start.pin.workflow}: {'; '.join(problems)}"
    )


def _unknown_version(start: RunStart) -> ActivityFailure:
    pin = start.pin
    message = f"the registry does not hold {pin.source}/{pin.workflow} at {pin.commit_sha} as it is pinned"
    return ActivityFailure("UNKNOWN_VERSION", message, retryable=False)
