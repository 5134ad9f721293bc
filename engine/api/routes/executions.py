"""Start, look at, list and steer runs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request
from starlette.responses import Response

from engine.api.auth import By, Service, caller
from engine.api.routes.answers import as_json
from engine.api.schemas.common import CONFLICT, CommitSha, Cursor, Limit, Page
from engine.api.schemas.executions import (
    Asked,
    Cancel,
    Execute,
    Execution,
    ExecutionDetail,
    Rerun,
    Rerunning,
    Signal,
    Signalled,
    Started,
    Status,
    Task,
    TaskStatus,
    Why,
)
from engine.services.workflow_service import WorkflowService

# `execute` and `get_execution` are what is called most, through `fast_lane.py`: they take the request itself.

router = APIRouter(prefix="/executions", tags=["executions"])

KEY_LENGTH = 200
KEY_PATTERN = r"^[\x21-\x7e]*$"
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=KEY_LENGTH,
        pattern=KEY_PATTERN,
        description="The same key of the same caller leads to the same run, for ever.",
    ),
]


@router.post(
    "/workflows/{workflow:path}/execute", status_code=202, response_model=Started, responses=CONFLICT
)
async def execute(
    request: Request, workflow: str, body: Execute, idempotency_key: IdempotencyKey = ""
) -> Response:
    """Start a run of a workflow (its name, or `source/name`), pinned to the version at `ref`. Role: operator."""
    services: WorkflowService = request.app.state.service
    started = await services.executions.execute(
        await caller(request),
        workflow,
        body.inputs,
        ref=body.ref,
        key=idempotency_key,
        targets=body.targets,
    )
    shown = {name: getattr(started, name) for name in Started.model_fields}
    return as_json(shown, 202, {"location": f"/executions/{started.id}"})


@router.get("/{execution_id}", response_model=ExecutionDetail)
async def get_execution(request: Request, execution_id: str) -> Response:
    """One run with its tasks, attempts, times, errors, approvals and children."""
    services: WorkflowService = request.app.state.service
    text = await services.executions.get(execution_id, await caller(request))
    return Response(text.encode(errors="replace"), media_type="application/json")


@router.get("", response_model=Page[Execution])
async def list_executions(
    services: Service,
    limit: Limit = 50,
    cursor: Cursor = "",
    workflow: Annotated[str, Query(max_length=300, description="A name, or `source/name`.")] = "",
    commit_sha: CommitSha = "",
    status: Annotated[Status | None, Query()] = None,
    started_by: Annotated[str, Query(max_length=300)] = "",
    parent: Annotated[str, Query(max_length=100, description="The run whose children are asked for.")] = "",
    root: Annotated[
        str, Query(max_length=100, description="The run whose descendants are asked for, however deep.")
    ] = "",
    rerun_of: Annotated[str, Query(max_length=100)] = "",
) -> Any:
    """Runs, the newest first."""
    rows, more = await services.executions.page(
        count=limit,
        cursor=cursor,
        workflow=workflow,
        commit_sha=commit_sha,
        status=status or "",
        started_by=started_by,
        parent=parent,
        root=root,
        rerun_of=rerun_of,
    )
    return {"items": rows, "next_cursor": more}


@router.get("/{execution_id}/tasks", response_model=Page[Task])
async def list_tasks(
    execution_id: str,
    services: Service,
    limit: Limit = 50,
    cursor: Cursor = "",
    under: Annotated[
        str,
        Query(
            max_length=1000, description="A composite (`rollout`) or an item (`rollout[3]`): its inner tasks."
        ),
    ] = "",
    status: Annotated[TaskStatus | None, Query()] = None,
) -> Any:
    """The tasks of a run in their order, those inside of others included."""
    rows, more = await services.executions.tasks(
        execution_id, count=limit, cursor=cursor, under=under, status=status or ""
    )
    return {"items": rows, "next_cursor": more}


@router.post("/{execution_id}/cancel", status_code=202, response_model=Asked, responses=CONFLICT)
async def cancel(
    execution_id: str, services: Service, by: By, body: Annotated[Cancel | None, Body()] = None
) -> Any:
    """Ask a run, and all that it started, to end; its clean-up runs. A second request skips the clean-up. Role: operator."""
    status = await services.steering.cancel(by, execution_id, reason=body.reason if body else "")
    return {"id": execution_id, "status": status}


@router.post("/{execution_id}/pause", status_code=202, response_model=Asked, responses=CONFLICT)
async def pause(
    execution_id: str, services: Service, by: By, body: Annotated[Why | None, Body()] = None
) -> Any:
    """A run, and all that it started, begin nothing new; what runs goes on, and so do clocks and decisions.

    Asking again changes nothing. Role: operator.
    """
    status = await services.steering.pause(by, execution_id, reason=body.reason if body else "")
    return {"id": execution_id, "status": status}


@router.post("/{execution_id}/resume", status_code=202, response_model=Asked, responses=CONFLICT)
async def resume(
    execution_id: str, services: Service, by: By, body: Annotated[Why | None, Body()] = None
) -> Any:
    """A paused run, and all that it started, go on. Asking again changes nothing. Role: operator."""
    status = await services.steering.resume(by, execution_id, reason=body.reason if body else "")
    return {"id": execution_id, "status": status}


@router.post("/{execution_id}/signal", status_code=202, response_model=Signalled, responses=CONFLICT)
async def signal(
    execution_id: str, services: Service, by: By, body: Signal, idempotency_key: IdempotencyKey = ""
) -> Any:
    """Send a signal to the task that waits for it now, or will.

    404 if no task of the run waits for such a signal; 422 if the payload does not fit. Role: operator.
    """
    return await services.signals.signal(
        by, execution_id, body.name, body.payload, correlation=body.correlation, key=idempotency_key
    )


@router.post("/{execution_id}/rerun", status_code=202, response_model=Rerunning, responses=CONFLICT)
async def rerun(
    execution_id: str,
    services: Service,
    by: By,
    body: Annotated[Rerun | None, Body()] = None,
    idempotency_key: IdempotencyKey = "",
) -> Any:
    """Do a run once more, as a run of its own: on the same pin, on another commit, or from what failed.

    The old run stays as it is. Role: operator.
    """
    asked = body or Rerun()
    made = await services.reruns.rerun(
        by, execution_id, ref=asked.ref, from_failed=asked.from_failed, key=idempotency_key
    )
    started = {name: getattr(made.started, name) for name in Started.model_fields}
    return started | {"rerun_of": made.rerun_of, "tasks": made.tasks}
