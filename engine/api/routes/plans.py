"""What a change would do, before it is merged."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from engine.api.auth import Service
from engine.api.schemas.plans import PlanAnswer, PlanRequest, SourceAtHead
from engine.dsl.check_functions import Functions
from engine.dsl.definition_files import FUNCTIONS
from engine.planning.planner import FileChange
from engine.planning.surroundings import Surroundings

router = APIRouter(tags=["plans"])


@router.post("/plan", response_model=PlanAnswer)
async def plan(asked: PlanRequest, request: Request, services: Service) -> Any:
    """Plan a change of definitions: what differs in meaning, how risky it is, and what it would meet here.

    Nothing is stored and nothing is called. A head with problems has them under `problems`, and is no error of the
    request.
    """
    files = [
        FileChange(each.path, _bytes(each.old), _bytes(each.new), tuple(each.functions), each.folder)
        for each in asked.files
    ]
    folders = sorted({each.folder for each in asked.files})
    made = await services.plans.plan(
        asked.base,
        asked.head,
        files,
        names={(folder, name): path for folder in folders for name, path in asked.names.items()},
        surroundings=[_surroundings(each, services.plans.packages) for each in asked.sources],
        server=str(request.base_url).rstrip("/"),
        source=asked.source,
        runs=asked.runs,
    )
    return made.to_json()


def _surroundings(source: SourceAtHead, packages: frozenset[str]) -> Surroundings:
    others = {path: text.encode("utf-8", "surrogatepass") for path, text in source.others.items()}
    functions = None
    if source.modules is not None:
        known = {path: None if found is None else frozenset(found) for path, found in source.modules.items()}
        functions = Functions(frozenset(known), known.get, packages)
    return Surroundings(
        source.folder,
        others,
        source.names,
        functions,
        f"{source.folder}/{FUNCTIONS}" if source.folder else FUNCTIONS,
        {name: text.encode("utf-8", "surrogatepass") for name, text in source.lock.items()},
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogatepass")
