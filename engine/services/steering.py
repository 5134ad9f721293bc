"""What callers do to a run that is under way: cancel, pause, resume.

Each is a row first: the status, the audit and the message to Temporal in one transaction.  Asking twice does no more
than asking once, but for a cancel, whose second leaves out the clean-up.
"""

from __future__ import annotations

from engine import faults
from engine.core.states import RUN_ENDS
from engine.errors import Conflict
from engine.executor.dispatcher import HEAD_START, Dispatcher
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.services.callers import Caller
from engine.services.ids import new_id
from engine.services.starts import require_temporal, unknown
from engine.storage import audit, executions, history, outbox, signals
from engine.storage.database import Connection, Database
from engine.storage.rows import Record


class SteeringService:
    """Cancel, pause and resume. All raise `NotFound`, `Conflict` if the run is over, and `Unavailable`."""

    def __init__(
        self, database: Database, executor: TemporalWorkflowExecutor, dispatcher: Dispatcher
    ) -> None:
        self._database = database
        self._executor = executor
        self._dispatcher = dispatcher

    async def cancel(self, caller: Caller, execution_id: str, *, reason: str = "") -> str:
        """Ask a run, and all that it started, to end; its status by now. A second request skips the clean-up.

        A cancel ends a pause.
        """
        self._admit(caller)
        async with self._database.begin() as connection:
            run = await open_run(connection, execution_id, "be cancelled")
            again = await history.happened(connection, execution_id, "execution.cancel_requested")
            request = {"by": caller.subject, "reason": reason, "id": new_id(), "again": again}
            await outbox.enqueue(connection, "cancel", execution_id, request, delay=HEAD_START)
            await audit.record(
                connection,
                "execution.cancel_requested",
                actor=caller.subject,
                source=run["source"],
                workflow=run["workflow"],
                execution_id=execution_id,
                commit_sha=run["commit_sha"],
                details={"reason": reason},
            )
            if run["status"] == "PAUSED":
                await signals.resume(connection, execution_id, actor=caller.subject, reason=reason)
            status = await executions.status_of(connection, execution_id)
        await self._send(execution_id)
        return str(status)

    async def pause(self, caller: Caller, execution_id: str, *, reason: str = "") -> str:
        """A run and all that it started begin nothing new. What runs goes on, and so do clocks and decisions."""
        self._admit(caller)
        async with self._database.begin() as connection:
            run = await open_run(connection, execution_id, "be paused")
            if run["status"] == "PAUSED":
                return "PAUSED"
            await signals.pause(connection, execution_id, actor=caller.subject, reason=reason)
            request = {"by": caller.subject, "reason": reason, "id": new_id()}
            await outbox.enqueue(connection, "pause", execution_id, request, delay=HEAD_START)
        await self._send(execution_id)
        return "PAUSED"

    async def resume(self, caller: Caller, execution_id: str, *, reason: str = "") -> str:
        """A paused run and all that it started go on; the status by now."""
        self._admit(caller)
        async with self._database.begin() as connection:
            run = await open_run(connection, execution_id, "be resumed")
            if run["status"] != "PAUSED":
                return str(run["status"])
            await signals.resume(connection, execution_id, actor=caller.subject, reason=reason)
            request = {"by": caller.subject, "reason": reason, "id": new_id()}
            await outbox.enqueue(connection, "resume", execution_id, request, delay=HEAD_START)
            status = await executions.status_of(connection, execution_id)
        await self._send(execution_id)
        return str(status)

    def _admit(self, caller: Caller) -> None:
        caller.require("operator")
        require_temporal(self._executor)

    async def _send(self, execution_id: str) -> None:
        await faults.point("steer.after_commit")
        await self._dispatcher.dispatch_now(execution_id)


async def open_run(connection: Connection, execution_id: str, what: str) -> Record:
    """The row of a run that is not over, locked. Raises `NotFound` and `Conflict`, which says `what` cannot be done."""
    run = await executions.lock(connection, execution_id)
    if run is None:
        raise unknown(execution_id)
    if run["status"] in RUN_ENDS:
        raise Conflict(f"run {execution_id} has ended already ({run['status']}) and cannot {what}")
    return run
