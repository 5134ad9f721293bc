"""Who calls. Every route of `app._include_closed` is closed; how a token is sent stands in the OpenAPI through `SECURITY`.

The dependencies take the request alone and are coroutines: FastAPI resolves a deeper tree, or one with plain
functions (each a visit to a thread), at several times the cost of the token's check.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request

from engine.errors import Unauthenticated
from engine.services.callers import Caller, Role
from engine.services.workflow_service import WorkflowService

SCHEME = "token"
SECURITY: dict[str, Any] = {
    SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "A token made by `pinflow token create` or POST /tokens.",
    }
}


async def service(request: Request) -> WorkflowService:
    """The service layer that the app was made with."""
    found: WorkflowService = request.app.state.service
    return found


async def caller(request: Request) -> Caller:
    """The caller behind the request's bearer token. Raises `Unauthenticated`."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret:
            raise Unauthenticated(
                "this call needs a token", hint="send the header Authorization: Bearer pf_..."
            )
        services: WorkflowService = request.app.state.service
        known = request.state.caller = await services.tokens.authenticate(secret.strip())
    return known


Service = Annotated[WorkflowService, Depends(service)]
By = Annotated[Caller, Depends(caller)]


def needs(role: Role) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets pass who has the role."""

    async def check(request: Request) -> None:
        (await caller(request)).require(role)

    return check
