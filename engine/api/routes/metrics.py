"""Metrics, for Prometheus with a token of a viewer (`authorization` in its scrape config)."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from engine.api.auth import Service

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, services: Service) -> Response:
    """Requests, webhooks, open runs, pending approvals, backlogs of what others must be told, the conditions of sources."""
    figures = await services.health.figures()
    return Response(request.app.state.metrics.page(figures, services.tally), media_type=CONTENT_TYPE_LATEST)
