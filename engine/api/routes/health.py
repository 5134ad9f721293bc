"""Whether the process is alive, and whether it can work. Open to all: an orchestrator has no token."""

from __future__ import annotations

from fastapi import APIRouter, Response

from engine.api.auth import Service
from engine.api.routes.answers import as_json

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 as long as the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "What is away, and why"}})
async def readyz(services: Service) -> Response:
    """200 if Postgres and Temporal answer, else 503; a word on each."""
    words = await services.health.readiness()
    ready = all(word == "ok" for word in words.values())
    body = {"status": "ok" if ready else "unavailable", **words}
    return as_json(body, 200 if ready else 503, {} if ready else {"retry-after": "2"})
