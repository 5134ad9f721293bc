"""Schedules in Temporal, one for each live trigger of type `schedule`.

Temporal knows when; it starts `pinflow.fire` each time and judges nothing (its overlap policy is always to allow all), since
what must not overlap are runs and not the moments that start them.  Ids begin with the task queue, which tells
installations that share a namespace from each other.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads, WorkflowType
from temporalio.api.enums.v1 import ScheduleOverlapPolicy
from temporalio.api.schedule.v1 import Schedule, ScheduleAction, SchedulePolicies, ScheduleSpec, ScheduleState
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import NewWorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    CreateScheduleRequest,
    DeleteScheduleRequest,
    DescribeScheduleRequest,
    DescribeScheduleResponse,
    ListScheduleMatchingTimesRequest,
    ListSchedulesRequest,
    UpdateScheduleRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from engine.core.fire import FIRE
from engine.errors import NotFound, Unavailable
from engine.executor.door import translated

_LIMIT = 5.0
_RPC = timedelta(seconds=4)
_TRIES = 3
_PREFIX = "pinflow"
_TIMES = "pinflow-times"
_TIMES_KEPT = 300.0
"""Seconds for which a schedule that was only made to ask for its times may live."""
_MATCHES = 1000
"""Times that Temporal tells at once."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What Temporal says of a schedule: the next times (with jitter), and whether somebody has paused it."""

    next: list[datetime]
    paused: bool


class Schedules:
    """The schedules of this installation. Raises `Unavailable`, and `Misconfigured` for what Temporal refuses."""

    def __init__(self, client: Client, *, task_queue: str) -> None:
        self._client = client
        self._queue = task_queue
        self.elsewhere: set[str] = set()

    def twins(self, triggers: Iterable[Mapping[str, Any]]) -> list[str]:
        """Schedules of other task queues that stand for one of these triggers as well.

        Another installation's, or what was left behind when the task queue was given another name: nobody but the
        operator can tell, so they are left alone.
        """
        tails = {self.id_of(trigger).removeprefix(f"{_PREFIX}/{self._queue}") for trigger in triggers}
        return sorted(id for id in self.elsewhere if any(id.endswith(tail) for tail in tails))

    def id_of(self, trigger: Mapping[str, Any]) -> str:
        """The id of a trigger's schedule."""
        return f"{_PREFIX}/{self._queue}/{trigger['source']}/{trigger['workflow']}/{trigger['id']}"

    async def put(self, trigger: Mapping[str, Any]) -> str:
        """Make the schedule what `trigger` says, once; what Temporal then has (see `look`).

        A schedule of a later revision stays as it is.
        """
        id = self.id_of(trigger)
        wanted = self._schedule(id, trigger)
        for _ in range(_TRIES):
            there = await self._described(id)
            if there is None:
                await self._create(id, wanted)
            elif _seq(there.schedule) > trigger["seq"]:
                return _mark(there.schedule)
            else:
                await self._update(id, wanted, there)
            # Said to whom? Temporal drops an update whose token is stale without a word.
            there = await self._described(id)
            if there is not None and _seq(there.schedule) >= trigger["seq"]:
                return _mark(there.schedule)
        raise Unavailable(f"schedule {id} is being changed by others")

    async def look(self, trigger: Mapping[str, Any]) -> str:
        """A mark of what Temporal has, "" if nothing: differs from the row's `applied` once somebody has changed it."""
        there = await self._described(self.id_of(trigger))
        return "" if there is None else _mark(there.schedule)

    async def outlook(self, trigger: Mapping[str, Any], *, limit: float) -> Outlook | None:
        """What comes next, None if Temporal has no such schedule."""
        there = await self._described(self.id_of(trigger), limit)
        if there is None:
            return None
        times = [at.ToDatetime(tzinfo=UTC) for at in there.info.future_action_times]
        return Outlook(times, there.schedule.state.paused)

    async def remove(self, id: str) -> None:
        """Have no such schedule, also if there was none."""
        async with translated(f"removal of schedule {id}", _LIMIT):
            try:
                await self._client.workflow_service.delete_schedule(
                    DeleteScheduleRequest(namespace=self._client.namespace, schedule_id=id), timeout=_RPC
                )
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise

    async def ids(self) -> AsyncIterator[set[str]]:
        """The ids of all schedules of triggers, a page at a time. From Temporal's index: may be seconds behind.

        `elsewhere` has those of other task queues afterwards.
        """
        self.elsewhere = set()
        token = b""
        while True:
            async with translated("list of schedules", 20.0):
                response = await self._client.workflow_service.list_schedules(
                    ListSchedulesRequest(
                        namespace=self._client.namespace, maximum_page_size=1000, next_page_token=token
                    ),
                    timeout=timedelta(seconds=15),
                )
            found = {entry.schedule_id for entry in response.schedules}
            ours = {id for id in found if id.startswith(f"{_PREFIX}/{self._queue}/")}
            self.elsewhere |= {id for id in found - ours if id.startswith(f"{_PREFIX}/")}
            yield ours
            for id in found:
                if self._left_behind(id):
                    await self.remove(id)
            token = response.next_page_token
            if not token:
                return

    async def times(
        self, spec: Mapping[str, Any], since: datetime, until: datetime, most: int
    ) -> list[datetime]:
        """The first `most` scheduled times from `since` on and before `until`, without jitter, as Temporal counts them."""
        found: list[datetime] = []
        async with self._only_to_ask(spec) as id:
            while len(found) < most:
                page = await self._matching(id, since, until)
                found += [at for at in page if since <= at < until]
                if len(page) < _MATCHES:
                    break
                since = page[-1] + timedelta(seconds=1)
        return found[:most]

    # --- requests ---------------------------------------------------------------------------------------------------

    def _schedule(self, id: str, trigger: Mapping[str, Any]) -> Schedule:
        spec = trigger["spec"]
        said = {name: trigger[name] for name in ("source", "workflow", "id", "seq")}
        data = json.dumps(said, separators=(",", ":")).encode()
        return Schedule(
            spec=_spec(spec, jitter=spec.get("jitter") or 0.0),
            action=ScheduleAction(
                start_workflow=NewWorkflowExecutionInfo(
                    workflow_id=id,
                    workflow_type=WorkflowType(name=FIRE),
                    task_queue=TaskQueue(name=self._queue),
                    input=Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=data)]),
                )
            ),
            policies=SchedulePolicies(
                overlap_policy=ScheduleOverlapPolicy.SCHEDULE_OVERLAP_POLICY_ALLOW_ALL,
                catchup_window=_duration(spec.get("catchup_window") or 60.0),
            ),
        )

    async def _described(self, id: str, limit: float = _LIMIT) -> DescribeScheduleResponse | None:
        try:
            async with translated(f"look at schedule {id}", limit):
                return await self._client.workflow_service.describe_schedule(
                    DescribeScheduleRequest(namespace=self._client.namespace, schedule_id=id),
                    timeout=timedelta(seconds=limit),
                )
        except NotFound:
            return None

    async def _create(self, id: str, wanted: Schedule) -> None:
        async with translated(f"schedule {id}", _LIMIT):
            try:
                await self._client.workflow_service.create_schedule(
                    CreateScheduleRequest(
                        namespace=self._client.namespace,
                        schedule_id=id,
                        schedule=wanted,
                        request_id=str(uuid.uuid4()),
                        identity=self._client.service_client.config.identity,
                    ),
                    timeout=_RPC,
                )
            except RPCError as error:
                if error.status != RPCStatusCode.ALREADY_EXISTS:
                    raise
                # Somebody was faster: the next look shows what it has become.

    async def _update(self, id: str, wanted: Schedule, there: DescribeScheduleResponse) -> None:
        changed = Schedule()
        changed.CopyFrom(wanted)
        changed.state.CopyFrom(there.schedule.state)  # whoever has paused it may have reasons
        async with translated(f"schedule {id}", _LIMIT):
            await self._client.workflow_service.update_schedule(
                UpdateScheduleRequest(
                    namespace=self._client.namespace,
                    schedule_id=id,
                    schedule=changed,
                    conflict_token=there.conflict_token,
                    request_id=str(uuid.uuid4()),
                    identity=self._client.service_client.config.identity,
                ),
                timeout=_RPC,
            )

    @asynccontextmanager
    async def _only_to_ask(self, spec: Mapping[str, Any]) -> AsyncIterator[str]:
        """A paused schedule without jitter, for as long as its times are asked for."""
        id = f"{_TIMES}/{self._queue}/{int(datetime.now(UTC).timestamp())}/{uuid.uuid4().hex}"
        made = self._schedule(id, {"source": "", "workflow": "", "id": "", "seq": 0, "spec": spec})
        made.spec.CopyFrom(_spec(spec, jitter=0.0))
        made.state.CopyFrom(ScheduleState(paused=True, notes="only made to ask for its times"))
        await self._create(id, made)
        try:
            yield id
        finally:
            await asyncio.shield(self.remove(id))

    async def _matching(self, id: str, since: datetime, until: datetime) -> list[datetime]:
        async with translated("scheduled times", _LIMIT):
            response = await self._client.workflow_service.list_schedule_matching_times(
                ListScheduleMatchingTimesRequest(
                    namespace=self._client.namespace,
                    schedule_id=id,
                    # Temporal leaves out the very moment at which the span begins.
                    start_time=_timestamp(since - timedelta(seconds=1)),
                    end_time=_timestamp(until),
                ),
                timeout=_RPC,
            )
        return [at.ToDatetime(tzinfo=UTC) for at in response.start_time]

    def _left_behind(self, id: str) -> bool:
        kind, _, rest = id.rpartition(f"/{self._queue}/")
        made = rest.partition("/")[0]
        return kind == _TIMES and made.isdigit() and datetime.now(UTC).timestamp() - int(made) > _TIMES_KEPT


def _spec(spec: Mapping[str, Any], *, jitter: float) -> ScheduleSpec:
    made = ScheduleSpec(cron_string=_crons(spec["cron"]), timezone_name=spec.get("timezone") or "UTC")
    if jitter:
        made.jitter.CopyFrom(_duration(jitter))
    return made


def _crons(cron: str | Sequence[str]) -> list[str]:
    return [cron] if isinstance(cron, str) else list(cron)


def _duration(seconds: float) -> Duration:
    made = Duration()
    made.FromTimedelta(timedelta(seconds=seconds))
    return made


def _timestamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made


def _seq(schedule: Schedule) -> int:
    """The revision that the schedule is of; -1 if somebody has put something else there."""
    try:
        (payload,) = schedule.action.start_workflow.input.payloads
        return int(json.loads(payload.data)["seq"])
    except (ValueError, KeyError, TypeError):
        return -1


def _mark(schedule: Schedule) -> str:
    kept = Schedule()
    kept.CopyFrom(schedule)
    kept.ClearField("state")
    return f"{_seq(schedule)}:{hashlib.sha256(kept.SerializeToString(deterministic=True)).hexdigest()[:32]}"
