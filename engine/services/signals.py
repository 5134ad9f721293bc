"""Signals: word from outside to a run, by name or through the callback URL of one task.

The row comes first, and the message to Temporal in the same transaction; the brain keeps what comes early, and takes
each once by its id.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

from engine import faults
from engine.core.contracts import MOST_SIGNALS, Json
from engine.core.ids import callback_token
from engine.core.states import RUN_ENDS
from engine.errors import Conflict, InputProblem, InvalidInput, NotFound
from engine.executor.dispatcher import HEAD_START, Dispatcher
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.services.awaited import Awaited, static_path
from engine.services.callers import Caller
from engine.services.ids import new_id
from engine.services.inputs import Preparations, canonical, validator_of
from engine.services.inputs import faults as schema_faults
from engine.services.starts import require_temporal, unknown
from engine.services.steering import open_run
from engine.storage import audit, executions, outbox, signals
from engine.storage.database import Connection, Database
from engine.storage.rows import Record

CALLBACK = "callback"
"""Who sends what comes through a callback URL: whoever holds it."""
MAX_PAYLOAD = 256 * 1024
"""Bytes of JSON: a payload goes through Temporal as it is, and is kept by the run until it is taken."""


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal that is durable. `repeated` if its key had been used for it before."""

    id: str
    execution_id: str
    name: str
    repeated: bool = False


class SignalService:
    """Signals by name, and callbacks."""

    def __init__(
        self,
        database: Database,
        preparations: Preparations,
        executor: TemporalWorkflowExecutor,
        dispatcher: Dispatcher,
    ) -> None:
        self._database = database
        self._preparations = preparations
        self._executor = executor
        self._dispatcher = dispatcher

    async def signal(
        self,
        caller: Caller,
        execution_id: str,
        name: str,
        payload: Json,
        *,
        correlation: str = "",
        key: str = "",
    ) -> Signalled:
        """Send a signal to whichever task waits for it now or later.

        The same `key` again is the same signal.  Raises `NotFound` (the run, or no task waits for such a signal),
        `InvalidInput` (the payload fits no such task), `Conflict` (the run is over, or the key was another signal's)
        and `Unavailable`.
        """
        caller.require("operator")
        _require_payload(payload)
        require_temporal(self._executor)
        signal = {
            "id": key or new_id(),
            "name": name,
            "payload": payload,
            "correlation": correlation,
            "task": "",
        }
        found = await self._run(execution_id)
        if found is None:
            raise unknown(execution_id)
        run, awaited = found
        async with self._database.begin() as connection:
            await executions.lock(connection, execution_id)
            if key and (known := await self._known(connection, caller, execution_id, signal)):
                return known
            await open_run(connection, execution_id, "be signalled")
            _require_fit([each for each in awaited if each.name == name], awaited, name, payload)
            await _write(connection, run, signal, caller.subject)
        await faults.point("signal.after_commit")
        await self._dispatcher.dispatch_now(execution_id)
        return Signalled(signal["id"], execution_id, name)

    async def callback(self, execution_id: str, address: str, token: str, payload: Json) -> None:
        """Take what somebody sends to the callback URL of a task. The URL is good for one use.

        Raises `NotFound` for whatever is wrong with it, with no word of what, `InvalidInput` if the payload does not
        fit (the URL is then still good), and `Unavailable`.
        """
        require_temporal(self._executor)
        found = await self._run(execution_id)
        run, awaited = found or ({}, ())
        key = run.get("callback_key") or ""
        # Compared whatever the run is, so that the time of the answer tells nothing.
        fits = hmac.compare_digest(callback_token(key, address).encode(), token.encode(errors="replace"))
        path = static_path(address)
        task = next((each for each in awaited if each.path == path), None)
        if not (fits and key) or task is None or run["status"] in RUN_ENDS:
            raise _no_callback()
        _require_payload(payload)
        _require_fit([task], (), task.name, payload)
        signal = {
            "id": f"callback {address}",  # no key of a caller holds a blank
            "name": task.name,
            "payload": payload,
            "correlation": "",
            "task": address,
        }
        async with self._database.begin() as connection:
            locked = await executions.lock(connection, execution_id)
            if locked is None or locked["status"] in RUN_ENDS:
                raise _no_callback()
            if not await _write(connection, run, signal, CALLBACK):
                raise _no_callback()
        await faults.point("callback.after_commit")
        await self._dispatcher.dispatch_now(execution_id)

    async def _run(self, execution_id: str) -> tuple[Record, Sequence[Awaited]] | None:
        """The row of a run, and what its tasks may wait for."""
        async with self._database.read() as connection:
            run = await executions.start_of(connection, execution_id)
        if run is None:
            return None
        return run, (await self._preparations.of(run["compiled_digest"])).signals

    async def _known(
        self, connection: Connection, caller: Caller, execution_id: str, signal: Record
    ) -> Signalled | None:
        """The signal that had this key before. Raises `Conflict` if it was another one."""
        row = await signals.get(connection, execution_id, signal["id"])
        if row is None:
            return None
        same = all(row[name] == signal[name] for name in ("name", "payload", "correlation", "task"))
        if not same or row["by"] != caller.subject:
            raise Conflict(
                f"the idempotency key {signal['id']!r} was used for another signal of this run",
                hint="a new signal needs a new key",
            )
        return Signalled(row["id"], execution_id, row["name"], repeated=True)


async def _write(connection: Connection, run: Record, signal: Record, by: str) -> bool:
    """The row, the audit and the message; False if the signal is there already."""
    if await signals.count(connection, run["id"]) >= MOST_SIGNALS:
        raise Conflict(f"run {run['id']} was sent {MOST_SIGNALS} signals, and takes no more")
    if not await signals.add(connection, run["id"], by=by, **signal):
        return False
    await outbox.enqueue(connection, "signal", run["id"], {**signal, "by": by}, delay=HEAD_START)
    details = {name: signal[name] for name in ("id", "name", "correlation", "task") if signal[name]}
    await audit.record(
        connection,
        "execution.signalled",
        actor=by,
        source=run["source"],
        workflow=run["workflow"],
        execution_id=run["id"],
        commit_sha=run["commit_sha"],
        details=details,
    )
    return True


def _require_payload(payload: Json) -> None:
    if len(canonical(payload, "payload").encode()) > MAX_PAYLOAD:
        problem = InputProblem("/payload", f"send at most {MAX_PAYLOAD} bytes, or a reference to more")
        raise InvalidInput("the payload is too large", [problem])


def _require_fit(waiting: Sequence[Awaited], all_of: Sequence[Awaited], name: str, payload: Json) -> None:
    """Raise unless a task waits for such a signal, and the payload fits one that does."""
    if not waiting:
        names = ", ".join(sorted({each.name for each in all_of})[:20])
        raise NotFound(
            f"no task of this run waits for a signal {name[:80]!r}",
            hint=f"there are: {names}" if names else "no task of it waits for any signal",
        )
    first: list[InputProblem] = []
    for each in waiting:
        if each.schema is None:
            return
        problems = schema_faults(validator_of(json.dumps(each.schema, sort_keys=True)), payload, "payload")
        if not problems:
            return
        first = first or problems
    raise InvalidInput(f"the payload does not fit what waits for {name}", first)


def _no_callback() -> NotFound:
    return NotFound("no such callback: the URL is wrong, was used before, or its run is over")
