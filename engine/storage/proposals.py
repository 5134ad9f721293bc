"""Named queries for proposals: a commit that is asked for, pushed by whoever watches the source, and confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.json_text import clean_text
from engine.storage.models import Proposal
from engine.storage.rows import Record, many, one

_SHOWN = """
    SELECT p.id, p.kind, s.name AS source, p.name, p.path, p.branch, p.direct, p.message, p.digest, p.bundle_digest,
           p.requested_by, p.request_hash, p.pull_request, p.status, p.commit_sha, p.base_sha, p.url, p.error,
           p.created_at, p.pushed_at, p.attempts,
           COALESCE((SELECT m.last_error FROM forge_messages m WHERE m.source_id = p.source_id AND m.kind = 'pull_request'
                       AND m.subject = p.id AND m.sent_at IS NULL), '') AS pull_request_error
    FROM proposals p JOIN sources s ON s.id = p.source_id
"""


async def add(connection: AsyncConnection, **values: Any) -> bool:
    """Write the row of a new proposal; the columns are those of `Proposal`. False if its key is taken."""
    values["message"] = clean_text(values["message"])
    statement = insert(Proposal).values(**values).on_conflict_do_nothing().returning(Proposal.id)
    return (await connection.execute(statement)).first() is not None


_BY_ID = text(_SHOWN + " WHERE p.id = :id")
_BY_KEY = text(_SHOWN + " WHERE p.requested_by = :requested_by AND p.key = :key AND p.key <> ''")
_PAGE = text(
    _SHOWN
    + """ WHERE (:before = '' OR p.id < :before) AND (:status = '' OR p.status = :status)
            AND (:source = '' OR s.name = :source) ORDER BY p.id DESC LIMIT :count"""
)


async def by_id(connection: AsyncConnection, id: str) -> Record | None:
    """One proposal, with the name of its source."""
    return await one(connection, _BY_ID, {"id": id})


async def by_key(connection: AsyncConnection, requested_by: str, key: str) -> Record | None:
    """What a caller's idempotency key led to."""
    return await one(connection, _BY_KEY, {"requested_by": requested_by, "key": key})


async def page(
    connection: AsyncConnection, *, count: int, before: str = "", status: str = "", source: str = ""
) -> list[Record]:
    """Proposals, newest first."""
    values = {"count": count, "before": before, "status": status, "source": source}
    return await many(connection, _PAGE, values)


# Counted when it is taken: a second try knows that the first may have pushed.
_CLAIM = text(
    """
    UPDATE proposals SET due_at = now() + make_interval(secs => :lease), attempts = attempts + 1
    WHERE id IN (
        SELECT p.id FROM proposals p JOIN sources s ON s.id = p.source_id
        WHERE p.status = 'PROPOSING' AND p.due_at <= now() AND s.name = ANY(:sources)
        ORDER BY p.due_at LIMIT :count FOR UPDATE OF p SKIP LOCKED)
    RETURNING id
    """
).bindparams(bindparam("sources", type_=ARRAY(Text)))
_CLAIMED = text(_SHOWN + " WHERE p.id = ANY(:ids) ORDER BY p.id").bindparams(
    bindparam("ids", type_=ARRAY(Text))
)


async def claim(
    connection: AsyncConnection, sources: Sequence[str], *, count: int, lease: float
) -> list[Record]:
    """Up to `count` due proposals of these sources, hidden from other claims for `lease` seconds."""
    values = {"sources": list(sources), "count": count, "lease": lease}
    ids = [row["id"] for row in await many(connection, _CLAIM, values)]
    return await many(connection, _CLAIMED, {"ids": ids}) if ids else []


_BACKLOG = text(
    """
    SELECT status, count(*) AS count,
           COALESCE(EXTRACT(EPOCH FROM now() - min(created_at) FILTER (WHERE status = 'PROPOSING')), 0) AS oldest
    FROM proposals WHERE created_at > now() - interval '7 days' OR status = 'PROPOSING' GROUP BY status
    """
)


async def backlog(connection: AsyncConnection) -> tuple[dict[str, float], float]:
    """Proposals of the last week by status; the age in seconds of the oldest that is not yet on its remote."""
    rows = await many(connection, _BACKLOG)
    found = {str(row["status"]): float(row["count"]) for row in rows}
    return found, max((float(row["oldest"]) for row in rows), default=0.0)


_PUSHED = text(
    """
    WITH moved AS (
        UPDATE proposals SET status = 'PROPOSED', commit_sha = :commit_sha, base_sha = :base_sha, pushed_at = now(), error = ''
        WHERE id = :id AND status = 'PROPOSING' RETURNING id, source_id, name, branch, path, pull_request),
    asked AS (
        INSERT INTO forge_messages (source_id, kind, subject, body)
        SELECT source_id, 'pull_request', id, jsonb_build_object('proposal', id) FROM moved WHERE pull_request
        ON CONFLICT DO NOTHING)
    INSERT INTO audit (actor, action, source, workflow, commit_sha, details)
    SELECT :actor, 'proposal.pushed', s.name, moved.name, :commit_sha,
           jsonb_build_object('proposal', moved.id, 'branch', moved.branch, 'path', moved.path, 'base', CAST(:base_sha AS text))
    FROM moved JOIN sources s ON s.id = moved.source_id
    """
)


async def pushed(connection: AsyncConnection, id: str, *, commit_sha: str, base_sha: str, actor: str) -> None:
    """The commit is on the remote: PROPOSED, audited, and a pull request due if one was asked for. Once."""
    values = {"id": id, "commit_sha": commit_sha, "base_sha": base_sha, "actor": actor}
    await connection.execute(_PUSHED, values)


_FAILED = text(
    """
    WITH moved AS (
        UPDATE proposals SET status = 'FAILED', error = :error
        WHERE id = :id AND status = 'PROPOSING' RETURNING id, source_id, name, branch)
    INSERT INTO audit (actor, action, source, workflow, details)
    SELECT :actor, 'proposal.failed', s.name, moved.name,
           jsonb_build_object('proposal', moved.id, 'branch', moved.branch, 'error', CAST(:error AS text))
    FROM moved JOIN sources s ON s.id = moved.source_id
    """
)


async def failed(connection: AsyncConnection, id: str, *, error: str, actor: str) -> None:
    """The commit will never be on the remote: FAILED, audited. Once."""
    await connection.execute(_FAILED, {"id": id, "error": clean_text(error), "actor": actor})


_POSTPONE = text(
    "UPDATE proposals SET due_at = now() + make_interval(secs => :delay), error = :error WHERE id = :id AND status = 'PROPOSING'"
)


async def postpone(connection: AsyncConnection, id: str, *, delay: float, error: str) -> None:
    """The remote is away, or somebody was faster: try again after `delay` seconds."""
    await connection.execute(_POSTPONE, {"id": id, "delay": delay, "error": clean_text(error)})


_OPENED = text("UPDATE proposals SET url = :url WHERE id = :id")


async def opened(connection: AsyncConnection, id: str, url: str) -> None:
    """A pull request stands at `url`."""
    await connection.execute(_OPENED, {"id": id, "url": clean_text(url)})
