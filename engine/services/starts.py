"""The start of a run: its row, its key, its audit and the intent to tell Temporal, in one statement; then the telling."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from engine import faults
from engine.core.contracts import Carried, Json, Pin, RunStart
from engine.errors import Conflict, InvalidDefinition, InvalidInput, NotFound, Unavailable
from engine.executor.dispatcher import HEAD_START, Dispatcher, callback_of
from engine.executor.runs import StartRequest
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.registry import closure
from engine.registry.workflow_registry import PinnedVersion
from engine.services.callers import Caller
from engine.services.ids import new_id
from engine.services.inputs import Preparations, Prepared
from engine.storage import executions, outbox
from engine.storage.database import Database


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller asks for, whatever version it will be of. `hashed` tells one request of a key from another."""

    caller: Caller
    inputs: dict[str, Json]
    key: str
    hashed: str
    targets: tuple[str, ...] = ()
    trigger: Json = None
    rerun_of: str = ""
    carried: dict[str, Carried] = field(default_factory=dict)


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
class Begun:
    """A run whose row is written, and the message that is to start it."""

    message_id: int
    run: executions.NewRun
    request: StartRequest


class Starts:
    """Begins runs, each key once."""

    def __init__(
        self,
        database: Database,
        preparations: Preparations,
        executor: TemporalWorkflowExecutor,
        dispatcher: Dispatcher,
        *,
        callback_base: str = "",
    ) -> None:
        self._database = database
        self._preparations = preparations
        self._executor = executor
        self._dispatcher = dispatcher
        self._callback_base = callback_base

    async def once(self, ask: Ask, begin: Callable[[], Awaitable[Begun]]) -> Started:
        """Begin a run and tell Temporal, or give back the run that the key of the request led to before.

        Raises `Conflict` if that was another request, `Unavailable`, and what `begin` raises.
        """
        require_temporal(self._executor)
        try:
            begun = await begin()
        except executions.KeyTaken:
            known = await self._known(ask)
            assert known is not None, "keys are never deleted"
            return known
        except (NotFound, InvalidInput, InvalidDefinition):
            # A repeat must get the first answer, whatever was merged or retired meanwhile.
            if ask.key and (known := await self._known(ask)):
                return known
            raise
        await faults.point("start.after_commit")
        sent = await self._dispatcher.send_start(begun.message_id, begun.request)
        return _started(begun.run, "RUNNING" if sent else "PENDING")

    async def write(
        self, ask: Ask, version: PinnedVersion, *, if_live: bool = False, if_only: bool = False
    ) -> Begun | None:
        """Write the row of a run of this version; None if it was to be done only under conditions that do not hold.

        See `executions.begin`.  Raises `InvalidInput`, `Unavailable` and `executions.KeyTaken`.
        """
        prepared = await self._preparations.of(version.pin.compiled_digest)
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
        return Begun(message_id, run, self._request(ask, run, version, prepared.size))

    def _request(self, ask: Ask, run: executions.NewRun, version: PinnedVersion, size: int) -> StartRequest:
        start = RunStart(
            execution_id=run.id,
            pin=version.pin,
            inputs=dict(run.inputs),
            started_by=run.started_by,
            started_at=rfc3339(run.created_at),
            trigger=run.trigger,
            targets=ask.targets,
            carried=ask.carried,
            rerun_of=run.rerun_of,
            callback=callback_of(run.callback_key, self._callback_base),
        )
        return StartRequest(start, size, run.title)

    async def _recorded(self, execution_id: str) -> int | None:
        async with self._database.read() as connection:
            messages = await outbox.of_execution(connection, execution_id)
        return messages[0].id if messages else None

    async def _known(self, ask: Ask) -> Started | None:
        """The run that the key led to. Raises `Conflict` if that was another request."""
        async with self._database.read() as connection:
            row = await executions.by_key(connection, ask.caller.subject, ask.key)
        if row is None:
            return None
        if row["request_hash"] != ask.hashed:
            raise Conflict(
                f"the idempotency key {ask.key!r} was used for another request, which led to run {row['id']}",
                hint="a new request needs a new key",
            )
        names = ("id", "workflow", "source", "commit_sha", "revision_sha", "digest", "status", "created_at")
        return Started(**{name: row[name] for name in names}, repeated=True)


def request_hash(request: str) -> str:
    """What tells the requests of one key apart."""
    return hashlib.sha256(request.encode()).hexdigest()


def require_temporal(executor: TemporalWorkflowExecutor) -> None:
    """Raise `Unavailable`, before anything is recorded, if Temporal is known to be away."""
    if executor.away:
        raise Unavailable(
            "Temporal is away: nothing was recorded", retry_after=2, hint="try again; reads go on"
        )


def unknown(execution_id: str) -> NotFound:
    """Nobody knows such a run."""
    return NotFound(
        f"no run {execution_id[:80]}", hint="`pinflow executions ls` and GET /executions list them"
    )


def rfc3339(at: datetime) -> str:
    """A moment as text, in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _new_run(ask: Ask, version: PinnedVersion, prepared: Prepared) -> executions.NewRun:
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
        rerun_of=ask.rerun_of,
        carried={address: asdict(kept) for address, kept in ask.carried.items()} or None,
        callback_key=secrets.token_hex(32) if prepared.signals or pin.closure else None,
        details=_details(pin, ask),
    )


def _details(pin: Pin, ask: Ask) -> dict[str, Json]:
    """What the audit says of a start besides its version: only what there is."""
    found: dict[str, Json] = {}
    if pin.closure:
        found["closure_digest"] = closure.digest_of(pin.calls, pin.closure)
    if ask.targets:
        found["targets"] = list(ask.targets)
    if ask.trigger is not None:
        found["trigger"] = {name: ask.trigger.get(name) for name in ("type", "id")}
    if ask.rerun_of:
        found["rerun_of"] = ask.rerun_of
        found["carried"] = sorted(ask.carried)[:100]
    return found


def _started(run: executions.NewRun, status: str) -> Started:
    return Started(
        run.id, run.workflow, run.source, run.commit_sha, run.revision_sha, run.digest, status, run.created_at
    )
