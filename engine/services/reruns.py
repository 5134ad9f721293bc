"""A run once more: on the same pin, on another commit, or from what failed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from engine.core.carrying import carried_of, explain
from engine.core.contracts import Carried, Json, RunStart
from engine.core.plan import HUMAN_APPROVAL, Plan
from engine.core.states import RUN_ENDS
from engine.errors import Conflict, InvalidInput
from engine.executor.dispatcher import start_request
from engine.registry.closure import SAME, reachable
from engine.registry.workflow_registry import PinnedVersion, WorkflowRegistry
from engine.services.awaited import static_path, walk
from engine.services.callers import Caller
from engine.services.inputs import Preparations
from engine.services.starts import Ask, Begun, Started, Starts, request_hash, unknown
from engine.storage import executions, run_detail
from engine.storage.database import Database
from engine.storage.rows import Record


@dataclass(frozen=True, slots=True)
class Rerun:
    """A run that was started once more. `tasks` say for each whether it is reused or runs again, and why."""

    started: Started
    rerun_of: str
    tasks: list[dict[str, Any]]


class RerunService:
    """Reruns are runs of their own; the old one stays as it was, with every attempt."""

    def __init__(
        self, database: Database, registry: WorkflowRegistry, preparations: Preparations, starts: Starts
    ) -> None:
        self._database = database
        self._registry = registry
        self._preparations = preparations
        self._starts = starts

    async def rerun(
        self,
        caller: Caller,
        execution_id: str,
        *,
        ref: str = SAME,
        from_failed: bool = False,
        key: str = "",
    ) -> Rerun:
        """Start a run with the inputs of an old one.

        `ref` is `same` (all that the old run was pinned to), `latest` or a commit.  With `from_failed`, what the old
        run had completed is carried over, wherever definition and resolved inputs are still the same; approvals ask
        again.  Raises what a start raises, and `Conflict` if the old run is not over, or nothing of it failed.
        """
        caller.require("operator")
        async with self._database.read() as connection:
            old = await executions.start_of(connection, execution_id)
        if old is None:
            raise unknown(execution_id)
        carried: dict[str, Carried] = {}
        if from_failed:
            _require_failed(old, ref)
            carried = await self._carried(old)
        ask = Ask(
            caller,
            old["inputs"],
            key,
            request_hash(f"rerun\n{execution_id}\n{ref}\n{from_failed}"),
            tuple(old["targets"]),
            old["trigger"],
            rerun_of=execution_id,
            carried=carried,
        )
        started = await self._starts.once(ask, lambda: self._begin(ask, old, ref))
        return Rerun(started, execution_id, await self._explained(started.id))

    async def _begin(self, ask: Ask, old: Record, ref: str) -> Begun:
        version = await self._version(old, ref)
        try:
            begun = await self._starts.write(ask, version)
        except InvalidInput as error:
            at = version.pin.revision_sha[:12]
            message = f"what run {old['id']} was started with does not fit {old['workflow']} at {at}: {error.message}"
            raise InvalidInput(message, error.problems, hint="start a new run with new inputs") from error
        assert begun is not None, "only a conditional start can find that nothing fits"
        return begun

    async def _version(self, old: Record, ref: str) -> PinnedVersion:
        if ref != SAME:
            return await self._registry.pin(f"{old['source']}/{old['workflow']}", ref)
        return PinnedVersion(
            pin=(await self._start_of(old)).pin,
            version_id=old["version_id"],
            source_id=old["source_id"],
            path="",
            version="",
            title="",
            description="",
            labels={},
        )

    async def _start_of(self, old: Record) -> RunStart:
        """What a run was started with."""
        closure = old["closure"]
        if old["root_id"]:  # a child's row holds no closure: its root's does
            async with self._database.read() as connection:
                root = await executions.start_of(connection, old["root_id"])
            closure = reachable(old["calls"], (root or {}).get("closure") or {})
        return start_request(old | {"closure": closure}).start

    async def _carried(self, old: Record) -> dict[str, Carried]:
        compiled = await self._registry.compiled(old["compiled_digest"])
        async with self._database.read() as connection:
            rows = await run_detail.all_tasks(connection, old["id"])
        tasks = [row | (row["more"] or {}) | {"id": row["task"]} for row in rows]
        start = await self._start_of(old)
        found = await asyncio.to_thread(lambda: carried_of(Plan(compiled), start, tasks))
        asked = _with_approvals(compiled)
        return {address: kept for address, kept in found.items() if static_path(address) not in asked}

    async def _explained(self, execution_id: str) -> list[dict[str, Any]]:
        """From the row of the new run, so that a repeated request gets the same answer."""
        async with self._database.read() as connection:
            row = await executions.start_of(connection, execution_id)
        assert row is not None
        compiled = await self._registry.compiled(row["compiled_digest"])
        start: RunStart = start_request(row).start
        return await asyncio.to_thread(lambda: explain(Plan(compiled), start))


def _require_failed(old: Record, ref: str) -> None:
    if old["status"] not in RUN_ENDS:
        raise Conflict(
            f"run {old['id']} is not over: {old['status']}",
            hint="cancel it first, or leave out `from_failed` to start it anew beside it",
        )
    if old["status"] == "COMPLETED" and ref == SAME:
        raise Conflict(
            f"run {old['id']} completed: nothing of it failed",
            hint="name another `ref`, or leave out `from_failed` to run all of it again",
        )


def _with_approvals(compiled: Json) -> set[str]:
    """The static paths of approvals and of all that holds one: what people said was said to what they saw."""
    found: set[str] = set()
    for path, task in walk(compiled):
        if task.get("activity_type") == HUMAN_APPROVAL:
            parts = path.split(".")
            found |= {".".join(parts[: length + 1]) for length in range(len(parts))}
    return found
