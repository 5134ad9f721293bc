"""Who calls. Every route is closed unless `open_routes` says otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from engine.errors import Unauthenticated
from engine.services.callers import Caller, Role
from engine.services.workflow_service import WorkflowService

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token made by `pinflow token create` or POST /tokens.",
)


def service(request: Request) -> WorkflowService:
    """The service layer that the app was made with."""
    found: WorkflowService = request.app.state.service
    return found


Service = Annotated[WorkflowService, Depends(service)]


async def caller(
    services: Service, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Caller:
    """The caller behind the request's bearer token. Raises `Unauthenticated`."""
    if credentials is None:
        raise Unauthenticated("this call needs a token", hint="send the header Authorization: Bearer pf_...")
    return await services.tokens.authenticate(credentials.credentials)


By = Annotated[Caller, Depends(caller)]


def needs(role: Role) -> Callable[[Caller], Awaitable[None]]:
    """A dependency that lets pass who has the role."""

    async def check(by: By) -> None:
        by.require(role)

    return check
