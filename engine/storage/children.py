"""Named queries for children: the row of a run that another run has started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.core.contracts import RunStart
from engine.storage.json_text import clean_text
from engine.storage.rows import Record, many, one

_JSON = JSONB(none_as_null=True)
_TEXTS = (
    "status",
    "digest",
    "parent_id",
    "parent_task",
    "workflow",
    "commit_sha",
    "actor",
    "callback_key",
    "id",
)


@dataclass(frozen=True, slots=True)
class NewChild:
    """A child that begins. With `error` it has ended before it began: its inputs do not fit."""

    start: RunStart
    inputs: Mapping[str, Any]
    title: str
    error: Mapping[str, Any] | None = None


# The version's row is found by what the pin says: a pin that the registry does not hold starts nothing.
_OPEN = text("""
    WITH version AS (
        SELECT v.id, v.source_id, s.name AS source
          FROM workflow_versions v JOIN sources s ON s.id = v.source_id
         WHERE s.name = :source AND v.name = :workflow AND v.digest = :digest
           AND v.compiled_digest = :compiled_digest AND v.bundle_digest = :bundle_digest),
    made AS (
        INSERT INTO workflow_executions
               (id, source_id, workflow, version_id, commit_sha, revision_sha, digest, compiled_digest, bundle_digest,
                dsl, calls, inputs, title, status, error, started_by, started_at, finished_at,
                trigger, parent_id, parent_task, root_id, callback_key)
        SELECT :id, version.source_id, :workflow, version.id, :commit_sha, :revision_sha, :digest, :compiled_digest,
               :bundle_digest, :dsl, :calls, :inputs, :title, :status, :error, :started_by, now(),
               CASE WHEN :status = 'FAILED' THEN now() END,
               :trigger, :parent_id, :parent_task, :root_id, :callback_key
          FROM version
        ON CONFLICT (id) DO NOTHING RETURNING id),
    said AS (
        INSERT INTO audit (actor, action, source, workflow, execution_id, commit_sha, details)
        SELECT :actor, CASE WHEN :status = 'FAILED' THEN 'execution.refused' ELSE 'execution.started' END,
               version.source, :workflow, made.id, :commit_sha,
               jsonb_build_object('digest', :digest, 'parent_id', :parent_id, 'parent_task', :parent_task)
          FROM made, version)
    SELECT version.id, made.id IS NOT NULL AS made FROM version LEFT JOIN made ON true
""").bindparams(
    *(bindparam(name, type_=_JSON) for name in ("calls", "inputs", "error", "trigger")),
    *(bindparam(name, type_=Text) for name in _TEXTS),
)


async def open(connection: AsyncConnection, child: NewChild, *, actor: str) -> bool:
    """Write the child's row, audited; a repeat changes nothing. False if the registry does not hold its version."""
    start, pin, parent = child.start, child.start.pin, child.start.parent
    assert parent is not None
    values = {
        "id": start.execution_id,
        "source": pin.source,
        "workflow": pin.workflow,
        "commit_sha": pin.commit_sha,
        "revision_sha": pin.revision_sha,
        "digest": pin.digest,
        "compiled_digest": pin.compiled_digest,
        "bundle_digest": pin.bundle_digest,
        "dsl": pin.dsl,
        "calls": pin.calls,
        "inputs": dict(child.inputs),
        "title": clean_text(child.title),
        "status": "RUNNING" if child.error is None else "FAILED",
        "error": None if child.error is None else dict(child.error),
        "started_by": start.started_by,
        "trigger": start.trigger,
        "parent_id": parent.execution_id,
        "parent_task": parent.task,
        "root_id": parent.root_id,
        "callback_key": start.callback["key"] if start.callback else None,
        "actor": actor,
    }
    return await one(connection, _OPEN, values) is not None


_ORPHANS = text("""
    SELECT e.id, e.workflow, e.commit_sha, s.name AS source
      FROM workflow_executions e
      JOIN workflow_executions p ON p.id = e.parent_id
      JOIN sources s ON s.id = e.source_id
     WHERE e.parent_id <> '' AND e.status IN ('PENDING', 'QUEUED', 'RUNNING', 'WAITING', 'PAUSED')
       AND p.finished_at < now() - make_interval(secs => :age)
       AND NOT EXISTS (SELECT FROM audit a
                        WHERE a.execution_id = e.id AND a.action = 'execution.cancel_requested')
""")


async def orphans(connection: AsyncConnection, *, age: float) -> list[Record]:
    """Open children whose parent has been over for `age` seconds, and that nobody has asked to end."""
    return await many(connection, _ORPHANS, {"age": age})
