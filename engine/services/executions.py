"""Runs: start, look, list, cancel."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from engine import faults
from engine.core.contracts import Json, Pin, RunStart
from engine.core.states import RUN_ENDS
from engine.errors import (
    Conflict,
    InputProblem,
    InvalidDefinition,
    InvalidInput,
    NotFound,
    PinflowError,
    Unavailable,
)
from engine.executor.dispatcher import HEAD_START, Dispatcher, callback_of
from engine.executor.runs import Snapshot, StartRequest
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.registry import closure
from engine.registry.workflow_registry import LATEST, PinnedVersion, WorkflowRegistry
from engine.services import cursors
from engine.services.callers import Caller
from engine.services.ids import new_id
from engine.services.inputs import Preparations, Prepared, canonical
from engine.storage import audit, executions, history, outbox
from engine.storage.database import Database
from engine.storage.rows import Record

SNAPSHOT_LIMIT = 1.0
"""Seconds that a reader waits for a run's own word before it gets the last recorded one."""


_REMEMBERED = 10_000
"""Names whose latest version is kept in mind (and compared with the registry at every start)."""


@dataclass(frozen=True, slots=True)
class Started:
    """An acknowledged start. `repeated` if the idempotency key had led to this run before."""

    id: str
    workflow: str
    source: str
    commit_sha: str
    revision_sha: str
    digest: str
    status: str
    created_at: datetime
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class _Ask:
    """What a caller asks for, whatever version it will be of."""

    caller: Caller
    inputs: dict[str, Json]
    key: str
    hashed: str
    targets: tuple[str, ...] = ()
    trigger: Json = None


@dataclass(frozen=True, slots=True)
class _Begun:
    """A run whose row is written, and the message that is to start it."""

    message_id: int
    run: executions.NewRun
    request: StartRequest


class ExecutionService:
    """What callers do with runs."""

    def __init__(
        self,
        database: Database,
        registry: WorkflowRegistry,
        executor: TemporalWorkflowExecutor,
        dispatcher: Dispatcher,
        *,
        callback_base: str = "",
    ) -> None:
        self._database = database
        self._callback_base = callback_base
        self._registry = registry
        self._executor = executor
        self._dispatcher = dispatcher
        self._preparations = Preparations()
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
        hashed = hashlib.sha256(f"{workflow}\n{ref}\n{request}{wanted}".encode()).hexdigest()
        require_temporal(self._executor)
        ask = _Ask(caller, inputs, key, hashed, tuple(targets), trigger)
        try:
            begun = await self._begin_latest(ask, workflow) if ref == LATEST else None
            begun = begun or await self._begin(ask, workflow, ref)
        except executions.KeyTaken:
            known = await self._known(caller, key, hashed)
            assert known is not None, "keys are never deleted"
            return known
        except (NotFound, InvalidInput, InvalidDefinition):
            # A repeat must get the first answer, whatever was merged or retired meanwhile.
            if key and (known := await self._known(caller, key, hashed)):
                return known
            raise
        await faults.point("start.after_commit")
        sent = await self._dispatcher.send_start(begun.message_id, begun.request)
        return _started(begun.run, "RUNNING" if sent else "PENDING")

    async def _begin_latest(self, ask: _Ask, workflow: str) -> _Begun | None:
        """Begin a run of the version that was the latest at the last start, if it still is; else None.

        The statement that writes the row compares the pin with what is live, which saves the look before it.
        """
        version = self._latest.get(workflow)
        if version is None:
            return None
        try:
            return await self._write(ask, version, if_live=True, if_only="/" not in workflow)
        except InvalidInput:
            return None  # perhaps only this version's schema refuses them

    async def _begin(self, ask: _Ask, workflow: str, ref: str) -> _Begun:
        version = await self._registry.pin(workflow, ref)
        if ref == LATEST and version.one_source:  # what another source holds moves without this one
            if len(self._latest) >= _REMEMBERED:
                self._latest.clear()
            self._latest[workflow] = version
        begun = await self._write(ask, version)
        assert begun is not None, "only a conditional start can find that nothing fits"
        return begun

    async def _write(
        self, ask: _Ask, version: PinnedVersion, *, if_live: bool = False, if_only: bool = False
    ) -> _Begun | None:
        digest = version.pin.compiled_digest
        prepared = self._preparations.get(digest)
        if prepared is None:
            prepared = self._preparations.add(digest, await self._registry.compiled(digest))
        run = _new_run(ask, version, prepared)
        await faults.point("start.before_commit")
        try:
            message_id = await executions.begin(
                self._database, run, head_start=HEAD_START, if_live=if_live, if_only=if_only
            )
        except Unavailable:
            # The outcome of a statement whose answer was lost is unknown; the id was made before it.
            message_id = await self._recorded(run.id)
            if message_id is None:
                raise
        if message_id is None:
            return None
        return _Begun(message_id, run, self._request(run, version, prepared.size))

    def _request(self, run: executions.NewRun, version: PinnedVersion, size: int) -> StartRequest:
        start = RunStart(
            execution_id=run.id,
            pin=version.pin,
            inputs=dict(run.inputs),
            started_by=run.started_by,
            started_at=rfc3339(run.created_at),
            trigger=run.trigger,
            targets=tuple(run.targets),
            callback=callback_of(run.callback_key, self._callback_base),
        )
        return StartRequest(start, size, run.title)

    async def _recorded(self, execution_id: str) -> int | None:
        async with self._database.read() as connection:
            messages = await outbox.of_execution(connection, execution_id)
        return messages[0].id if messages else None

    async def _known(self, caller: Caller, key: str, hashed: str) -> Started | None:
        """The run that the key led to. Raises `Conflict` if that was another request."""
        async with self._database.read() as connection:
            row = await executions.by_key(connection, caller.subject, key)
        if row is None:
            return None
        if row["request_hash"] != hashed:
            raise Conflict(
                f"the idempotency key {key!r} was used for another request, which led to run {row['id']}",
                hint="a new request needs a new key",
            )
        names = ("id", "workflow", "source", "commit_sha", "revision_sha", "digest", "status", "created_at")
        return Started(**{name: row[name] for name in names}, repeated=True)

    # --- look -------------------------------------------------------------------------------------------------------

    async def get(self, execution_id: str) -> str:
        """One run with its tasks, attempts and approvals, as JSON text. `live` says whether an open one spoke for itself.

        Raises `NotFound`.
        """
        found = await executions.detail(self._database, execution_id)
        if found is None:
            raise NotFound(
                f"no run {execution_id}", hint="`pinflow executions ls` and GET /executions list them"
            )
        status, text, attempts = found
        if status in RUN_ENDS:
            return text
        run = json.loads(text)
        await self._enliven(run, json.loads(attempts))
        return json.dumps(run, ensure_ascii=False, separators=(",", ":"))

    async def _enliven(self, run: Record, attempts: dict[str, list[Json]]) -> None:
        if any(approval["status"] == "PENDING" for approval in run["approvals"]):
            run["status"] = "WAITING" if run["status"] == "RUNNING" else run["status"]
        if run["status"] == "PENDING" or self._executor.away:
            return
        try:
            snapshot = await self._executor.snapshot(run["id"], limit=SNAPSHOT_LIMIT)
        except PinflowError:
            return  # no worker, or local work hides the run: the rows are what is known
        run["live"] = True
        run["tasks"] = [
            _task(task) | {"attempt_log": attempts.get(task["id"], [])} for task in snapshot.tasks
        ]
        run["status"] = _live_status(run["status"], snapshot)

    async def page(
        self,
        *,
        count: int,
        cursor: str = "",
        workflow: str = "",
        commit_sha: str = "",
        status: str = "",
        started_by: str = "",
    ) -> tuple[list[Record], str]:
        """Runs, the newest first, and the cursor of the next page ("" if there is none)."""
        before = cursors.decode(cursor, str)
        source, _, name = workflow.rpartition("/")
        async with self._database.read() as connection:
            rows = await executions.page(
                connection,
                count=count + 1,
                before=before[0] if before else "",
                workflow=name,
                source=source,
                commit_sha=commit_prefix(commit_sha),
                status=status,
                started_by=started_by,
            )
        for row in rows:
            if row.pop("waits"):
                row["status"] = "WAITING"
        more = len(rows) > count
        return rows[:count], cursors.encode(rows[count - 1]["id"]) if more else ""

    # --- cancel -----------------------------------------------------------------------------------------------------

    async def cancel(self, caller: Caller, execution_id: str, *, reason: str = "") -> str:
        """Ask a run to end; its status by now. A second request skips the clean-up.

        Raises `NotFound`, `Conflict` if it has ended, `Unavailable`.
        """
        caller.require("operator")
        require_temporal(self._executor)
        async with self._database.begin() as connection:
            run = await executions.lock(connection, execution_id)
            if run is None:
                raise NotFound(
                    f"no run {execution_id}", hint="`pinflow executions ls` and GET /executions list them"
                )
            if run["status"] in RUN_ENDS:
                raise Conflict(f"run {execution_id} has ended already: {run['status']}")
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
        await self._dispatcher.dispatch_now(execution_id)
        return str(run["status"])


def require_temporal(executor: TemporalWorkflowExecutor) -> None:
    """Raise `Unavailable`, before anything is recorded, if Temporal is known to be away."""
    if executor.away:
        raise Unavailable(
            "Temporal is away: nothing was recorded", retry_after=2, hint="try again; reads go on"
        )


def commit_prefix(text: str) -> str:
    """A full or short commit SHA for a search, lower-case. Raises `InvalidInput`."""
    sha = text.lower()
    if sha and (not 4 <= len(sha) <= 64 or any(character not in "0123456789abcdef" for character in sha)):
        raise InvalidInput(
            f"{text[:80]!r} is no commit SHA",
            [InputProblem("/commit_sha", "give a full commit SHA or at least 4 characters of one")],
        )
    return sha


def _new_run(ask: _Ask, version: PinnedVersion, prepared: Prepared) -> executions.NewRun:
    pin = version.pin
    inputs = prepared.checked(ask.inputs)
    prepared.require_targets(ask.targets)
    return executions.NewRun(
        id=new_id(),
        source_id=version.source_id,
        source=pin.source,
        workflow=pin.workflow,
        version_id=version.version_id,
        commit_sha=pin.commit_sha,
        revision_sha=pin.revision_sha,
        digest=pin.digest,
        compiled_digest=pin.compiled_digest,
        bundle_digest=pin.bundle_digest,
        dsl=pin.dsl,
        inputs=inputs,
        title=prepared.titled(pin, inputs, ask.trigger),
        started_by=ask.caller.subject,
        created_at=datetime.now(UTC),
        key=ask.key,
        request_hash=ask.hashed,
        live_seq=version.seq,
        calls=pin.calls,
        closure=pin.closure,
        targets=ask.targets,
        trigger=ask.trigger,
        callback_key=secrets.token_hex(32) if prepared.signals or pin.closure else None,
        details=_details(pin, ask),
    )


def _details(pin: Pin, ask: _Ask) -> dict[str, Json]:
    """What the audit says of a start besides its version: only what there is."""
    found: dict[str, Json] = {}
    if pin.closure:
        found["closure_digest"] = closure.digest_of(pin.calls, pin.closure)
    if ask.targets:
        found["targets"] = list(ask.targets)
    if ask.trigger is not None:
        found["trigger"] = {name: ask.trigger.get(name) for name in ("type", "id")}
    return found


def _started(run: executions.NewRun, status: str) -> Started:
    return Started(
        run.id, run.workflow, run.source, run.commit_sha, run.revision_sha, run.digest, status, run.created_at
    )


def rfc3339(at: datetime) -> str:
    """A moment as text, in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _live_status(recorded: str, snapshot: Snapshot) -> str:
    # The run's last step writes its end with its outputs; until then it is not over for anybody.
    return recorded if snapshot.status in RUN_ENDS else snapshot.status


def _task(task: dict[str, Any]) -> dict[str, Any]:
    shown = {name: task.get(name) for name in ("id", "status", "skip_reason", "attempts", "outputs", "error")}
    for name in ("started_at", "finished_at"):
        at = task.get(name)
        shown[name] = None if at is None else rfc3339(datetime.fromtimestamp(at, UTC))
    return shown
