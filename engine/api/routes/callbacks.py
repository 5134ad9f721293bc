"""Callback URLs: the one way in that asks for no token, as the URL is one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from engine.api.auth import Service
from engine.api.schemas.common import ERRORS, Message

router = APIRouter(prefix="/callbacks", tags=["callbacks"])


class Taken(Message):
    """What was sent is durable: it reaches the task exactly once."""

    taken: bool = True


@router.post(
    "/{execution_id}/{address:path}",
    status_code=202,
    response_model=Taken,
    responses={status: ERRORS[status] for status in (404, 422, 503)},
)
async def call_back(
    execution_id: str,
    address: str,
    services: Service,
    token: Annotated[str, Query(max_length=200)] = "",
    payload: Annotated[Any, Body()] = None,
) -> Any:
    """Answer for a task that waits for a signal; the body is the payload, any JSON. A URL is good for one use.

    404 for whatever is wrong with the URL, with no word of what: unknown, used, or of a run that is over. 422 if the
    payload does not fit what the task declares; the URL is then still good.
    """
    await services.signals.callback(execution_id, address, token, payload)
    return {}
