"""A source with one deployed definition, written straight into the tables: for tests that are not about sync."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, text

from engine.storage import triggers
from engine.storage.database import Database
from engine.storage.models import Revision, Source, VersionRange, WorkflowDefinition, WorkflowVersion


@dataclass(frozen=True)
class Registered:
    """What was written. `size` is the compiled form's, in bytes."""

    source_id: int
    version_id: int
    name: str
    commit_sha: str
    digest: str
    compiled_digest: str
    size: int


def compiled_form(name: str, **changes: Any) -> dict[str, Any]:
    """A compiled definition without tasks."""
    form = {
        "format": 1,
        "dsl": "1",
        "name": name,
        "version": "1",
        "title": name,
        "description": "",
        "labels": {},
        "inputs": None,
        "env": {},
        "timeout": None,
        "cleanup_timeout": 60.0,
        "max_concurrency": None,
        "on_task_failure": "finish",
        "tasks": [],
        "on_failure": [],
        "finally": [],
        "outputs": None,
        "exprs": [],
    }
    return form | changes


def _times(trigger: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trigger.items() if key not in ("when", "inputs")}


async def register(
    database: Database,
    name: str = "hello",
    *,
    compiled: dict[str, Any] | None = None,
    source: str = "main",
    commit_sha: str = "",
    author_email: str = "ada@example.test",
) -> Registered:
    """Write a revision that deploys one definition, on a source that is made if it is new."""
    body = json.dumps(compiled or compiled_form(name), sort_keys=True, separators=(",", ":")).encode()
    compiled_digest = hashlib.sha256(body).hexdigest()
    definition = b"# " + body
    digest = hashlib.sha256(definition).hexdigest()
    commit_sha = commit_sha or hashlib.sha1(source.encode() + name.encode() + body).hexdigest()
    async with database.begin() as connection:
        for key, kind, content in ((digest, "definition", definition), (compiled_digest, "compiled", body)):
            await connection.execute(
                text("INSERT INTO blobs (digest, kind, content) VALUES (:d, :k, :c) ON CONFLICT DO NOTHING"),
                {"d": key, "k": kind, "c": content},
            )
        row = (
            await connection.execute(text("SELECT id, live_seq FROM sources WHERE name = :n"), {"n": source})
        ).one_or_none()
        if row is None:
            values = {"name": source, "url": "/repo", "branch": "main", "folder": "workflows"}
            source_id = (
                await connection.execute(insert(Source).values(values).returning(Source.id))
            ).scalar_one()
            seq = 1
        else:
            source_id, seq = row.id, row.live_seq + 1
        await connection.execute(
            insert(Revision).values(
                source_id=source_id,
                seq=seq,
                sha=commit_sha,
                parent_sha="",
                tree_sha="0" * 40,
                status="REGISTERED",
                author="Ada Author",
                author_email=author_email,
                committer="Ada Author",
                committed_at=datetime.now(UTC),
                subject=f"Change {name}",
            )
        )
        version_id = (
            await connection.execute(
                insert(WorkflowVersion)
                .values(
                    source_id=source_id,
                    name=name,
                    commit_sha=commit_sha,
                    seq=seq,
                    path=f"workflows/{name}.yaml",
                    digest=digest,
                    compiled_digest=compiled_digest,
                    git_blob="0" * 40,
                    dsl="1",
                    version="1",
                    title=name,
                    description="",
                    labels={},
                    uses_functions=False,
                    triggers=[_times(each) for each in (compiled or {}).get("triggers", [])],
                    calls=(compiled or {}).get("calls", []),
                )
                .returning(WorkflowVersion.id)
            )
        ).scalar_one()
        await connection.execute(
            text(
                "UPDATE version_ranges SET to_seq = :seq WHERE source_id = :s AND name = :n AND to_seq IS NULL"
            ),
            {"seq": seq, "s": source_id, "n": name},
        )
        await connection.execute(
            insert(VersionRange).values(
                source_id=source_id,
                name=name,
                version_id=version_id,
                path=f"workflows/{name}.yaml",
                from_seq=seq,
            )
        )
        await connection.execute(
            text("DELETE FROM workflow_definitions WHERE source_id = :s AND name = :n"),
            {"s": source_id, "n": name},
        )
        await connection.execute(
            insert(WorkflowDefinition).values(
                source_id=source_id, name=name, live_version_id=version_id, path=f"workflows/{name}.yaml"
            )
        )
        await connection.execute(
            text("UPDATE sources SET live_seq = :seq, live_sha = :sha WHERE id = :s"),
            {"seq": seq, "sha": commit_sha, "s": source_id},
        )
        await triggers.follow(connection, source_id=source_id, seq=seq, names=[name])
    return Registered(source_id, version_id, name, commit_sha, digest, compiled_digest, len(body))
