"""What is deployed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from engine.api.auth import By, Service, needs
from engine.api.schemas.common import Cursor, Limit, Page
from engine.api.schemas.workflows import Backfill, Span, Version, Workflow, WorkflowDetail
from engine.forge.pull_requests import pull_request
from engine.services import cursors
from engine.storage.rows import Record

router = APIRouter(prefix="/workflows", tags=["workflows"])


@router.get("", response_model=Page[Workflow])
async def list_workflows(
    services: Service,
    limit: Limit = 50,
    cursor: Cursor = "",
    source: Annotated[str, Query(max_length=100)] = "",
) -> Any:
    """The live definitions, by name."""
    after = cursors.decode(cursor, str, str) or ("", "")
    rows = await services.registry.workflows(limit=limit + 1, after=after, source=source)
    more = cursors.encode(rows[limit - 1]["name"], rows[limit - 1]["source"]) if len(rows) > limit else ""
    return {"items": rows[:limit], "next_cursor": more}


# A name may be `source/name`, so the longer path stands first.
@router.get("/{workflow:path}/versions", response_model=Page[Version])
async def list_versions(workflow: str, services: Service, limit: Limit = 50, cursor: Cursor = "") -> Any:
    """When which version was live and how its runs ended, the newest first; of a retired definition as well."""
    before = cursors.decode(cursor, int)
    rows = await services.registry.versions(workflow, limit=limit + 1, before=before[0] if before else 0)
    more = cursors.encode(rows[limit - 1]["from_seq"]) if len(rows) > limit else ""
    return {"items": [_span(row) for row in rows[:limit]], "next_cursor": more}


def _span(row: Record) -> Record:
    ended = row["runs_completed"] + row["runs_failed"]
    return row | {
        "live": row["to_seq"] is None,
        "pull_request": pull_request(row["subject"]),
        "restored": row["commit_sha"] != row["from_sha"],
        "failure_rate": row["runs_failed"] / ended if ended else None,
    }


@router.post(
    "/{workflow:path}/triggers/{trigger}/backfill",
    status_code=202,
    response_model=Backfill,
    dependencies=[Depends(needs("operator"))],
)
async def backfill(workflow: str, trigger: str, body: Span, services: Service, by: By) -> Any:
    """Start a run for each scheduled time of a span that has had none, a hundred at a time. Role: operator."""
    return await services.triggers.backfill(by, workflow, trigger, body.from_, body.to)


@router.get("/{workflow:path}", response_model=WorkflowDetail)
async def get_workflow(
    workflow: str,
    services: Service,
    ref: Annotated[str, Query(min_length=1, max_length=100)] = "latest",
    definition: bool = False,
) -> Any:
    """One definition as of a ref (`latest`, a full or a short SHA), with the schema of its inputs."""
    version = await services.registry.resolve(workflow, ref)
    pin = version.pin
    compiled = await services.registry.compiled(pin.compiled_digest)
    text = None
    if definition:
        text = (await services.registry.content(pin.digest)).decode(errors="replace")
    return {
        "name": pin.workflow,
        "source": pin.source,
        "path": version.path,
        "version": version.version,
        "title": version.title,
        "description": version.description,
        "labels": version.labels,
        "commit_sha": pin.commit_sha,
        "revision_sha": pin.revision_sha,
        "digest": pin.digest,
        "compiled_digest": pin.compiled_digest,
        "bundle_digest": pin.bundle_digest,
        "dsl": pin.dsl,
        "inputs": compiled["inputs"],
        "tasks": [task["id"] for task in compiled["tasks"]],
        "triggers": await services.triggers.of_workflow(version.source_id, pin.workflow),
        "definition": text,
    }
