"""Definitions that are proposed and promoted: commits, never rows behind git's back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Response

from engine.api.auth import By, Service, needs
from engine.api.schemas.common import CONFLICT, Cursor, Limit, Page
from engine.api.schemas.proposals import Promote, Proposal, Propose

router = APIRouter(tags=["proposals"])

_Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key", max_length=255, description="The same key and body lead to one proposal."
    ),
]
_OPERATOR = [Depends(needs("operator"))]


@router.post(
    "/workflows", status_code=201, response_model=Proposal, dependencies=_OPERATOR, responses=CONFLICT
)
async def propose(
    asked: Propose, answer: Response, services: Service, caller: By, idempotency_key: _Key = ""
) -> Any:
    """Propose a definition: it is checked and committed on a branch of its own. Role: operator.

    201 with branch and commit once it is on the remote; 202 while it is not yet: `GET /proposals/{id}` tells.
    """
    row = await services.proposals.propose(
        caller,
        asked.definition,
        source=asked.source,
        path=asked.path,
        title=asked.title,
        body=asked.message,
        pull_request=asked.pull_request,
        key=idempotency_key,
    )
    return _told(row, answer)


@router.post(
    "/workflows/{workflow}/promote",
    status_code=201,
    response_model=Proposal,
    dependencies=_OPERATOR,
    responses=CONFLICT,
)
async def promote(
    workflow: str, asked: Promote, answer: Response, services: Service, caller: By, idempotency_key: _Key = ""
) -> Any:
    """Commit to one source what is live of a workflow in another. Role: operator. The answers are those of a proposal."""
    row = await services.proposals.promote(
        caller,
        workflow,
        asked.from_source,
        asked.to_source,
        direct=asked.direct,
        with_functions=asked.with_functions,
        body=asked.message,
        pull_request=asked.pull_request,
        key=idempotency_key,
    )
    return _told(row, answer)


@router.get("/proposals", response_model=Page[Proposal])
async def list_proposals(
    services: Service,
    limit: Limit = 50,
    cursor: Cursor = "",
    source: Annotated[str, Query(max_length=100)] = "",
    status: Annotated[Literal["PROPOSING", "PROPOSED", "FAILED"] | None, Query()] = None,
) -> Any:
    """Proposals and promotions, the newest first."""
    rows, more = await services.proposals.page(count=limit, cursor=cursor, status=status or "", source=source)
    return {"items": rows, "next_cursor": more}


@router.get("/proposals/{proposal}", response_model=Proposal)
async def get_proposal(proposal: str, services: Service) -> Any:
    """How a proposal stands."""
    return await services.proposals.proposal(proposal)


def _told(row: dict[str, Any], answer: Response) -> dict[str, Any]:
    answer.status_code = 201 if row["status"] == "PROPOSED" else 202
    answer.headers["location"] = f"/proposals/{row['id']}"
    return row
