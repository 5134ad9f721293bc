"""The outbox relay: tells Temporal what Postgres has promised, until it is done.

Every send is idempotent (a start by its workflow id, an approval and a second cancel by their ids in the brain, a
first cancel because Temporal takes one per run), so two relays at once, or one that wakes after a long sleep, do no harm.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import structlog

from engine import faults
from engine.core.contracts import Carried, Json, Pin, RunStart
from engine.errors import NotFound, Unavailable
from engine.executor.runs import StartRequest
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.passes import keep_on
from engine.storage import executions, outbox
from engine.storage.database import Database
from engine.storage.outbox import Message

HEAD_START = 5.0
"""Seconds for which the loop leaves a new message to the process that wrote it and sends it at once."""

_ACTOR = "dispatcher"
_LEASE = 30.0
_REFUSALS = 5
"""After so many refusals of the request itself a message is parked; an absent Temporal never counts as one."""

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Sends the messages of the outbox. `run` is the loop of a worker; `dispatch_now` and `send_start` the API's fast path.

    `callback_base` is the address at which callbacks reach the API.
    """

    def __init__(
        self,
        database: Database,
        executor: TemporalWorkflowExecutor,
        *,
        interval: float = 0.5,
        batch: int = 32,
        callback_base: str = "",
    ) -> None:
        self._database = database
        self._callback_base = callback_base
        self._executor = executor
        self._interval = interval
        self._batch = batch
        self._started = _Started(database)

    async def run(self) -> None:
        """Relay until cancelled. An absent Postgres or Temporal is waited for."""
        await keep_on(self.pass_once, what="messages for Temporal", pause=self._interval, full=self._batch)

    async def pass_once(self) -> int:
        """Claim and send one batch; how many were claimed."""
        messages = await outbox.claim(self._database, self._batch, lease=_LEASE)
        outcomes = await asyncio.gather(
            *(self._relay(message) for message in messages), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(messages)

    async def dispatch_now(self, execution_id: str) -> None:
        """Send what one run waits for, in order, without waiting for the loop.

        Never raises for what the loop will mend: the messages are durable.
        """
        try:
            async with self._database.read() as connection:
                messages = await outbox.of_execution(connection, execution_id)
            for message in messages:
                if not await self._relay(message):
                    return
        except Unavailable as error:
            _log.warning("left to the dispatcher", execution_id=execution_id, reason=error.message)

    async def send_start(self, message_id: int, request: StartRequest) -> bool:
        """Send a start whose row was written a moment ago; True once the run is RUNNING. Never raises, as above."""
        message = Message(message_id, "start", request.start.execution_id, {})
        try:
            return await self._relay(message, request)
        except Unavailable as error:
            _log.warning("left to the dispatcher", execution_id=message.execution_id, reason=error.message)
            return False

    async def _relay(self, message: Message, request: StartRequest | None = None) -> bool:
        """Send one message and note the outcome; True if it is done with. Raises `Unavailable` without Postgres."""
        try:
            await faults.point("dispatch.before_send")
            await self._send(message, request)
            await faults.point("dispatch.after_send")
        except Unavailable as error:
            await self._postpone(message, error)
            return False
        except NotFound:
            if message.kind == "start":
                return await self._refuse(message, "Temporal does not know the run it was asked to start")
            return await self._too_late(message)
        except Exception as error:  # one poisoned message must not stop the others (P9)
            return await self._refuse(message, f"{type(error).__name__}: {error}")
        if message.kind == "start":
            await self._started.note(message.id)
        else:
            async with self._database.begin() as connection:
                await outbox.sent(connection, message.id, actor=_ACTOR)
        return True

    async def _send(self, message: Message, request: StartRequest | None) -> None:
        match message.kind:
            case "start":
                await self._executor.start(request or await self._request(message.execution_id))
            case "cancel":
                await self._cancel(message)
            case "approval" | "pause" | "resume" | "signal" | "slot":
                body = {**message.body}
                workflow_id = body.pop("to", "") or message.execution_id
                await self._executor.signal(workflow_id, f"pinflow.{message.kind}", body)
            case unknown:
                raise ValueError(f"outbox message {message.id} is of the unknown kind {unknown!r}")

    async def _cancel(self, message: Message) -> None:
        said = message.body
        if said.get("again"):
            await self._executor.cancel_again(
                message.execution_id, by=said["by"], reason=said["reason"], id=said["id"]
            )
        else:
            await self._executor.cancel(message.execution_id, by=said["by"], reason=said["reason"])

    async def _request(self, execution_id: str) -> StartRequest:
        async with self._database.read() as connection:
            row = await executions.start_of(connection, execution_id)
        if row is None:
            raise LookupError(f"no row for the run {execution_id}")
        return start_request(row, self._callback_base)

    async def _postpone(self, message: Message, error: Unavailable) -> None:
        delay = max(1.0, error.retry_after) * random.uniform(0.8, 1.2)
        async with self._database.begin() as connection:
            await outbox.postpone(connection, message.id, delay=delay, error=error.message)
        _log.warning(
            "Temporal is away", execution_id=message.execution_id, kind=message.kind, reason=error.message
        )

    async def _too_late(self, message: Message) -> bool:
        async with self._database.begin() as connection:
            await outbox.too_late(connection, message.id, actor=_ACTOR)
        _log.info("too late for a closed run", execution_id=message.execution_id, kind=message.kind)
        return True

    async def _refuse(self, message: Message, reason: str) -> bool:
        delay = min(60.0, 2.0 ** (message.attempts + 1))
        async with self._database.begin() as connection:
            parked = await outbox.refused(connection, message.id, delay=delay, error=reason, limit=_REFUSALS)
            if parked and message.kind == "start":
                error = {"type": "StartRefused", "message": reason, "task": "", "details": None}
                await outbox.never_started(connection, message.execution_id, error=error, actor=_ACTOR)
        log = _log.error if parked else _log.warning
        log(
            "message refused",
            execution_id=message.execution_id,
            kind=message.kind,
            reason=reason,
            parked=parked,
        )
        return False


class _Started:
    """Notes starts that were sent: those that come in while a statement is under way share the next one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._writer: asyncio.Task[None] | None = None

    async def note(self, message_id: int) -> None:
        """Return once it is in Postgres. Raises `Unavailable`: then the message is sent again, which does no harm."""
        done = self._waiting.get(message_id)
        if done is None:
            done = self._waiting[message_id] = asyncio.get_running_loop().create_future()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="starts sent")
        await asyncio.shield(done)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                await outbox.started(self._database, list(batch), actor=_ACTOR)
            except Exception as error:
                for done in batch.values():
                    done.set_exception(error)
                    done.exception()  # seen, also if nobody waits any more
            else:
                for done in batch.values():
                    done.set_result(None)
        self._writer = None


def start_request(row: Mapping[str, Any], callback_base: str = "") -> StartRequest:
    """What `executions.start_of` read, as a request: the row is the only source of the pin."""
    pin = Pin(
        workflow=row["workflow"],
        source=row["source"],
        commit_sha=row["commit_sha"],
        revision_sha=row["revision_sha"],
        digest=row["digest"],
        compiled_digest=row["compiled_digest"],
        bundle_digest=row["bundle_digest"],
        dsl=row["dsl"],
        calls=row["calls"],
        closure=row["closure"],
    )
    start = RunStart(
        execution_id=row["id"],
        pin=pin,
        inputs=row["inputs"],
        started_by=row["started_by"],
        started_at=row["created_at"].astimezone(UTC).isoformat().replace("+00:00", "Z"),
        trigger=row["trigger"],
        targets=tuple(row["targets"]),
        carried={address: Carried(**kept) for address, kept in (row["carried"] or {}).items()},
        rerun_of=row["rerun_of"],
        callback=callback_of(row["callback_key"], callback_base),
    )
    return StartRequest(start, row["size"], row["title"])


def callback_of(key: str | None, base: str) -> Json:
    """`RunStart.callback` of a run whose row has this `callback_key`."""
    return None if key is None else {"base": base, "key": key}
