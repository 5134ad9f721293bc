"""Triggers: what a schedule's moment becomes, backfills, and how triggers stand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from engine import faults
from engine.activities.secrets import VARIABLE, SecretRequest, Secrets
from engine.core.contracts import Json, TaskError
from engine.core.triggering import inputs_of, trigger_of
from engine.core.values import UNFORESEEN
from engine.errors import Conflict, InputProblem, InvalidInput, NotFound, PinflowError, Unavailable
from engine.executor.schedules import Outlook, Schedules
from engine.executor.temporal_executor import TemporalWorkflowExecutor
from engine.registry.workflow_registry import WorkflowRegistry
from engine.services.callers import Caller
from engine.services.live_starts import LiveStarts
from engine.services.starts import rfc3339
from engine.services.steering import SteeringService
from engine.storage import audit, history, mending, triggers
from engine.storage.database import Connection, Database
from engine.storage.rows import Record

BACKFILLED_AT_ONCE = 100
"""Runs that one call starts at most; the answer says where to go on."""
_OUTLOOK = 1.0
"""Seconds that a reader waits for Temporal's word on what comes next, and for that of a provider of secrets."""
_SHORTEST, _LONGEST = 1.0, 30.0
"""Seconds between two looks of a moment that waits for another run to end."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Moment:
    """A scheduled time of a trigger. `key` names it, and with its `prefix` the run that it leads to."""

    source: str
    workflow: str
    trigger: str
    at: datetime

    @property
    def key(self) -> str:
        """The scheduled time as text."""
        return rfc3339(self.at)

    @property
    def prefix(self) -> str:
        """What makes the key unique among all triggers."""
        return key_prefix(self.source, self.workflow, self.trigger)

    @property
    def caller(self) -> Caller:
        """Who starts the run."""
        return caller_of(self.trigger)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What is to be done at a moment: an answer that is final, or runs to end, or a start."""

    trigger: Record | None = None
    final: Json = None
    waits: float = 0.0
    waits_for: str = ""
    ending: tuple[str, ...] = ()
    terminate: bool = False
    previous: datetime | None = None


class TriggerService:
    """What fires, and what callers do with triggers."""

    def __init__(
        self,
        database: Database,
        registry: WorkflowRegistry,
        live: LiveStarts,
        steering: SteeringService,
        executor: TemporalWorkflowExecutor,
        secrets: Secrets,
    ) -> None:
        self._database = database
        self._registry = registry
        self._live = live
        self._secrets = secrets
        self._steering = steering
        self._executor = executor
        self._schedules = Schedules(executor.client, task_queue=executor.task_queue)

    # --- a schedule fires -------------------------------------------------------------------------------------------

    async def fire(self, fired: Mapping[str, Any]) -> dict[str, Json]:
        """Start the run of a scheduled moment, or say why there is none: `{status, execution_id, reason}`.

        Safe to repeat.  Raises `Unavailable` if it has to wait, for a run before it or for a server.
        """
        at = datetime.fromisoformat(fired["scheduled_at"])
        moment = Moment(fired["source"], fired["workflow"], fired["trigger"], at)
        if not await self._wanted(moment):
            return await self._settle(moment, "IGNORED", "`when` is false")
        judged = await self._judge(moment, datetime.fromisoformat(fired["fired_at"]))
        if judged.final is not None:
            return dict(judged.final)
        await self._end_others(moment, judged)
        if judged.waits:
            raise Unavailable(f"waits for run {judged.waits_for} to end", retry_after=judged.waits)
        await faults.point("fire.after_claim")
        return await self._start(moment, judged.trigger, judged.previous)

    async def _wanted(self, moment: Moment) -> bool:
        """Whether `when` lets the moment pass. What cannot be told yet is told at the start."""
        try:
            version = await self._registry.resolve(f"{moment.source}/{moment.workflow}")
            compiled = await self._registry.compiled(version.pin.compiled_digest)
            trigger = trigger_of(compiled, moment.trigger)
            return trigger is None or inputs_of(compiled, trigger, _said(moment, None)) is not None
        except (*UNFORESEEN, PinflowError) as error:
            if isinstance(error, Unavailable):
                raise
            return True

    async def _judge(self, moment: Moment, fired_at: datetime) -> _Judged:
        """Look at the moments before this one, all under a lock of the trigger, and note what becomes of this one."""
        async with self._database.begin() as connection:
            trigger = await triggers.lock(connection, moment.source, moment.workflow, moment.trigger)
            if trigger is None or trigger["spec"]["type"] != "schedule":
                return _Judged(final=_answer("GONE", "no live version has this trigger"))
            mine = await triggers.fire(connection, trigger, moment.key)
            if mine is not None and mine["status"] not in ("CLAIMED", "WAITING"):
                return _Judged(final=_answer(mine["status"], mine["reason"], mine["execution_id"]))
            if mine is None and _late(trigger, fired_at):
                reason = "nobody could look at it within `catchup_window`"
                return await _leave_out(connection, trigger, moment, "MISSED", reason)
            previous = await triggers.previous(connection, trigger, moment.at)
            found = await triggers.others(
                connection, trigger, moment.key, subject=moment.caller.subject, prefix=moment.prefix
            )
            await triggers.settle(connection, trigger, [each["key"] for each in found if each["over"]])
            judged = await _overlap(connection, trigger, moment, mine, [f for f in found if not f["over"]])
            if judged.final is not None:
                return judged
            await triggers.put_fire(
                connection,
                trigger,
                moment.key,
                "WAITING" if judged.waits else "CLAIMED",
                scheduled_at=moment.at,
                reason=f"waits for run {judged.waits_for}" if judged.waits else "",
            )
            return _Judged(
                trigger,
                None,
                judged.waits,
                judged.waits_for,
                judged.ending,
                judged.terminate,
                previous,
            )

    async def _end_others(self, moment: Moment, judged: _Judged) -> None:
        reason = f"the next moment of the schedule {moment.trigger} has come"
        for run in judged.ending:
            try:
                if judged.terminate:
                    await self._executor.terminate(run, reason=reason)
                    await self._note_terminated(run, reason, moment.caller.subject)
                else:
                    await self._steering.cancel(moment.caller, run, reason=reason)
            except (NotFound, Conflict):
                pass  # it has ended by itself, or is not yet in Temporal: the next look sees

    async def _note_terminated(self, run: str, reason: str, actor: str) -> None:
        async with self._database.begin() as connection:
            await mending.end(
                connection,
                run,
                status="FAILED",
                outputs=None,
                error=asdict(TaskError("Terminated", reason)),
                finished_at=None,
                why=reason,
                actor=actor,
            )

    async def _start(
        self, moment: Moment, trigger: Record | None, previous: datetime | None, *, backfill: bool = False
    ) -> dict[str, Json]:
        assert trigger is not None
        said = _said(moment, previous)
        try:
            started = await self._live.start(
                moment.caller,
                f"{moment.source}/{moment.workflow}",
                lambda compiled: _inputs(compiled, moment.trigger, said),
                key=moment.prefix + moment.key,
                trigger=said,
            )
        except Unavailable:
            raise
        except (*UNFORESEEN, PinflowError) as error:
            return await self._settle(moment, "FAILED", str(error), backfill=backfill)
        if started is None:
            return await self._settle(moment, "IGNORED", "`when` is false", backfill=backfill)
        await faults.point("fire.after_start")
        async with self._database.begin() as connection:
            await triggers.put_fire(
                connection,
                trigger,
                moment.key,
                "STARTED",
                scheduled_at=moment.at,
                backfill=backfill,
                execution_id=started.id,
                settled=backfill or trigger["spec"].get("overlap") == "allow_all",
            )
        return _answer("STARTED", "", started.id) | {"repeated": started.repeated}

    async def _settle(
        self, moment: Moment, status: str, reason: str, *, backfill: bool = False
    ) -> dict[str, Json]:
        """Note that there is no run for a moment, and why."""
        async with self._database.begin() as connection:
            trigger = await triggers.lock(connection, moment.source, moment.workflow, moment.trigger)
            if trigger is None:
                return _answer("GONE", "no live version has this trigger")
            mine = await triggers.fire(connection, trigger, moment.key)
            if mine is not None and mine["status"] == "STARTED":
                return _answer("STARTED", execution_id=mine["execution_id"])
            await triggers.put_fire(
                connection,
                trigger,
                moment.key,
                status,
                scheduled_at=moment.at,
                backfill=backfill,
                reason=reason,
                settled=True,
            )
            if status != "IGNORED":
                await _record(connection, moment, f"trigger.{status.lower()}", reason)
        if status == "FAILED":
            _log.error("trigger failed", workflow=moment.workflow, trigger=moment.trigger, reason=reason)
        return _answer(status, reason)

    # --- callers ----------------------------------------------------------------------------------------------------

    async def backfill(
        self, caller: Caller, workflow: str, trigger: str, since: datetime, until: datetime
    ) -> dict[str, Json]:
        """Start a run for each scheduled time from `since` on and before `until` that has had none.

        At most `BACKFILLED_AT_ONCE`; `next` says where to go on, null at the end.  Raises `NotFound`, `InvalidInput`.
        """
        caller.require("operator")
        row = await self._only(workflow, trigger)
        if row["spec"]["type"] != "schedule":
            raise InvalidInput(f"trigger {trigger} is a {row['spec']['type']}: only a schedule has times")
        if since >= until:
            raise InvalidInput("the span is empty", [InputProblem("/from", "must be before `to`")])
        if until > datetime.now(UTC):
            raise InvalidInput(
                "the span reaches into the future", [InputProblem("/to", "must not be after now")]
            )
        times = await self._schedules.times(row["spec"], since, until, BACKFILLED_AT_ONCE + 1)
        now, rest = times[:BACKFILLED_AT_ONCE], times[BACKFILLED_AT_ONCE:]
        items = [await self._again(row, Moment(row["source"], row["workflow"], trigger, at)) for at in now]
        async with self._database.begin() as connection:
            await audit.record(
                connection,
                "trigger.backfilled",
                actor=caller.subject,
                source=row["source"],
                workflow=row["workflow"],
                details={
                    "trigger": trigger,
                    "from": rfc3339(since),
                    "to": rfc3339(until),
                    "started": sum(item["status"] == "STARTED" and not item["repeated"] for item in items),
                },
            )
        return {"items": items, "next": rfc3339(rest[0]) if rest else None}

    async def _again(self, row: Record, moment: Moment) -> dict[str, Json]:
        async with self._database.read() as connection:
            mine = await triggers.fire(connection, row, moment.key)
            previous = await triggers.previous(connection, row, moment.at)
        if mine is not None and mine["status"] in ("STARTED", "CLAIMED", "WAITING"):
            answer = _answer(mine["status"], mine["reason"], mine["execution_id"]) | {"repeated": True}
        else:
            answer = await self._start(moment, row, previous, backfill=True)
        return {"scheduled_at": moment.key, "repeated": False, **answer}

    async def _only(self, workflow: str, trigger: str) -> Record:
        """The live trigger of a workflow (its name, or `source/name`)."""
        version = await self._registry.resolve(workflow)
        async with self._database.read() as connection:
            rows = await triggers.of_workflow(connection, version.source_id, version.pin.workflow)
        for row in rows:
            if row["id"] == trigger:
                return row
        known = ", ".join(row["id"] for row in rows)
        raise NotFound(
            f"{workflow} has no trigger {trigger[:80]!r}",
            hint=f"there are: {known}" if known else "its live version has no triggers",
        )

    async def of_workflow(self, source_id: int, workflow: str) -> list[dict[str, Json]]:
        """The live triggers of a workflow as readers see them, with what comes next as far as Temporal says so."""
        async with self._database.read() as connection:
            rows = await triggers.of_workflow(connection, source_id, workflow)
        outlooks = await asyncio.gather(*(self._outlook(row) for row in rows))
        unsigned = await asyncio.gather(*(self._unsigned(row) for row in rows))
        told = zip(rows, outlooks, unsigned, strict=True)
        return [_shown(row, outlook) | lacks for row, outlook, lacks in told]

    async def _unsigned(self, row: Record) -> dict[str, Json]:
        """What is to be said of a webhook whose secret is not there: nothing else tells why all that comes is refused."""
        if row["spec"]["type"] != "webhook":
            return {}
        try:
            async with asyncio.timeout(_OUTLOOK):
                await self._secrets.get(secret_of(row))
        except TimeoutError:
            return {}
        except PinflowError as error:
            where = f"set {VARIABLE}{row['spec']['secret']} for the API, or add it where PINFLOW_SECRETS says"
            told = f"every delivery is refused (401): {error.message}; {where}"
            return {"status": "NO_SECRET", "message": told}
        return {}

    async def refused(self) -> dict[str, list[Record]]:
        """Schedules that Temporal does not take, by source."""
        async with self._database.read() as connection:
            rows = await triggers.refused_ones(connection)
        found: dict[str, list[Record]] = {}
        for row in rows:
            found.setdefault(row["source"], []).append(row)
        return found

    async def _outlook(self, row: Record) -> Outlook | None:
        if row["spec"]["type"] != "schedule" or self._executor.away:
            return None
        try:
            return await self._schedules.outlook(row, limit=_OUTLOOK)
        except PinflowError:
            return None


def caller_of(trigger: str) -> Caller:
    """A trigger as the one who starts a run."""
    return Caller(f"trigger:{trigger}", frozenset({"operator"}))


def key_prefix(source: str, workflow: str, trigger: str) -> str:
    """The beginning of the idempotency keys of all that a trigger starts."""
    return f"{source}/{workflow}/{trigger}/"


def secret_of(row: Record) -> SecretRequest:
    """Which secret signs the deliveries of a webhook trigger."""
    return SecretRequest(row["spec"]["secret"], row["source"], row["workflow"])


def hook_path(row: Record) -> str:
    """Where the deliveries of a webhook trigger are sent."""
    return f"/hooks/{row['source']}/{row['workflow']}/{row['id']}"


def _said(moment: Moment, previous: datetime | None) -> dict[str, Json]:
    """What expressions read as `trigger`."""
    return {
        "type": "schedule",
        "id": moment.trigger,
        "scheduled_at": moment.key,
        "previous_scheduled_at": None if previous is None else rfc3339(previous),
    }


def _inputs(compiled: Json, trigger_id: str, said: Mapping[str, Json]) -> dict[str, Json] | None:
    trigger = trigger_of(compiled, trigger_id)
    return None if trigger is None else inputs_of(compiled, trigger, said)


def _answer(status: str, reason: str = "", execution_id: str = "") -> dict[str, Json]:
    return {"status": status, "reason": reason, "execution_id": execution_id}


def _late(trigger: Record, fired_at: datetime) -> bool:
    window = float(trigger["spec"].get("catchup_window") or 60.0)
    return (datetime.now(UTC) - fired_at).total_seconds() > max(window, 10.0)


async def _overlap(
    connection: Connection, trigger: Record, moment: Moment, mine: Record | None, open_: list[Record]
) -> _Judged:
    """What the policy says, with `open_` the other moments that are not over, the earliest first."""
    policy = trigger["spec"].get("overlap") or "skip"
    running = [each for each in open_ if each["status"] != "WAITING"]
    waiting = [each for each in open_ if each["status"] == "WAITING"]
    ahead = [each for each in waiting if each["scheduled_at"] < moment.at]
    if policy == "allow_all" or not (running or (ahead and policy in ("buffer_one", "buffer_all"))):
        return _Judged()
    if policy == "skip":
        reason = f"run {_name(running[0])} of {rfc3339(running[0]['scheduled_at'])} is still open"
        return await _leave_out(connection, trigger, moment, "SKIPPED", reason)
    if policy == "buffer_one" and mine is None and waiting:
        reason = f"the moment of {rfc3339(waiting[0]['scheduled_at'])} waits already"
        return await _leave_out(connection, trigger, moment, "SKIPPED", reason)
    newer = [each for each in waiting if each["scheduled_at"] > moment.at]
    if policy in ("cancel_other", "terminate_other") and newer:
        reason = f"the moment of {rfc3339(newer[-1]['scheduled_at'])} has come"
        return await _leave_out(connection, trigger, moment, "SKIPPED", reason)
    terminate = policy == "terminate_other"
    ending = [each["execution_id"] for each in running if each["execution_id"]]
    if policy == "cancel_other":
        # A second request would skip the clean-up.
        asked = "execution.cancel_requested"
        ending = [run for run in ending if not await history.happened(connection, run, asked)]
    elif not terminate:
        ending = []
    waits = _pause(mine)
    return _Judged(
        waits=waits, waits_for=_name((running or ahead)[0]), ending=tuple(ending), terminate=terminate
    )


def _name(other: Record) -> str:
    return str(other["execution_id"] or f"of {rfc3339(other['scheduled_at'])}")


def _pause(mine: Record | None) -> float:
    """The longer it has waited, the more seldom it looks."""
    waited = 0.0 if mine is None else (datetime.now(UTC) - mine["at"]).total_seconds()
    return min(max(_SHORTEST, waited / 10), _LONGEST)


async def _leave_out(
    connection: Connection, trigger: Record, moment: Moment, status: str, reason: str
) -> _Judged:
    await triggers.put_fire(
        connection, trigger, moment.key, status, scheduled_at=moment.at, reason=reason, settled=True
    )
    await _record(connection, moment, f"trigger.{status.lower()}", reason)
    return _Judged(final=_answer(status, reason))


async def _record(connection: Connection, moment: Moment, action: str, reason: str) -> None:
    await audit.record(
        connection,
        action,
        actor=moment.caller.subject,
        source=moment.source,
        workflow=moment.workflow,
        details={"trigger": moment.trigger, "scheduled_at": moment.key, "reason": reason[:2000]},
    )


def _shown(row: Record, outlook: Outlook | None) -> dict[str, Json]:
    spec = row["spec"]
    shown = {"id": row["id"], "type": spec["type"], "status": row["status"], "message": row["message"]}
    shown |= {"last": row["last"], "next": None, "paused": False}
    if spec["type"] == "webhook":
        return shown | {"path": hook_path(row)}
    named = ("cron", "timezone", "overlap", "catchup_window", "jitter")
    shown |= {name: spec.get(name) for name in named}
    if outlook is not None:
        shown |= {"next": [rfc3339(at) for at in outlook.next[:5]], "paused": outlook.paused}
    return shown
