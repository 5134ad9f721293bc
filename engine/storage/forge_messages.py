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
       SET body = excluded.body, created_at = now(), due_at = now(), attempts = 0, parked_at = NULL, last_error = '',
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


# What a forge refuses is counted apart from the tries: a forge that was away for a day has refused nothing.
_POSTPONE = text(
    """
    UPDATE forge_messages SET due_at = now() + make_interval(secs => :delay), last_error = :error,
           body = CASE WHEN :refused THEN body || jsonb_build_object('refusals', COALESCE((body ->> 'refusals')::int, 0) + 1)
                       ELSE body END,
           parked_at = CASE WHEN :refused AND COALESCE((body ->> 'refusals')::int, 0) + 1 >= :limit
                              OR created_at < now() - interval '7 days' THEN now() END
    WHERE id = :id AND sent_at IS NULL RETURNING parked_at IS NOT NULL AS parked
    """
)


async def postpone(
    connection: AsyncConnection,
    message: Record,
    *,
    delay: float,
    error: str,
    refused: bool = False,
    limit: int = 8,
) -> bool:
    """The forge was not told: try again after `delay` seconds. True if it is given up: it `refused` this message for the
    `limit`th time, or the message is a week old."""
    values = {
        "id": message["id"],
        "delay": delay,
        "error": clean_text(error),
        "refused": refused,
        "limit": limit,
    }
    row = (await connection.execute(_POSTPONE, values)).one_or_none()
    return row is not None and bool(row.parked)


_AGAIN = text(
    """
    UPDATE forge_messages m SET due_at = now(), parked_at = NULL, body = m.body - 'refusals',
           created_at = GREATEST(m.created_at, now() - interval '6 days')
    FROM sources s
    WHERE s.id = m.source_id AND s.name = :source AND m.sent_at IS NULL AND m.created_at > now() - interval '30 days'
    """
)


async def try_again(connection: AsyncConnection, source: str) -> None:
    """Somebody has seen to it: what a source's forge was not told is due now, also what was given up in the last month."""
    await connection.execute(_AGAIN, {"source": source})


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


_NAMING = text(
    """
    SELECT r.id, r.sha, r.status, r.subject, r.seq, s.name AS source,
           (SELECT count(*) FROM revision_problems p WHERE p.revision_id = r.id) AS problem_count
    FROM (SELECT * FROM revisions ORDER BY id DESC LIMIT 5000) r JOIN sources s ON s.id = r.source_id
    WHERE s.name = ANY(:sources) AND (strpos(r.subject, '#' || :number) > 0 OR strpos(r.subject, '!' || :number) > 0)
    ORDER BY r.id
    """
).bindparams(bindparam("sources", type_=ARRAY(Text)))


async def revisions_naming(connection: AsyncConnection, sources: Sequence[str], number: int) -> list[Record]:
    """The newest revisions of these sources whose subject may name a pull request, the oldest first."""
    return await many(connection, _NAMING, {"sources": list(sources), "number": str(number)})


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


_BACKLOG = text(
    """
    SELECT kind, CASE WHEN sent_at IS NOT NULL THEN 'sent' WHEN parked_at IS NOT NULL THEN 'parked' ELSE 'waiting' END AS state,
           count(*) AS count,
           COALESCE(EXTRACT(EPOCH FROM now() - min(created_at) FILTER (WHERE sent_at IS NULL AND parked_at IS NULL)), 0) AS oldest
    FROM forge_messages WHERE created_at > now() - interval '7 days' OR sent_at IS NULL GROUP BY 1, 2
    """
)


async def backlog(connection: AsyncConnection) -> tuple[dict[tuple[str, str], float], float]:
    """Messages of the last week by kind and `waiting`, `parked` or `sent`; the age of the oldest waiting one in seconds."""
    rows = await many(connection, _BACKLOG)
    found = {(str(row["kind"]), str(row["state"])): float(row["count"]) for row in rows}
    return found, max((float(row["oldest"]) for row in rows), default=0.0)


# --- webhooks -----------------------------------------------------------------------------------------------

_KEPT = 10_000
"""Deliveries that are kept: a repeat of one that is older than so many others costs one look more."""
_TAKE = text(
    """
    INSERT INTO forge_deliveries (forge, delivery)
    SELECT forge, delivery FROM unnest(CAST(:forges AS text[]), CAST(:deliveries AS text[])) AS came (forge, delivery)
    ORDER BY forge, delivery
    ON CONFLICT DO NOTHING RETURNING forge, delivery
    """
).bindparams(bindparam("forges", type_=ARRAY(Text)), bindparam("deliveries", type_=ARRAY(Text)))
_FORGET = text(
    """
    DELETE FROM forge_deliveries WHERE ctid IN (
        SELECT ctid FROM forge_deliveries
        WHERE received_at < GREATEST(
            now() - interval '7 days',
            (SELECT received_at FROM forge_deliveries ORDER BY received_at DESC OFFSET :kept LIMIT 1))
        ORDER BY received_at LIMIT 5000 FOR UPDATE SKIP LOCKED)
    """
)


async def take_deliveries(
    connection: AsyncConnection, deliveries: Sequence[tuple[str, str]], *, kept: int = _KEPT
) -> list[tuple[str, str]]:
    """Note deliveries, `(forge, id)`; those that were not taken before. Forgets what is older than a week or than `kept` others."""
    values = {
        "forges": [forge for forge, _ in deliveries],
        "deliveries": [clean_text(id) for _, id in deliveries],
    }
    taken = await connection.execute(_TAKE, values)
    found = [(str(row.forge), str(row.delivery)) for row in taken]
    await connection.execute(_FORGET, {"kept": kept})
    return found
