"""Webhooks of workflows. Open: a sender has no token, its signature is judged before anything else of the request."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from engine.api.auth import Service
from engine.api.schemas.common import ERRORS
from engine.api.schemas.hooks import Delivered

router = APIRouter(prefix="/hooks", tags=["hooks"])


@router.post(
    "/{workflow:path}/{trigger}",
    status_code=202,
    response_model=Delivered,
    responses={status: ERRORS[status] for status in (401, 422, 503)},
    openapi_extra={"security": []},
)
async def deliver(workflow: str, trigger: str, request: Request, services: Service) -> Any:
    """Start the run of a webhook trigger (of a workflow's name, or `source/name`). The request is signed with the trigger's
    secret: `X-Pinflow-Signature`, `webhook-signature` or GitHub's `X-Hub-Signature-256`; see docs/how-to/webhooks.md."""
    return await services.webhooks.deliver(workflow, trigger, request.headers, await request.body())
