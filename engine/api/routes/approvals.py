"""See what waits for people, and decide."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from engine.api.auth import By, Service
from engine.api.schemas.approvals import Approval, ApprovalStatus, Decide
from engine.api.schemas.common import CONFLICT, Cursor, Limit, Page

router = APIRouter(prefix="/approvals", tags=["approvals"])


@router.get("", response_model=Page[Approval])
async def list_approvals(
    services: Service,
    limit: Limit = 50,
    cursor: Cursor = "",
    status: Annotated[ApprovalStatus | None, Query()] = None,
    execution_id: Annotated[str, Query(max_length=100)] = "",
    workflow: Annotated[str, Query(max_length=300, description="A name, or `source/name`.")] = "",
) -> Any:
    """Requests, the newest first."""
    rows, more = await services.approvals.page(
        count=limit, cursor=cursor, status=status or "", execution_id=execution_id, workflow=workflow
    )
    return {"items": rows, "next_cursor": more}


@router.get("/{approval_id}", response_model=Approval)
async def get_approval(approval_id: str, services: Service) -> Any:
    """One request with its decisions."""
    return await services.approvals.get(approval_id)


@router.post("/{approval_id}/approve", response_model=Approval, responses=CONFLICT)
async def decide(approval_id: str, services: Service, by: By, body: Decide) -> Any:
    """Approve or reject. 409 if it was resolved, its time has passed, or you have said so before. Role: approver."""
    return await services.approvals.decide(
        by, approval_id, body.decision, comment=body.comment, form=body.form
    )
