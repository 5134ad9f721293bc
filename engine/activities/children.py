"""What the engine does for children: their row at the beginning, and a look at how one ended."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import structlog
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from engine import faults
from engine.activities.failures import ActivityFailure
from engine.core.contracts import Json, RunStart, TaskError
from engine.core.run_state import error_to_json, start_from_json
from engine.errors import InvalidInput, NotFound
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.registry.inputs import Preparations, Prepared
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
        self._preparations = Preparations()

    async def open(self, raw: dict[str, Any]) -> dict[str, Json]:
        """Write the row of a child once, however often it is asked.

        Gives `{error, inputs, callback_key}`: with an `error` the run has ended before it began; `inputs` (with their
        defaults) only if they differ from those that were sent. Raises `ActivityFailure` UNKNOWN_VERSION for a pin
        that the registry does not hold.
        """
        start = start_from_json(raw)
        inputs, error = start.inputs, None
        try:
            prepared = await self._prepared(start.pin.compiled_digest)
            inputs = prepared.checked(start.inputs)
            title = prepared.titled(start.pin, inputs)
        except InvalidInput as refusal:
            error, title = _inputs_error(start, refusal), start.pin.workflow
        except NotFound as missing:
            raise _unknown_version(start) from missing
        key = callback_key(start)
        new = children.NewChild(start, inputs, title, key, error_to_json(error))
        async with self._database.begin() as connection:
            known = await children.open(connection, new, actor=_ACTOR)
        await faults.point("child.after_commit")
        if not known:
            raise _unknown_version(start)
        answer: dict[str, Json] = {"error": error_to_json(error), "callback_key": key}
        return answer if inputs == start.inputs else answer | {"inputs": inputs}

    async def _prepared(self, digest: str) -> Prepared:
        known = self._preparations.get(digest)
        return known or self._preparations.add(digest, await self._registry.compiled(digest))


def callback_key(start: RunStart) -> str | None:
    """The child's own key, made from its parent's: a callback for one run is good for no other."""
    if not start.callback:
        return None
    return hmac.new(start.callback["key"].encode(), start.execution_id.encode(), hashlib.sha256).hexdigest()


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


def _inputs_error(start: RunStart, refusal: InvalidInput) -> TaskError:
    named = "; ".join(f"{problem.pointer}: {problem.message}" for problem in refusal.problems[:5])
    message = f"the inputs do not fit the workflow {start.pin.workflow}: {named or refusal.message}"
    return TaskError("INPUTS", message)


def _unknown_version(start: RunStart) -> ActivityFailure:
    pin = start.pin
    message = f"the registry does not hold {pin.source}/{pin.workflow} at {pin.commit_sha} as it is pinned"
    return ActivityFailure("UNKNOWN_VERSION", message, retryable=False)
