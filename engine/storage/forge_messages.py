"""Named queries for what forges must be told, and for the deliveries of their webhooks.

The intent to tell a status is the revision itself: rows are made from the registry, so that nothing is told that the
registry has not committed, and nothing is forgotten that it has.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.json_text import clean_text
from engine.storage.rows import Record, many, one

# A commit can be a revision twice: first rejected, then, looked at again, registered. The last word counts.
# What is noted already is left out before the insert: a conflict would lock, and so write, each row at every look.
_NOTE_REVISIONS = text(
    """
    WITH newest AS (
        SELECT DISTINCT ON (r.source_id, r.sha) r.source_id, r.sha, r.id, r.status, r.subject
        FROM (SELECT * FROM revisions ORDER BY id DESC LIMIT 2000) r JOIN sources s ON s.id = r.source_id
        WHERE s.name = ANY(:sources) AND r.registered_at > now() - interval '7 days'
        ORDER BY r.source_id, r.sha, r.id DESC)
    INSERT INTO forge_messages (source_id, kind, subject, body)
    SELECT n.source_id, told.kind, n.sha, jsonb_build_object('revision', n.id, 'status', n.status)
    FROM newest n
    CROSS JOIN unnest(CAST(:kinds AS text[])) AS told (kind)
    LEFT JOIN forge_messages m ON m.source_id = n.source_id AND m.kind = told.kind AND m.subject = n.sha
    WHERE (m.id IS NULL OR (m.body ->> 'revision')::bigint < n.id) AND (told.kind <> 'comment' OR n.subject ~ '[#!][0-9]')
    ON CONFLICT (source_id, kind, subject) DO UPDATE
       SET body = excluded.body, due_at = now(), attempts = 0, parked_at = NULL, last_error = '',
           sent_at = CASE WHEN forge_messages.body ->> 'status' = excluded.body ->> 'status'
                          THEN forge_messages.sent_at END
     WHERE (forge_messages.body ->> 'revision')::bigint < (excluded.body ->> 'revision')::bigint
    """
).bindparams(bindparam("sources", type_=ARRAY(Text)), bindparam("kinds", type_=ARRAY(Text)))


async def note_revisions(
    connection: AsyncConnection, sources: Sequence[str], *, kinds: Sequence[str]
) -> None:
    """Have every revision of the last days told that is not: `kinds` are `status` and `comment`."""
    await connection.execute(_NOTE_REVISIONS, {"sources": list(sources), "kinds": list(kinds)})


_CLAIM = text(
    """
    UPDATE forge_messages m SET due_at = now() + make_interval(secs => :lease), attempts = m.attempts + 1
    FROM sources s
    WHERE s.id = m.source_id AND m.id IN (
        SELECT d.id FROM forge_messages d JOIN sources o ON o.id = d.source_id
        WHERE d.sent_at IS NULL AND d.parked_at IS NULL AND d.due_at <= now() AND o.name = ANY(:sources)
        ORDER BY d.due_at LIMIT :count FOR UPDATE OF d SKIP LOCKED)
    RETURNING m.id, m.kind, m.subject, m.body, m.attempts, s.name AS source, s.url AS source_url, s.branch
    """
).bindparams(bindparam("sources", type_=ARRAY(Text)))


async def claim(
    connection: AsyncConnection, sources: Sequence[str], *, count: int, lease: float
) -> list[Record]:
    """Up to `count` due messages of these sources, hidden from other claims for `lease` seconds."""
    return await many(connection, _CLAIM, {"sources": list(sources), "count": count, "lease": lease})


# If the registry's word has changed while it was told, it is told again.
_SENT = text(
    """
    UPDATE forge_messages SET sent_at = now(), last_error = ''
    WHERE id = :id AND COALESCE(body ->> 'revision', '') = :revision
    """
)


async def sent(connection: AsyncConnection, message: Record) -> None:
    """The forge was told."""
    revision = str(message["body"].get("revision", ""))
    await connection.execute(_SENT, {"id": message["id"], "revision": revision})


_POSTPONE = text(
    """
    UPDATE forge_messages SET due_at = now() + make_interval(secs => :delay), last_error = :error,
           parked_at = CASE WHEN :park THEN now() END
    WHERE id = :id AND sent_at IS NULL
    """
)


async def postpone(
    connection: AsyncConnection, message: Record, *, delay: float, error: str, park: bool = False
) -> None:
    """The forge was not told: try again after `delay` seconds, or never (`park`)."""
    values = {"id": message["id"], "delay": delay, "error": clean_text(error), "park": park}
    await connection.execute(_POSTPONE, values)


_REVISION = text(
    """
    SELECT r.id, r.sha, r.status, r.subject, r.seq, s.name AS source,
           (SELECT count(*) FROM revision_problems p WHERE p.revision_id = r.id) AS problem_count
    FROM revisions r JOIN sources s ON s.id = r.source_id WHERE r.id = :id
    """
)


async def revision(connection: AsyncConnection, id: int) -> Record | None:
    """The revision that a message is about."""
    return await one(connection, _REVISION, {"id": id})


_FAULTS = text(
    """
    SELECT DISTINCT ON (s.name) s.name AS source, m.last_error AS error, m.created_at AS since,
           count(*) FILTER (WHERE m.parked_at IS NULL) OVER of_source AS waiting,
           count(*) FILTER (WHERE m.parked_at IS NOT NULL) OVER of_source AS parked
    FROM forge_messages m JOIN sources s ON s.id = m.source_id
    WHERE m.sent_at IS NULL AND m.last_error <> '' AND m.created_at > now() - interval '7 days'
    WINDOW of_source AS (PARTITION BY s.name)
    ORDER BY s.name, m.id
    """
)


async def faults(connection: AsyncConnection) -> dict[str, Record]:
    """By source, what its forge could not be told in the last week: how many messages, and the oldest one's error."""
    return {row.pop("source"): row for row in await many(connection, _FAULTS)}


# --- webhooks -----------------------------------------------------------------------------------------------

_TAKE = text(
    "INSERT INTO forge_deliveries (forge, delivery) VALUES (:forge, :delivery) ON CONFLICT DO NOTHING RETURNING forge"
)
_FORGET = text(
    """
    DELETE FROM forge_deliveries WHERE ctid IN (
        SELECT ctid FROM forge_deliveries WHERE received_at < now() - interval '7 days'
        ORDER BY received_at LIMIT 100 FOR UPDATE SKIP LOCKED)
    """
)


async def take_delivery(connection: AsyncConnection, forge: str, delivery: str) -> bool:
    """Note a delivery; False if it was taken before. Forgets some that are older than a week."""
    taken = (await connection.execute(_TAKE, {"forge": forge, "delivery": clean_text(delivery)})).first()
    await connection.execute(_FORGET)
    return taken is not None
