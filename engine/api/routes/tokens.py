"""Tokens. Role: admin."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from engine.api.auth import By, Service, needs
from engine.api.schemas.common import Cursor, Limit, Page
from engine.api.schemas.tokens import CreateToken, NewToken, Token
from engine.services import cursors

router = APIRouter(prefix="/tokens", tags=["tokens"], dependencies=[Depends(needs("admin"))])


@router.post("", status_code=201, response_model=NewToken)
async def create_token(services: Service, by: By, body: CreateToken) -> Any:
    """Make a token. Its text is in this answer and nowhere else."""
    made = await services.tokens.create(
        by, subject=body.subject, roles=body.roles, groups=body.groups, expires_in=body.expires_in
    )
    return {**made.shown, "token": made.secret}


@router.get("", response_model=Page[Token])
async def list_tokens(services: Service, by: By, limit: Limit = 50, cursor: Cursor = "") -> Any:
    """Tokens, the newest first, without their text."""
    before = cursors.decode(cursor, str)
    rows = await services.tokens.page(by, count=limit + 1, before=before[0] if before else "")
    more = cursors.encode(rows[limit - 1]["id"]) if len(rows) > limit else ""
    return {"items": rows[:limit], "next_cursor": more}


@router.delete("/{token_id}", response_model=Token)
async def revoke_token(token_id: str, services: Service, by: By) -> Any:
    """End a token. It may work for 5 s more in other processes."""
    return await services.tokens.revoke(by, token_id)
