"""Named queries for definitions, their versions and the revisions they came with: the reading half."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BigInteger, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import Revision, RevisionProblem
from engine.storage.rows import Record, many, one

_VERSION = """v.id AS version_id, v.name, v.commit_sha, v.digest, v.compiled_digest, v.bundle_digest, v.git_blob,
    v.dsl, v.version, v.title, v.description, v.labels, v.uses_functions, v.calls, v.triggers"""

_LIVE = f"""
    SELECT s.id AS source_id, s.name AS source, s.live_sha AS revision_sha, s.live_seq AS revision_seq, d.path, {_VERSION}
    FROM workflow_definitions d
    JOIN sources s ON s.id = d.source_id
    JOIN workflow_versions v ON v.id = d.live_version_id
"""

_RESOLVE_LATEST = text(_LIVE + " WHERE d.name = :name AND (:source = '' OR s.name = :source) ORDER BY s.name")


async def live_by_name(connection: AsyncConnection, name: str, source: str = "") -> list[Record]:
    """The live version of `name` in each source that has one (or in `source` alone), with the source's live commit."""
    return await many(connection, _RESOLVE_LATEST, {"name": name, "source": source})


# The upper end is the prefix followed by a letter above f, so that the index on sha serves the search.
_REVISIONS_BY_PREFIX = text(
    """
    SELECT r.source_id, s.name AS source, r.sha, r.seq, r.status
    FROM revisions r JOIN sources s ON s.id = r.source_id
    WHERE r.sha >= :prefix AND r.sha < :prefix || 'g' AND (:source = '' OR s.name = :source)
    ORDER BY r.sha, s.name, r.seq DESC LIMIT 200
    """
)


async def revisions_by_prefix(connection: AsyncConnection, prefix: str, source: str = "") -> list[Record]:
    """Revisions whose SHA begins with `prefix` (lower-case hex), at most 200, the newest of each source first."""
    return await many(connection, _REVISIONS_BY_PREFIX, {"prefix": prefix, "source": source})


_VERSION_AT = text(
    f"""
    SELECT s.id AS source_id, s.name AS source, :sha AS revision_sha, g.path, {_VERSION},
           CAST(:seq AS bigint) AS revision_seq
    FROM version_ranges g
    JOIN sources s ON s.id = g.source_id
    JOIN workflow_versions v ON v.id = g.version_id
    WHERE g.source_id = :source_id AND g.name = :name AND g.from_seq <= :seq AND (g.to_seq IS NULL OR g.to_seq > :seq)
    """
)


async def version_at(
    connection: AsyncConnection, source_id: int, name: str, *, seq: int, sha: str
) -> Record | None:
    """The version of `name` that was live at the revision `seq` (whose commit is `sha`), or None."""
    parameters = {"source_id": source_id, "name": name, "seq": seq, "sha": sha}
    return await one(connection, _VERSION_AT, parameters)


_VERSIONS_AT = text(
    f"""
    SELECT s.id AS source_id, s.name AS source, :sha AS revision_sha, CAST(:seq AS bigint) AS revision_seq, g.path,
           {_VERSION}, length(b.content) AS size
    FROM version_ranges g
    JOIN sources s ON s.id = g.source_id
    JOIN workflow_versions v ON v.id = g.version_id
    JOIN blobs b ON b.digest = v.compiled_digest
    WHERE g.source_id = :source_id AND g.name = ANY(:names)
      AND g.from_seq <= :seq AND (g.to_seq IS NULL OR g.to_seq > :seq)
    """
).bindparams(bindparam("names", type_=ARRAY(Text)))


async def versions_at(
    connection: AsyncConnection, source_id: int, names: Sequence[str], *, seq: int, sha: str
) -> list[Record]:
    """The versions of `names` that were live at the revision `seq` (whose commit is `sha`), with the `size` of their
    compiled form."""
    parameters = {"source_id": source_id, "names": list(names), "seq": seq, "sha": sha}
    return await many(connection, _VERSIONS_AT, parameters)


_LIVE_REVISION = text(
    "SELECT id AS source_id, live_seq AS seq, live_sha AS sha FROM sources WHERE name = :source AND live_seq > 0"
)


async def live_revision(connection: AsyncConnection, source: str) -> Record | None:
    """What is live of a source (`source_id, seq, sha`), None if nothing is."""
    return await one(connection, _LIVE_REVISION, {"source": source})


_NAMES = text(
    """
    SELECT s.name AS source, d.name, d.live_version_id IS NULL AS retired
    FROM workflow_definitions d JOIN sources s ON s.id = d.source_id ORDER BY d.name, s.name LIMIT :limit
    """
)


async def names(connection: AsyncConnection, limit: int = 5000) -> list[Record]:
    """Names that are or were deployed: `source`, `name`, `retired`."""
    return await many(connection, _NAMES, {"limit": limit})


_LIST = text(
    f"""
    SELECT s.name AS source, d.path, d.retired_seq, {_VERSION}
    FROM workflow_definitions d
    JOIN sources s ON s.id = d.source_id
    LEFT JOIN workflow_versions v ON v.id = d.live_version_id
    WHERE d.live_version_id IS NOT NULL
      AND (d.name, s.name) > (:after_name, :after_source) AND (:source = '' OR s.name = :source)
    ORDER BY d.name, s.name LIMIT :limit
    """
)


async def list_live(
    connection: AsyncConnection, *, limit: int, after: tuple[str, str] = ("", ""), source: str = ""
) -> list[Record]:
    """Live definitions in order of (name, source), those after `after` only."""
    parameters = {"limit": limit, "after_name": after[0], "after_source": after[1], "source": source}
    return await many(connection, _LIST, parameters)


_DEFINITIONS = text(
    """
    SELECT s.id AS source_id, s.name AS source, s.folder, d.path, d.live_version_id, r.sha AS retired_sha, r.registered_at AS retired_at
    FROM workflow_definitions d
    JOIN sources s ON s.id = d.source_id
    LEFT JOIN revisions r ON r.source_id = d.source_id AND r.seq = d.retired_seq
    WHERE d.name = :name AND (:source = '' OR s.name = :source) ORDER BY s.name
    """
)


async def definitions(connection: AsyncConnection, name: str, source: str = "") -> list[Record]:
    """Where `name` is or was deployed, one row per source."""
    return await many(connection, _DEFINITIONS, {"name": name, "source": source})


# A signer stands on the revision once sources ask for signatures.
_SPANS = text(
    f"""
    SELECT s.name AS source, g.path, g.from_seq, g.to_seq, f.sha AS from_sha, f.registered_at AS from_at,
           t.sha AS to_sha, t.registered_at AS to_at, {_VERSION},
           f.author, f.author_email, f.committed_at, f.subject, COALESCE(to_jsonb(f) ->> 'signer', '') AS signer,
           ran.total AS runs, ran.open AS runs_open, ran.completed AS runs_completed, ran.failed AS runs_failed
    FROM version_ranges g
    JOIN sources s ON s.id = g.source_id
    JOIN workflow_versions v ON v.id = g.version_id
    JOIN revisions f ON f.source_id = g.source_id AND f.seq = g.from_seq
    LEFT JOIN revisions t ON t.source_id = g.source_id AND t.seq = g.to_seq
    CROSS JOIN LATERAL (
        SELECT count(*) AS total,
               count(*) FILTER (WHERE status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')) AS open,
               count(*) FILTER (WHERE status = 'COMPLETED') AS completed,
               count(*) FILTER (WHERE status IN ('FAILED', 'TIMED_OUT')) AS failed
        FROM workflow_executions e WHERE e.version_id = v.id
    ) ran
    WHERE g.source_id = :source_id AND g.name = :name AND (:before = 0 OR g.from_seq < :before)
    ORDER BY g.from_seq DESC LIMIT :limit
    """
)


async def spans(
    connection: AsyncConnection, source_id: int, name: str, *, limit: int, before: int = 0
) -> list[Record]:
    """When which version of `name` was live, newest first, those that began before revision `before` only.

    Each with the commit that made it live, and how its runs ended; a version that was restored has the runs of all its
    spans.
    """
    parameters = {"source_id": source_id, "name": name, "limit": limit, "before": before}
    return await many(connection, _SPANS, parameters)


_REVISIONS = text(
    """
    SELECT r.id, s.name AS source, r.seq, r.sha, r.parent_sha, r.status, r.history_rewritten, r.author, r.author_email,
           r.committer, r.committed_at, r.subject, r.bundle_digest, r.registered_at, r.signer, r.signer_key,
           (SELECT count(*) FROM revision_problems p WHERE p.revision_id = r.id) AS problem_count
    FROM revisions r JOIN sources s ON s.id = r.source_id
    WHERE (:source = '' OR s.name = :source) AND (:before = 0 OR r.id < :before)
      AND (:sha = '' OR r.sha = :sha) AND (:status = '' OR r.status = :status)
    ORDER BY r.id DESC LIMIT :limit
    """
)


async def list_revisions(
    connection: AsyncConnection,
    *,
    limit: int,
    before: int = 0,
    source: str = "",
    sha: str = "",
    status: str = "",
) -> list[Record]:
    """Revisions, newest first; of one source, of one commit, or of one status, if asked."""
    parameters = {"limit": limit, "before": before, "source": source, "sha": sha, "status": status}
    return await many(connection, _REVISIONS, parameters)


_PROBLEMS = text(
    """
    SELECT p.* FROM unnest(:ids) AS r (id)
    CROSS JOIN LATERAL (
        SELECT * FROM revision_problems WHERE revision_id = r.id ORDER BY id LIMIT :each
    ) p
    ORDER BY p.id
    """
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))


async def problems(
    connection: AsyncConnection, revision_ids: Sequence[int], *, each: int | None = None
) -> dict[int, list[Record]]:
    """The located faults of revisions by id, in the order in which they were found; at most `each` of one."""
    found: dict[int, list[Record]] = {revision: [] for revision in revision_ids}
    if found:
        for row in await many(connection, _PROBLEMS, {"ids": list(found), "each": each}):
            found[row["revision_id"]].append(row)
    return found


async def problems_of(connection: AsyncConnection, source_id: int, seq: int) -> list[Record]:
    """The located faults of the revision `seq` of a source."""
    statement = (
        select(RevisionProblem.__table__)
        .join(Revision, Revision.id == RevisionProblem.revision_id)
        .where(Revision.source_id == source_id, Revision.seq == seq)
        .order_by(RevisionProblem.id)
    )
    return await many(connection, statement)


_CHANGES = text(
    """
    SELECT s.name AS source, g.name, g.path, 'deployed' AS change, v.id AS version_id, v.commit_sha, v.digest, v.bundle_digest
    FROM version_ranges g
    JOIN sources s ON s.id = g.source_id
    JOIN workflow_versions v ON v.id = g.version_id
    JOIN revisions r ON r.source_id = g.source_id AND r.seq = g.from_seq
    WHERE r.sha = :sha
    UNION ALL
    SELECT s.name, g.name, g.path, 'retired', v.id, v.commit_sha, v.digest, v.bundle_digest
    FROM version_ranges g
    JOIN sources s ON s.id = g.source_id
    JOIN workflow_versions v ON v.id = g.version_id
    JOIN revisions r ON r.source_id = g.source_id AND r.seq = g.to_seq
    WHERE r.sha = :sha AND NOT EXISTS (
        SELECT FROM version_ranges n WHERE n.source_id = g.source_id AND n.name = g.name AND n.from_seq = g.to_seq
    )
    ORDER BY 1, 2, 4
    """
)


async def changes_of(connection: AsyncConnection, sha: str) -> list[Record]:
    """What the commit `sha` deployed and retired: `source, name, path, change, version_id, commit_sha, digest`."""
    return await many(connection, _CHANGES, {"sha": sha})


# --- what the plan of a new revision is compared with -------------------------------------------------------

_LIVE_OF_SOURCE = _LIVE.replace("d.path,", "d.path, d.live_version_id,") + " WHERE d.source_id = :source_id"
_LIVE_TOUCHED = text(_LIVE_OF_SOURCE + " AND (d.path = ANY(:paths) OR d.name = ANY(:names))").bindparams(
    bindparam("paths", type_=ARRAY(Text)), bindparam("names", type_=ARRAY(Text))
)
_LIVE_CALLERS = text(
    _LIVE_OF_SOURCE
    + """ AND v.calls <> '[]' AND EXISTS (
        SELECT FROM jsonb_array_elements(v.calls) c
        WHERE c ->> 'workflow' = ANY(:names) AND c ->> 'ref' IN ('same', 'latest')
    ) ORDER BY d.name"""
).bindparams(bindparam("names", type_=ARRAY(Text)))
_LIVE_FUNCTION_USERS = text(_LIVE_OF_SOURCE + " AND v.uses_functions ORDER BY d.name")
_LIVE_ALL = text(_LIVE_OF_SOURCE + " ORDER BY d.name")


async def live_touched(
    connection: AsyncConnection, source_id: int, *, paths: Sequence[str], names: Sequence[str]
) -> list[Record]:
    """Live definitions of a source that stand at one of `paths` or have one of `names`."""
    parameters = {"source_id": source_id, "paths": list(paths), "names": list(names)}
    return await many(connection, _LIVE_TOUCHED, parameters)


async def live_callers(connection: AsyncConnection, source_id: int, names: Sequence[str]) -> list[Record]:
    """Live definitions of a source that have a task which starts one of `names`, as it is live together with them."""
    return await many(connection, _LIVE_CALLERS, {"source_id": source_id, "names": list(names)})


async def live_function_users(connection: AsyncConnection, source_id: int) -> list[Record]:
    """Live definitions of a source that call its functions."""
    return await many(connection, _LIVE_FUNCTION_USERS, {"source_id": source_id})


async def live_bundles(connection: AsyncConnection) -> list[str]:
    """The bundles of functions that live definitions call, by digest."""
    statement = text(
        "SELECT DISTINCT v.bundle_digest FROM workflow_definitions d"
        " JOIN workflow_versions v ON v.id = d.live_version_id WHERE v.bundle_digest <> '' ORDER BY 1"
    )
    return list((await connection.execute(statement)).scalars())


async def live_all(connection: AsyncConnection, source_id: int) -> list[Record]:
    """All live definitions of a source."""
    return await many(connection, _LIVE_ALL, {"source_id": source_id})


async def live_count(connection: AsyncConnection, source_id: int) -> int:
    """How many definitions of a source are live."""
    statement = text(
        "SELECT count(*) FROM workflow_definitions WHERE source_id = :s AND live_version_id IS NOT NULL"
    )
    return int((await connection.execute(statement, {"s": source_id})).scalar_one())
