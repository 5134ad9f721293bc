"""Named queries that register a revision. Each takes all rows at once: a first sync writes ten thousand of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Text, bindparam, insert, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import Revision
from engine.storage.rows import Record, many

Rows = Sequence[Mapping[str, Any]]


def _json(rows: Rows) -> str:
    """Rows as one JSON parameter, for `jsonb_to_recordset`."""
    encoded = json.dumps(rows, ensure_ascii=False)
    if "\\u0000" in encoded or not encoded.isprintable():
        encoded = json.dumps(_storable(list(rows)), ensure_ascii=False)
    return encoded


def _storable(value: Any) -> Any:
    """The same value without what Postgres' text cannot hold: NUL and lone surrogates."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_storable(item) for item in value]
    return value


async def add_revision(
    connection: AsyncConnection,
    *,
    source_id: int,
    seq: int,
    sha: str,
    parent_sha: str,
    tree_sha: str,
    status: str,
    history_rewritten: bool,
    author: str,
    author_email: str,
    authors: Rows,
    committer: str,
    committed_at: datetime,
    subject: str,
    bundle_digest: str,
    signer: str = "",
    signer_key: str = "",
) -> int:
    """Insert the revision's row and return its id."""
    statement = (
        insert(Revision)
        .values(
            source_id=source_id,
            seq=seq,
            sha=sha,
            parent_sha=parent_sha,
            tree_sha=tree_sha,
            status=status,
            history_rewritten=history_rewritten,
            author=author,
            author_email=author_email,
            authors=list(authors),
            committer=committer,
            committed_at=committed_at,
            subject=subject,
            bundle_digest=bundle_digest,
            signer=signer,
            signer_key=signer_key,
        )
        .returning(Revision.id)
    )
    return int((await connection.execute(statement)).scalar_one())


_ADD_PROBLEMS = text(
    """
    INSERT INTO revision_problems (revision_id, file, line, "column", code, path, message, hint)
    SELECT :revision_id, file, line, "column", code, path, message, hint
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
         AS new (file text, line int, "column" int, code text, path text, message text, hint text)
    """
)


async def add_problems(connection: AsyncConnection, revision_id: int, rows: Rows) -> None:
    """Keep the faults of a revision; each row has the fields of `engine.errors.Problem`."""
    await connection.execute(_ADD_PROBLEMS, {"revision_id": revision_id, "rows": _json(rows)})


_ADD_VERSIONS = text(
    """
    INSERT INTO workflow_versions (source_id, name, commit_sha, seq, path, digest, compiled_digest, bundle_digest,
                                   git_blob, dsl, version, title, description, labels, uses_functions, calls, triggers)
    SELECT :source_id, name, :commit_sha, :seq, path, digest, compiled_digest, bundle_digest,
           git_blob, dsl, version, title, description, labels, uses_functions, calls, triggers
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
         AS new (name text, path text, digest text, compiled_digest text, bundle_digest text, git_blob text, dsl text,
                 version text, title text, description text, labels jsonb, uses_functions boolean,
                 calls jsonb, triggers jsonb)
    ORDER BY name
    ON CONFLICT (source_id, name, digest, compiled_digest, bundle_digest) DO NOTHING
    """
)
# The state before this revision comes along, so that a restored definition is told from a new one.
_VERSION_IDS = text(
    """
    SELECT new.name, new.path, v.id AS version_id, v.commit_sha, v.digest, v.bundle_digest,
           d.live_version_id, d.path AS live_path, d.retired_seq
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
         AS new (name text, path text, digest text, compiled_digest text, bundle_digest text)
    JOIN workflow_versions v ON v.source_id = :source_id AND v.name = new.name AND v.digest = new.digest
         AND v.compiled_digest = new.compiled_digest AND v.bundle_digest = new.bundle_digest
    LEFT JOIN workflow_definitions d ON d.source_id = :source_id AND d.name = new.name
    ORDER BY new.name
    """
)


async def add_versions(
    connection: AsyncConnection, *, source_id: int, commit_sha: str, seq: int, rows: Rows
) -> list[Record]:
    """Insert the versions that are new and return all of `rows` with their `version_id` and how the name stood before."""
    parameters = {"source_id": source_id, "rows": _json(rows)}
    await connection.execute(_ADD_VERSIONS, parameters | {"commit_sha": commit_sha, "seq": seq})
    return await many(connection, _VERSION_IDS, parameters)


_CLOSE_RANGES = text(
    """
    UPDATE version_ranges SET to_seq = :seq
    WHERE source_id = :source_id AND name = ANY(:names) AND to_seq IS NULL
    """
).bindparams(bindparam("names", type_=ARRAY(Text)))
_OPEN_RANGES = text(
    """
    INSERT INTO version_ranges (source_id, name, version_id, path, from_seq)
    SELECT :source_id, name, version_id, path, :seq
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (name text, version_id bigint, path text)
    """
)
_PUT_DEFINITIONS = text(
    """
    INSERT INTO workflow_definitions (source_id, name, live_version_id, path)
    SELECT :source_id, name, version_id, path
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (name text, version_id bigint, path text)
    ON CONFLICT (source_id, name) DO UPDATE
        SET live_version_id = excluded.live_version_id, path = excluded.path, retired_seq = NULL
    """
)
_RETIRE = text(
    """
    UPDATE workflow_definitions SET live_version_id = NULL, retired_seq = :seq
    WHERE source_id = :source_id AND name = ANY(:names)
    """
).bindparams(bindparam("names", type_=ARRAY(Text)))


async def make_live(connection: AsyncConnection, *, source_id: int, seq: int, rows: Rows) -> None:
    """Make the versions of `rows` (`name, version_id, path`) the live ones from revision `seq` on."""
    names = [row["name"] for row in rows]
    parameters = {"source_id": source_id, "seq": seq, "rows": _json(rows)}
    await connection.execute(_CLOSE_RANGES, {"source_id": source_id, "seq": seq, "names": names})
    await connection.execute(_OPEN_RANGES, parameters)
    await connection.execute(_PUT_DEFINITIONS, {"source_id": source_id, "rows": parameters["rows"]})


async def retire(connection: AsyncConnection, *, source_id: int, seq: int, names: Sequence[str]) -> None:
    """From revision `seq` on, `names` have no live version."""
    parameters = {"source_id": source_id, "seq": seq, "names": list(names)}
    await connection.execute(_CLOSE_RANGES, parameters)
    await connection.execute(_RETIRE, parameters)


_AUDIT = text(
    """
    INSERT INTO audit (actor, action, source, workflow, commit_sha, details)
    SELECT :actor, action, :source, workflow, :commit_sha, details
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (action text, workflow text, details jsonb)
    """
)


async def record_all(
    connection: AsyncConnection, *, actor: str, source: str, commit_sha: str, rows: Rows
) -> None:
    """Audit rows of one revision (`action, workflow, details`) in one statement, in their order."""
    parameters = {"actor": actor, "source": source, "commit_sha": commit_sha, "rows": _json(rows)}
    await connection.execute(_AUDIT, parameters)
