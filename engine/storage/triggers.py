"""Named queries for triggers: what live versions want, what Temporal was told of it, and each moment at which one fired."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.json_text import clean_text
from engine.storage.rows import Record, many, one

# --- what live versions want ------------------------------------------------------------------------------------

_FOLLOW = text(
    """
    WITH wanted AS (
        SELECT d.name AS workflow, t.spec ->> 'id' AS id, t.spec, t.position
          FROM workflow_definitions d
          JOIN workflow_versions v ON v.id = d.live_version_id
         CROSS JOIN LATERAL jsonb_array_elements(v.triggers) WITH ORDINALITY AS t (spec, position)
         WHERE d.source_id = :source_id AND d.name = ANY(:names)),
    gone AS (
        UPDATE triggers t SET live = false, status = 'PENDING', message = '', seq = :seq
         WHERE t.source_id = :source_id AND t.workflow = ANY(:names) AND t.live
           AND NOT EXISTS (SELECT FROM wanted w WHERE w.workflow = t.workflow AND w.id = t.id)
     RETURNING t.workflow, t.id, t.spec, t.live),
    put AS (
        INSERT INTO triggers AS t (source_id, workflow, id, spec, position, seq, status)
        SELECT :source_id, workflow, id, spec, position, :seq, 'PENDING' FROM wanted
        ON CONFLICT (source_id, workflow, id) DO UPDATE
           SET spec = excluded.spec, position = excluded.position, seq = excluded.seq, live = true,
               status = 'PENDING', message = ''
         WHERE NOT t.live OR t.spec <> excluded.spec
     RETURNING t.workflow, t.id, t.spec, t.live)
    SELECT * FROM gone UNION ALL SELECT * FROM put ORDER BY workflow, id
    """
).bindparams(bindparam("names", type_=ARRAY(Text)))


async def follow(
    connection: AsyncConnection, *, source_id: int, seq: int, names: Sequence[str]
) -> list[Record]:
    """Set and remove triggers as the live versions of `names` say now; what changed, as `workflow, id, spec, live`."""
    if not names:
        return []
    return await many(connection, _FOLLOW, {"source_id": source_id, "seq": seq, "names": list(names)})


_ROW = """t.source_id, s.name AS source, t.workflow, t.id, t.spec, t.seq, t.live, t.status, t.message, t.applied,
    t.applied_at"""
_OF_WORKFLOW = text(
    f"""
    SELECT {_ROW}, (SELECT jsonb_build_object('key', f.key, 'status', f.status, 'reason', f.reason, 'at', f.at,
                                              'execution_id', f.execution_id)
                      FROM trigger_fires f
                     WHERE f.source_id = t.source_id AND f.workflow = t.workflow AND f.trigger = t.id
                     ORDER BY f.at DESC LIMIT 1) AS last
      FROM triggers t JOIN sources s ON s.id = t.source_id
     WHERE t.source_id = :source_id AND t.workflow = :workflow AND t.live ORDER BY t.position
    """
)
_NAMED = text(
    f"""
    SELECT {_ROW} FROM triggers t JOIN sources s ON s.id = t.source_id
     WHERE t.workflow = :workflow AND t.id = :id AND (:source = '' OR s.name = :source) AND t.live
     ORDER BY s.name LIMIT 10
    """
)


async def of_workflow(connection: AsyncConnection, source_id: int, workflow: str) -> list[Record]:
    """The live triggers of a workflow in the order of its file, each with how it fired `last`."""
    return await many(connection, _OF_WORKFLOW, {"source_id": source_id, "workflow": workflow})


async def named(connection: AsyncConnection, workflow: str, trigger: str, source: str = "") -> list[Record]:
    """The live triggers of this id, one for each source that has such a workflow."""
    return await many(connection, _NAMED, {"workflow": workflow, "id": trigger, "source": source})


_REFUSED = text(
    """
    SELECT s.name AS source, t.workflow, t.id, t.message FROM triggers t JOIN sources s ON s.id = t.source_id
     WHERE t.status = 'REFUSED' ORDER BY s.name, t.workflow, t.id LIMIT 200
    """
)


async def refused_ones(connection: AsyncConnection) -> list[Record]:
    """Schedules that Temporal does not take: `source, workflow, id, message`."""
    return await many(connection, _REFUSED)


# --- what Temporal was told -------------------------------------------------------------------------------------

_PENDING = text(
    f"""
    SELECT {_ROW} FROM triggers t JOIN sources s ON s.id = t.source_id
     WHERE t.status = 'PENDING' ORDER BY t.seq, t.workflow, t.id LIMIT :count
    """
)
_ALL = text(
    f"""
    SELECT {_ROW} FROM triggers t JOIN sources s ON s.id = t.source_id
     WHERE (t.source_id, t.workflow, t.id) > (:source_id, :workflow, :id)
     ORDER BY t.source_id, t.workflow, t.id LIMIT :count
    """
)
# What was told counts only if it is still what is wanted: a slow teller must not hide a newer wish.
_APPLIED = text(
    """
    WITH told AS (
        UPDATE triggers SET status = 'APPLIED', message = '', applied = :applied, applied_at = now()
         WHERE source_id = :source_id AND workflow = :workflow AND id = :id AND seq = :seq AND live
           AND (status <> 'APPLIED' OR applied <> :applied)
     RETURNING id)
    INSERT INTO audit (actor, action, source, workflow, details)
    SELECT :actor, 'trigger.applied', :source, :workflow, jsonb_build_object('trigger', told.id) FROM told
    """
)
_REFUSE = text(
    """
    WITH told AS (
        UPDATE triggers SET status = 'REFUSED', message = :message
         WHERE source_id = :source_id AND workflow = :workflow AND id = :id AND seq = :seq
           AND (status <> 'REFUSED' OR message <> :message)
     RETURNING id)
    INSERT INTO audit (actor, action, source, workflow, details)
    SELECT :actor, 'trigger.refused', :source, :workflow,
           jsonb_build_object('trigger', told.id, 'message', CAST(:message AS text))
      FROM told
    """
)
_FORGET = text(
    """
    DELETE FROM triggers WHERE source_id = :source_id AND workflow = :workflow AND id = :id AND seq = :seq AND NOT live
    """
)


async def pending(connection: AsyncConnection, count: int) -> list[Record]:
    """Triggers of which Temporal was not yet told as they are wanted now."""
    return await many(connection, _PENDING, {"count": count})


async def page(connection: AsyncConnection, after: tuple[int, str, str], count: int) -> list[Record]:
    """All triggers in order of (source, workflow, id), those after `after` only."""
    return await many(
        connection, _ALL, {"source_id": after[0], "workflow": after[1], "id": after[2], "count": count}
    )


def _key(row: Record, **more: Any) -> Record:
    return {name: row[name] for name in ("source_id", "workflow", "id", "seq")} | more


async def applied(connection: AsyncConnection, row: Record, applied: str, *, actor: str) -> None:
    """Temporal has the trigger as `row` says; audited if that is news."""
    await connection.execute(_APPLIED, _key(row, source=row["source"], applied=applied, actor=actor))


async def refuse(connection: AsyncConnection, row: Record, message: str, *, actor: str) -> bool:
    """Temporal does not take the trigger as `row` has it; audited, and True, if that is news."""
    values = _key(row, source=row["source"], message=clean_text(message)[:2000], actor=actor)
    return (await connection.execute(_REFUSE, values)).rowcount > 0


async def forget(connection: AsyncConnection, row: Record) -> None:
    """Temporal has nothing of a removed trigger any more: its row goes as well."""
    await connection.execute(_FORGET, _key(row))


# --- each moment at which one fired -----------------------------------------------------------------------------

_LOCK = text(
    f"""
    SELECT {_ROW} FROM triggers t JOIN sources s ON s.id = t.source_id
     WHERE s.name = :source AND t.workflow = :workflow AND t.id = :id AND t.live FOR UPDATE OF t
    """
)
_FIRE = text(
    """
    SELECT key, scheduled_at, backfill, status, reason, execution_id, at FROM trigger_fires
     WHERE source_id = :source_id AND workflow = :workflow AND trigger = :id AND key = :key
    """
)
# A claim that nobody has renewed for so long was left behind by somebody who was killed and never came back.
_STALE = "interval '10 minutes'"
_OTHERS = text(
    f"""
    SELECT f.key, f.scheduled_at, f.status, COALESCE(e.id, f.execution_id) AS execution_id, e.status AS run_status,
           e.finished_at IS NOT NULL AS over
      FROM trigger_fires f
      LEFT JOIN idempotency_keys k ON k.subject = :subject AND k.key = :prefix || f.key
      LEFT JOIN workflow_executions e ON e.id = COALESCE(NULLIF(f.execution_id, ''), k.execution_id)
     WHERE f.source_id = :source_id AND f.workflow = :workflow AND f.trigger = :id AND f.key <> :key
       AND f.status IN ('CLAIMED', 'WAITING', 'STARTED') AND NOT f.settled
       AND (e.id IS NOT NULL OR f.seen_at > now() - {_STALE})
     ORDER BY f.scheduled_at, f.key
    """
)
_PUT = text(
    """
    INSERT INTO trigger_fires AS f (source_id, workflow, trigger, key, scheduled_at, backfill, body_hash, status, reason,
                                    execution_id, settled)
    VALUES (:source_id, :workflow, :id, :key, :scheduled_at, :backfill, :body_hash, :status, :reason, :execution_id, :settled)
    ON CONFLICT (source_id, workflow, trigger, key) DO UPDATE
       SET status = excluded.status, reason = excluded.reason, execution_id = excluded.execution_id,
           settled = excluded.settled, seen_at = now()
     WHERE f.status IN ('CLAIMED', 'WAITING', 'FAILED', 'IGNORED', 'SKIPPED', 'MISSED')
    """
).bindparams(bindparam("scheduled_at", type_=DateTime(timezone=True)))
_SETTLE = text(
    """
    UPDATE trigger_fires SET settled = true
     WHERE source_id = :source_id AND workflow = :workflow AND trigger = :id AND key = ANY(:keys)
    """
).bindparams(bindparam("keys", type_=ARRAY(Text)))
_PREVIOUS = text(
    """
    SELECT max(scheduled_at) FROM trigger_fires
     WHERE source_id = :source_id AND workflow = :workflow AND trigger = :id AND status = 'STARTED' AND scheduled_at < :at
    """
).bindparams(bindparam("at", type_=DateTime(timezone=True)))


async def lock(connection: AsyncConnection, source: str, workflow: str, trigger: str) -> Record | None:
    """A live trigger; nobody else judges one of its moments until the transaction ends."""
    return await one(connection, _LOCK, {"source": source, "workflow": workflow, "id": trigger})


def _moment(trigger: Record, key: str, **more: Any) -> Record:
    return {name: trigger[name] for name in ("source_id", "workflow", "id")} | {"key": key} | more


async def fire(connection: AsyncConnection, trigger: Record, key: str) -> Record | None:
    """What came of one moment so far."""
    return await one(connection, _FIRE, _moment(trigger, key))


async def others(
    connection: AsyncConnection, trigger: Record, key: str, *, subject: str, prefix: str
) -> list[Record]:
    """The other moments that may stand in the way of this one, the earliest first.

    `prefix` and a moment's key are the idempotency key under which `subject` started its run: a claim whose maker was
    killed is known by the run that it led to.
    """
    values = _moment(trigger, key, subject=subject, prefix=prefix)
    return await many(connection, _OTHERS, values)


async def put_fire(
    connection: AsyncConnection,
    trigger: Record,
    key: str,
    status: str,
    *,
    scheduled_at: datetime | None = None,
    backfill: bool = False,
    body_hash: str = "",
    reason: str = "",
    execution_id: str = "",
    settled: bool = False,
) -> None:
    """Note what came of a moment. One that has STARTED stays so."""
    values = {"scheduled_at": scheduled_at, "backfill": backfill, "body_hash": body_hash, "status": status}
    values |= {"reason": clean_text(reason)[:2000], "execution_id": execution_id, "settled": settled}
    await connection.execute(_PUT, _moment(trigger, key, **values))


async def settle(connection: AsyncConnection, trigger: Record, keys: Sequence[str]) -> None:
    """The runs of these moments have ended: nobody has to look at them again."""
    if keys:
        values = _moment(trigger, "", keys=list(keys))
        del values["key"]
        await connection.execute(_SETTLE, values)


async def previous(connection: AsyncConnection, trigger: Record, at: datetime) -> datetime | None:
    """The latest scheduled time before `at` for which a run was started."""
    values = {name: trigger[name] for name in ("source_id", "workflow", "id")} | {"at": at}
    found: datetime | None = (await connection.execute(_PREVIOUS, values)).scalar_one()
    return found


# --- deliveries of webhooks -------------------------------------------------------------------------------------

_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))")
_SAME_BODY = text(
    """
    SELECT key, status, reason, execution_id FROM trigger_fires
     WHERE body_hash = :body_hash AND source_id = :source_id AND workflow = :workflow AND trigger = :id
       AND key <> :key AND at > now() - make_interval(secs => :window)
     ORDER BY at LIMIT 1
    """
)
_PURGE = text(
    """
    DELETE FROM trigger_fires f
     WHERE f.at < now() - make_interval(days => :days) AND f.scheduled_at IS NULL
        OR f.at < now() - make_interval(days => :days) AND f.status IN ('IGNORED', 'SKIPPED', 'MISSED', 'FAILED')
    """
)


async def one_at_a_time(connection: AsyncConnection, what: str) -> None:
    """Until the transaction ends, nobody else passes here with the same `what`."""
    await connection.execute(_ALONE, {"what": what})


async def same_body(
    connection: AsyncConnection, trigger: Record, key: str, body_hash: str, window: float
) -> Record | None:
    """An earlier delivery of the very same body, within `window` seconds."""
    return await one(connection, _SAME_BODY, _moment(trigger, key, body_hash=body_hash, window=window))


async def purge(connection: AsyncConnection, *, days: int) -> None:
    """Forget deliveries, and moments without a run, of so many days ago. Scheduled times that had a run stay known."""
    await connection.execute(_PURGE, {"days": days})
