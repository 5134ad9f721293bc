"""The app: everything is passed in, nothing happens at import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi

from engine.api import problems
from engine.api.auth import SCHEME, SECURITY, needs
from engine.api.limits import WITHOUT_BODY, RequestLimits
from engine.api.metrics import Metrics, RequestMetrics
from engine.api.routes import (
    approvals,
    callbacks,
    executions,
    health,
    history,
    hooks,
    metrics,
    plans,
    proposals,
    tokens,
    webhooks,
    workflows,
)
from engine.api.routes.fast_lane import ROUTES as FAST_LANE
from engine.api.schemas.common import ERRORS
from engine.services.workflow_service import WorkflowService

DESCRIPTION = """
Git-native declarative workflows: merge a pull request and the workflow is deployed; every run is pinned to its commit.

Every call but `/healthz`, `/readyz`, `/hooks/...` and `/webhooks/...` (which are signed), `/callbacks/...` (whose URL is the key) and this page needs a token:
`Authorization: Bearer pf_...`. Errors are
problem+json (RFC 9457). Listings have cursors: give `next_cursor` as `cursor`.
"""


def create_app(service: WorkflowService, *, fast_lane: bool = True) -> FastAPI:
    """The HTTP API over a service layer. `fast_lane` is off in the test that compares."""
    app = FastAPI(
        title="Pinflow",
        version=_version(),
        description=DESCRIPTION,
        lifespan=_lifespan,
        redoc_url=None,
        docs_url="/docs",
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.metrics = Metrics()
    if fast_lane:
        app.router.routes.extend(FAST_LANE)
    _include_closed(app)
    app.include_router(health.router)
    app.include_router(callbacks.router)
    app.include_router(hooks.router)
    app.include_router(webhooks.router)
    problems.install(app)
    app.add_middleware(RequestLimits)
    app.add_middleware(problems.LastResort)
    app.add_middleware(RequestMetrics, metrics=app.state.metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _include_closed(app: FastAPI) -> None:
    """Every route that needs a token: a new one is closed because its router stands here.

    One level of routers, the most called first: FastAPI asks them in turn.
    """
    for part in (executions, workflows, approvals, history, plans, proposals, tokens, metrics):
        app.include_router(part.router, dependencies=[Depends(needs("viewer"))], responses=ERRORS)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    watching = asyncio.create_task(app.state.service.health.watch(), name="temporal watch")
    yield
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in schema["paths"].values():
            for method, operation in path.items():
                _as_problems(operation["responses"])
                _add_limits(method, operation["responses"])
                if "401" in operation["responses"]:  # which every closed route has from its router
                    operation.setdefault("security", [{SCHEME: []}])
        schema["components"]["securitySchemes"] = SECURITY
        for unused in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _as_problems(responses: dict[str, Any]) -> None:
    """Errors leave as problem+json, which FastAPI cannot be told route by route."""
    for status, answer in responses.items():
        content = answer.get("content", {})
        if status[0] in "45" and "application/json" in content:
            answer["content"] = {problems.MEDIA_TYPE: content["application/json"]}


def _add_limits(method: str, responses: dict[str, Any]) -> None:
    """What `RequestLimits` answers for any route, which FastAPI knows nothing of."""
    shape = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in (400,) if method.upper() in WITHOUT_BODY else (400, 408, 413):
        responses.setdefault(str(status), {"description": problems.TITLES[status][1], "content": shape})


def _version() -> str:
    try:
        return version("pinflow")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0"
