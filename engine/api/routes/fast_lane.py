"""The two calls that are made most, past FastAPI's parsing of parameters, which costs them more than their work.

They end in the very functions that stand in `executions.py`, which document them; a test holds both ways equal.
"""

from __future__ import annotations

import re

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.api.auth import caller
from engine.api.problems import of_validation
from engine.api.routes import executions
from engine.api.schemas.executions import Execute
from engine.errors import InputProblem, InvalidInput

_KEY = re.compile(executions.KEY_PATTERN)


async def execute(request: Request) -> Response:
    """See `executions.execute`."""
    request.scope["route"] = ROUTES[0]  # which the metrics name
    (await caller(request)).require("viewer")
    key = request.headers.get("idempotency-key", "")
    if len(key) > executions.KEY_LENGTH or not _KEY.match(key):
        message = f"at most {executions.KEY_LENGTH} printable ASCII characters without blanks"
        raise InvalidInput(message, [InputProblem("/Idempotency-Key", message)])
    try:
        body = Execute.model_validate_json(await request.body())
    except ValidationError as error:
        return of_validation(error.errors(include_url=False, include_input=False))
    return await executions.execute(request, request.path_params["workflow"], body, key)


async def get_execution(request: Request) -> Response:
    """See `executions.get_execution`."""
    request.scope["route"] = ROUTES[1]
    (await caller(request)).require("viewer")
    return await executions.get_execution(request, request.path_params["execution_id"])


ROUTES = (
    Route("/executions/workflows/{workflow:path}/execute", execute, methods=["POST"]),
    Route("/executions/{execution_id}", get_execution, methods=["GET"]),
)
