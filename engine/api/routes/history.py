"""Sources, revisions, commits and the audit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query

from engine.api.auth import By, Service, needs
from engine.api.schemas.common import CONFLICT, CommitSha, Cursor, Limit, Page
from engine.api.schemas.history import (
    AuditRow,
    Commit,
    Confirm,
    Confirmed,
    Retired,
    Revision,
    Source,
    SyncAsked,
)
from engine.services import cursors
from engine.sync.conditions import action

router = APIRouter(tags=["history"])


@router.get("/sources", response_model=Page[Source])
async def list_sources(services: Service, limit: Limit = 500) -> Any:
    """Every source, and how it stands."""
    rows = await services.registry.sources()
    refused = await services.triggers.refused()
    faults = await services.forges.faults()
    told = [
        _source(row, services.forges.warning(row["name"], row["url"]))
        | {"refused_triggers": refused.get(row["name"], []), "forge": faults.get(row["name"])}
        for row in rows
    ]
    return {"items": told, "next_cursor": ""}


def _source(row: dict[str, Any], forge_warning: str) -> dict[str, Any]:
    warnings, helps = [forge_warning] if forge_warning else [], action(row["reason"])
    if row["checked_at"] is not None and not row["watched"]:
        warnings.append(
            "no daemon watches it any more; what it deployed stays live and can be started "
            "(`pinflow sync retire` ends that)"
        )
        helps = "Start a daemon that declares it, or retire what it deployed: `pinflow sync retire`."
    if row["contested"]:
        warnings.append(
            f"another daemon was told differently and stands aside; it would watch {row['contested_by']}"
        )
    settings = dict(row["settings"])
    if fault := settings.pop("file_fault", ""):
        warnings.append(
            f"the sources file of its daemon has a fault, and is not taken until that is mended: {fault}"
        )
    return {**row, "settings": settings, "action": helps, "warnings": warnings}


@router.post(
    "/sources/{name}/sync",
    status_code=202,
    response_model=SyncAsked,
    dependencies=[Depends(needs("operator"))],
)
async def sync_now(name: str, services: Service) -> Any:
    """Ask the daemon to look at a source now, and to tell its forge what it was not told. Role: operator."""
    asked = await services.registry.request_sync(name)
    await services.forges.tell_again(name)
    return {"asked": asked}


@router.post("/sources/{name}/confirm", status_code=202, response_model=Confirmed, responses=CONFLICT)
async def confirm(name: str, body: Confirm, by: By, services: Service) -> Any:
    """Say that a held commit is meant: its deletions, or the history it dropped. Role: operator.

    409 if the commit is not the one that is held, or is held for want of a signature: only a signature passes that.
    """
    return await services.sources.confirm(by, name, body.commit_sha)


@router.post("/sources/{name}/retire", status_code=200, response_model=Retired, responses=CONFLICT)
async def retire(name: str, by: By, services: Service) -> Any:
    """Retire all that a source deployed, which no daemon watches any more. Role: admin.

    Versions stay startable by their commit.  409 while a daemon watches it.  Declared again, it comes back.
    """
    return await services.sources.retire(by, name)


@router.get("/revisions", response_model=Page[Revision])
async def list_revisions(
    services: Service,
    limit: Limit = 50,
    cursor: Cursor = "",
    source: Annotated[str, Query(max_length=100)] = "",
    status: Annotated[Literal["REGISTERED", "REJECTED"] | None, Query()] = None,
) -> Any:
    """Revisions, the newest first, with the first problems of the rejected ones."""
    before = cursors.decode(cursor, int)
    rows = await services.registry.revisions(
        limit=limit + 1, before=before[0] if before else 0, source=source, status=status or ""
    )
    more = cursors.encode(rows[limit - 1]["id"]) if len(rows) > limit else ""
    return {"items": rows[:limit], "next_cursor": more}


@router.get("/commits/{sha}", response_model=Commit)
async def get_commit(sha: str, services: Service) -> Any:
    """All about a commit (full or short SHA): what it deployed and retired, what ran on it, who decided what."""
    return await services.audit.commit(sha)


@router.get("/audit", response_model=Page[AuditRow])
async def list_audit(
    services: Service,
    limit: Limit = 100,
    cursor: Cursor = "",
    commit_sha: CommitSha = "",
    execution_id: Annotated[str, Query(max_length=100)] = "",
    workflow: Annotated[str, Query(max_length=300)] = "",
    source: Annotated[str, Query(max_length=100)] = "",
    actor: Annotated[str, Query(max_length=300)] = "",
    action: Annotated[
        str, Query(max_length=100, description="`approval.decided`, or `approval.` for all.")
    ] = "",
) -> Any:
    """Every change of state, in the order in which it was written."""
    rows, more = await services.audit.page(
        count=limit,
        cursor=cursor,
        commit_sha=commit_sha,
        execution_id=execution_id,
        workflow=workflow,
        source=source,
        actor=actor,
        action=action,
    )
    return {"items": rows, "next_cursor": more}
