"""Named queries for sources: the watched repositories, their condition and their live pointer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Text, bindparam, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import Source
from engine.storage.rows import Record, many

REQUESTS = "pinflow_sync_requests"
"""The channel on which Postgres tells that somebody wants a source to be looked at."""
_CONTESTED_FOR = 300.0
"""Seconds that a daemon's note that it stands aside is shown; it renews it at each pass."""


async def ensure(
    connection: AsyncConnection,
    *,
    name: str,
    url: str,
    branch: str,
    folder: str,
    kind: str = "definitions",
    declaration: str = "",
    settings: Mapping[str, Any] | None = None,
) -> int:
    """The id of the source `name`, made if it is new; from now on it is what this says. `url` must be without credentials.

    The folder of a source that has a live revision is left: it changes in the transaction that registers the
    first revision read from the new one.
    """
    values: dict[str, Any] = {
        "url": url,
        "branch": branch,
        "kind": kind,
        "declaration": declaration,
        "settings": dict(settings or {}),
    }
    found = (
        await connection.execute(
            select(
                Source.id,
                Source.live_seq,
                Source.folder,
                Source.url,
                Source.branch,
                Source.kind,
                Source.declaration,
                Source.settings,
                Source.contested_at,
            ).where(Source.name == name)
        )
    ).one_or_none()
    if found is None:
        unseen = {"reason": "NotLooked", "message": "it was declared a moment ago"}
        statement = insert(Source).values(name=name, folder=folder, **unseen, **values)
        await connection.execute(statement.on_conflict_do_nothing(index_elements=["name"]))
        return int((await connection.execute(select(Source.id).where(Source.name == name))).scalar_one())
    values |= {"folder": folder} if found.live_seq == 0 else {}
    if found.contested_at is not None:  # whoever still stands aside says so again
        values |= {"contested_at": None, "contested_by": ""}
    if any(getattr(found, key, "") != value for key, value in values.items()):
        await connection.execute(update(Source).where(Source.id == found.id).values(values))
    return int(found.id)


_CURSOR = text(
    """
    SELECT s.folder, s.live_seq, s.live_sha, s.sync_requested_at, s.declaration,
           coalesce(s.watched_until > now(), false) AS watched, s.retired_at IS NOT NULL AS retired,
           coalesce(last.seq, 0) AS last_seq, coalesce(last.sha, '') AS last_sha, coalesce(last.status, '') AS last_status,
           coalesce(live.tree_sha, '') AS live_tree, coalesce(live.bundle_digest, '') AS live_bundle,
           EXISTS (SELECT FROM revision_problems p WHERE p.revision_id = live.id) AS live_faulty,
           coalesce((SELECT c.sha FROM confirmations c WHERE c.source_id = s.id ORDER BY c.id DESC LIMIT 1), '')
               AS confirmed_sha
    FROM sources s
    LEFT JOIN LATERAL (
        SELECT seq, sha, status FROM revisions WHERE source_id = s.id ORDER BY seq DESC LIMIT 1
    ) last ON true
    LEFT JOIN revisions live ON live.source_id = s.id AND live.seq = s.live_seq
    WHERE s.id = :source_id
    """
)


async def cursor(connection: AsyncConnection, source_id: int) -> Record:
    """Where the registry stands: the last revision of any status, and what is live."""
    return (await many(connection, _CURSOR, {"source_id": source_id}))[0]


async def lock(connection: AsyncConnection, source_id: int) -> Record:
    """The same as `cursor`, with the source's row locked until the transaction ends: one publisher at a time."""
    await connection.execute(select(Source.id).where(Source.id == source_id).with_for_update())
    # Read after the lock was granted: a statement sees what was committed before it began.
    return await cursor(connection, source_id)


async def move_live(
    connection: AsyncConnection, source_id: int, *, seen: tuple[int, str], to: tuple[int, str], folder: str
) -> bool:
    """Move the live pointer from `seen` to `to`, both (seq, sha), by compare-and-set. False if it had moved already."""
    statement = (
        update(Source)
        .where(Source.id == source_id, Source.live_seq == seen[0], Source.live_sha == seen[1])
        .values(live_seq=to[0], live_sha=to[1], folder=folder, retired_at=None)
    )
    return (await connection.execute(statement)).rowcount == 1


async def report(
    connection: AsyncConnection,
    source_id: int,
    *,
    condition: str,
    reason: str,
    message: str,
    observed_sha: str | None,
    answered: object = None,
    declaration: str = "",
    watched_for: float = 0,
) -> None:
    """Note how the source stands after a pass, if it still is what `declaration` says.

    `observed_sha` None means that no tip was seen.  `answered` is the `sync_requested_at` that this pass answers;
    a later request stays open.  `watched_for` is in how many seconds to worry if nothing more is heard.
    """
    values: dict[str, object] = {
        "condition": condition,
        "reason": reason,
        "message": message,
        "checked_at": func.now(),
        "watched_until": func.now() + func.make_interval(0, 0, 0, 0, 0, 0, watched_for),
        "condition_since": text(
            "CASE WHEN condition <> :new_condition OR reason <> :new_reason THEN now() ELSE condition_since END"
        ).bindparams(new_condition=condition, new_reason=reason),
    }
    if observed_sha is not None:
        values["observed_sha"] = observed_sha
    mine = update(Source).where(Source.id == source_id, Source.declaration == declaration)
    await connection.execute(mine.values(values))
    if answered is not None:
        done = update(Source).where(Source.id == source_id, Source.sync_requested_at == answered)
        await connection.execute(done.values(sync_requested_at=None))


async def unwatch(connection: AsyncConnection, name: str, declaration: str) -> None:
    """Note that the daemon that watched a source, as `declaration` says, does not any more. What is live stays."""
    mine = update(Source).where(Source.name == name, Source.declaration == declaration)
    await connection.execute(mine.values(watched_until=func.now()))


_NOTE_FAULT = text(
    """
    UPDATE sources SET settings = (settings - 'file_fault') || CAST(:noted AS jsonb)
    WHERE name = ANY(:names) AND coalesce(settings ->> 'file_fault', '') <> :fault
    """
).bindparams(bindparam("names", type_=ARRAY(Text)), bindparam("noted", type_=JSONB))


async def note_file_fault(connection: AsyncConnection, names: Sequence[str], fault: str) -> None:
    """Keep for people what is wrong with the file that declares these sources; "" if nothing is."""
    noted = {"file_fault": fault} if fault else {}
    await connection.execute(_NOTE_FAULT, {"names": list(names), "fault": fault, "noted": noted})


async def contest(connection: AsyncConnection, source_id: int, *, by: str) -> None:
    """Note that a daemon was told something else of the source, and stands aside."""
    statement = update(Source).where(Source.id == source_id)
    await connection.execute(statement.values(contested_at=func.now(), contested_by=by))


_CONFIRM = text(
    """
    INSERT INTO confirmations (source_id, sha, codes, confirmed_by) VALUES (:source_id, :sha, :codes, :by)
    ON CONFLICT (source_id, sha) DO NOTHING RETURNING id
    """
).bindparams(bindparam("codes", type_=ARRAY(Text)))


async def confirm(
    connection: AsyncConnection, source_id: int, sha: str, *, codes: Sequence[str], by: str
) -> bool:
    """Keep somebody's word that a held commit is meant. False if there is one already."""
    parameters = {"source_id": source_id, "sha": sha, "codes": list(codes), "by": by}
    return (await connection.execute(_CONFIRM, parameters)).first() is not None


_RETIRE_ALL = text(
    """
    UPDATE workflow_definitions d SET live_version_id = NULL, retired_seq = s.live_seq
    FROM sources s WHERE s.id = d.source_id AND d.source_id = :source_id AND d.live_version_id IS NOT NULL
    """
)


async def retire(connection: AsyncConnection, source_id: int) -> None:
    """Take all that a source deployed out of what is live; a daemon that declares it again brings it back.

    Ranges stay open: at its commits, each version is still what it was.
    """
    await connection.execute(_RETIRE_ALL, {"source_id": source_id})
    await connection.execute(
        update(Source).where(Source.id == source_id).values(retired_at=func.now(), declaration="")
    )


async def request_sync(connection: AsyncConnection, name: str | None = None) -> Sequence[str]:
    """Ask the daemon for a pass now, over one source or all. The names of the sources that were asked.

    Daemons that listen to `REQUESTS` hear of it when the transaction commits; the row is what counts.
    """
    statement = update(Source).values(sync_requested_at=func.clock_timestamp()).returning(Source.name)
    if name is not None:
        statement = statement.where(Source.name == name)
    asked = (await connection.execute(statement)).scalars().all()
    if asked:
        await connection.execute(select(func.pg_notify(REQUESTS, "")))
    return asked


async def requested(connection: AsyncConnection) -> Sequence[str]:
    """The names of sources somebody wants to be looked at now."""
    return (
        (await connection.execute(select(Source.name).where(Source.sync_requested_at.is_not(None))))
        .scalars()
        .all()
    )


async def list_all(connection: AsyncConnection) -> list[Record]:
    """Every source by name, with the columns of `Source`; `watched` and `contested` as of now."""
    now = func.now()
    watched = func.coalesce(Source.watched_until > now, literal(False)).label("watched")
    lately = now - func.make_interval(0, 0, 0, 0, 0, 0, _CONTESTED_FOR)
    contested = func.coalesce(Source.contested_at > lately, literal(False)).label("contested")
    return await many(connection, select(Source.__table__, watched, contested).order_by(Source.name))
