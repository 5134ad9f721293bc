"""Runs: start, look, list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.core.contracts import Json
from engine.core.states import RUN_ENDS
from engine.errors import InputProblem, InvalidInput, PinflowError
from engine.executor.runs import Snapshot
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.registry.refs import ambiguous_ref
from engine.registry.workflow_registry import LATEST, PinnedVersion, WorkflowRegistry
from engine.services import cursors, live_tasks
from engine.services.callers import Caller
from engine.services.inputs import canonical
from engine.services.starts import Ask, Begun, Started, Starts, request_hash, unknown
from engine.storage import executions, registry, run_detail
from engine.storage.database import Connection, Database
from engine.storage.rows import Record

SNAPSHOT_LIMIT = 1.0
"""Seconds that a reader waits for a run's own word before it gets the last recorded one."""


_REMEMBERED = 10_000
"""Names whose latest version is kept in mind (and compared with the registry at every start)."""


class ExecutionService:
    """What callers ask of runs: start one, look at it, list them."""

    def __init__(
        self,
        database: Database,
        registry: WorkflowRegistry,
        starts: Starts,
        executor: TemporalWorkflowExecutor,
    ) -> None:
        self._database = database
        self._registry = registry
        self._starts = starts
        self._executor = executor
        self._latest: dict[str, PinnedVersion] = {}

    # --- start ------------------------------------------------------------------------------------------------------

    async def execute(
        self,
        caller: Caller,
        workflow: str,
        inputs: dict[str, Json],
        *,
        ref: str = LATEST,
        key: str = "",
        targets: Sequence[str] = (),
        trigger: Json = None,
    ) -> Started:
        """Start a run of the version of `workflow` at `ref`; acknowledged means that exactly one will run.

        Nothing runs but `targets` (ids of tasks) and what they depend on, if there are any.  `trigger` is what
        expressions read of what fired the run.  The same `key` of the same caller leads to the same run, and to
        `Conflict` with another request.  Raises `NotFound`, `InvalidInput`, `InvalidDefinition` (a child is missing),
        `Conflict` and `Unavailable`; after any of them but the last nothing was started.
        """
        caller.require("operator")
        request = canonical(inputs, "inputs")
        wanted = f"\n{canonical([*targets], 'targets')}" if targets else ""
        hashed = request_hash(f"{workflow}\n{ref}\n{request}{wanted}")
        ask = Ask(caller, inputs, key, hashed, tuple(targets), trigger)
        return await self._starts.once(ask, lambda: self._begin(ask, workflow, ref))

    async def _begin(self, ask: Ask, workflow: str, ref: str) -> Begun:
        begun = await self._begin_latest(ask, workflow) if ref == LATEST else None
        if begun is not None:
            return begun
        version = await self._registry.pin(workflow, ref)
        if ref == LATEST and version.one_source:  # what another source holds moves without this one
            if len(self._latest) >= _REMEMBERED:
                self._latest.clear()
            self._latest[workflow] = version
        begun = await self._starts.write(ask, version)
        assert begun is not None, "only a conditional start can find that nothing fits"
        return begun

    async def _begin_latest(self, ask: Ask, workflow: str) -> Begun | None:
        """Begin a run of the version that was the latest at the last start, if it still is; else None.

        The statement that writes the row compares the pin with what is live, which saves the look before it.
        """
        version = self._latest.get(workflow)
        if version is None:
            return None
        try:
            return await self._starts.write(ask, version, if_live=True, if_only="/" not in workflow)
        except InvalidInput:
            return None  # perhaps only this version's schema refuses them

    # --- look -------------------------------------------------------------------------------------------------------

    async def get(self, execution_id: str, caller: Caller) -> str:
        """One run with its tasks, attempts, approvals and children, as JSON text.

        `live` says whether an open one spoke for itself.  Raises `NotFound`.
        """
        found = await run_detail.detail(self._database, execution_id)
        if found is None:
            raise unknown(execution_id)
        status, text, attempts = found
        if status in RUN_ENDS:
            return text
        run = json.loads(text)
        await self._enliven(run, json.loads(attempts), urls=caller.may("operator"))
        return json.dumps(run, ensure_ascii=False, separators=(",", ":"))

    async def _enliven(self, run: Record, attempts: dict[str, list[Json]], *, urls: bool) -> None:
        if any(approval["status"] == "PENDING" for approval in run["approvals"]):
            run["status"] = "WAITING" if run["status"] == "RUNNING" else run["status"]
        snapshot = await self._snapshot(run["id"], run["status"])
        if snapshot is None:
            return
        run["live"] = True
        standing = live_tasks.merged(run["tasks"], snapshot.tasks)
        run["task_count"] = max(run["task_count"], len(standing))
        if len(standing) > run_detail.MANY:
            standing = [task for task in standing if live_tasks.is_outer(task["id"])]
        run["tasks"] = [task | {"attempt_log": attempts.get(task["id"], [])} for task in standing]
        run["waiting"] = [live_tasks.awaited(each, urls=urls) for each in snapshot.waiting]
        run["status"] = _live_status(run["status"], snapshot)

    async def _snapshot(self, execution_id: str, status: str) -> Snapshot | None:
        """The run's own word, None if it cannot be had now: then the rows are what is known."""
        if status == "PENDING" or self._executor.away:
            return None
        try:
            return await self._executor.snapshot(execution_id, limit=SNAPSHOT_LIMIT)
        except PinflowError:
            return None  # no worker, or local work hides the run

    async def tasks(
        self, execution_id: str, *, count: int, cursor: str = "", under: str = "", status: str = ""
    ) -> tuple[list[Record], str]:
        """The tasks of a run, inner ones included, and the cursor of the next page ("" if there is none).

        `under` is the address of a composite or of one item of it, whose inner tasks are asked for.
        """
        keys = cursors.decode(cursor, int, str)
        async with self._database.read() as connection:
            run = await executions.status_of(connection, execution_id)
        if run is None:
            raise unknown(execution_id)
        snapshot = None if run in RUN_ENDS else await self._snapshot(execution_id, run)
        if snapshot is not None:
            return await self._live_tasks(execution_id, snapshot, count, keys, under, status)
        async with self._database.read() as connection:
            rows = await run_detail.task_page(
                connection, execution_id, count=count + 1, after=keys or (-1, ""), under=under, status=status
            )
        more = (
            cursors.encode(rows[count - 1]["position"], rows[count - 1]["task"]) if len(rows) > count else ""
        )
        return [row["shown"] for row in rows[:count]], more

    async def _live_tasks(
        self,
        execution_id: str,
        snapshot: Snapshot,
        count: int,
        keys: tuple[Any, ...] | None,
        under: str,
        status: str,
    ) -> tuple[list[Record], str]:
        """A page of what the run says now, and of what its parts have recorded beside it."""
        async with self._database.read() as connection:
            recorded = await run_detail.task_index(connection, execution_id)
            known = [{"id": task, "status": stood} for task, stood in recorded]
            standing = live_tasks.merged(known, snapshot.tasks)
            start = live_tasks.after(standing, keys)
            chosen = [
                (position, task)
                for position, task in enumerate(standing)
                if position >= start and live_tasks.fits(task, under, status)
            ][: count + 1]
            page = [task["id"] for _, task in chosen[:count]]
            whole = await run_detail.some_tasks(connection, execution_id, page)
            attempts = await run_detail.attempts(connection, execution_id, page)
        more = ""
        if len(chosen) > count:
            position, last = chosen[count - 1]
            more = cursors.encode(position, last["id"])
        shown = [
            (task if "attempts" in task else whole[task["id"]])
            | {"attempt_log": attempts.get(task["id"], [])}
            for _, task in chosen[:count]
        ]
        return shown, more

    async def page(
        self,
        *,
        count: int,
        cursor: str = "",
        workflow: str = "",
        commit_sha: str = "",
        status: str = "",
        started_by: str = "",
        parent: str = "",
        root: str = "",
        rerun_of: str = "",
    ) -> tuple[list[Record], str]:
        """Runs, the newest first, and the cursor of the next page ("" if there is none)."""
        before = cursors.decode(cursor, str)
        source, _, name = workflow.rpartition("/")
        async with self._database.read() as connection:
            commit_sha = await one_commit(connection, commit_sha)
            rows = await executions.page(
                connection,
                count=count + 1,
                before=before[0] if before else "",
                workflow=name,
                source=source,
                commit_sha=commit_sha,
                status=status,
                started_by=started_by,
                parent=parent,
                root=root,
                rerun_of=rerun_of,
            )
        more = len(rows) > count
        return rows[:count], cursors.encode(rows[count - 1]["id"]) if more else ""


async def one_commit(connection: Connection, text: str) -> str:
    """A full or short commit SHA for a search, lower-case. Raises `InvalidInput`, also if it means several revisions."""
    sha = _commit_prefix(text)
    if not sha or len(sha) >= 40:
        return sha
    found = await registry.revisions_by_prefix(connection, sha)
    commits = sorted({revision["sha"] for revision in found})
    if len(commits) > 1:
        raise ambiguous_ref(text, commits)
    return sha


def _commit_prefix(text: str) -> str:
    sha = text.lower()
    if sha and (not 4 <= len(sha) <= 64 or any(character not in "0123456789abcdef" for character in sha)):
        raise InvalidInput(
            f"{text[:80]!r} is no commit SHA",
            [InputProblem("/commit_sha", "give a full commit SHA or at least 4 characters of one")],
        )
    return sha


def _live_status(recorded: str, snapshot: Snapshot) -> str:
    # The run's last step writes its end with its outputs; until then it is not over for anybody.
    return recorded if snapshot.status in RUN_ENDS else snapshot.status
