"""Webhooks of the forges: closed by their signature, not by a token."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from engine.api.auth import Service
from engine.api.schemas.common import ERRORS
from engine.api.schemas.history import SyncAsked

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks/{forge}",
    status_code=202,
    response_model=SyncAsked,
    responses={401: ERRORS[401] | {"description": "No valid signature"}, 422: ERRORS[422], 503: ERRORS[503]},
    openapi_extra={"security": []},
)
async def take_webhook(forge: str, request: Request, services: Service) -> Any:
    """A forge says that there is something new: its sources are looked at now.

    Signed as the forge does it (`X-Hub-Signature-256`, `X-Gitea-Signature`; GitLab's `webhook-signature`, or `X-Gitlab-Token`),
    1 MiB at most. A delivery that comes again asks for nothing.
    """
    return {"asked": await services.forges.take(forge, request.headers, await request.body())}
