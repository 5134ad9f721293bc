"""Rows as plain dicts: what leaves this room carries no type of SQLAlchemy."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection

Record: TypeAlias = dict[str, Any]
"""One row: column name → value."""


async def one(connection: AsyncConnection, query: Executable, values: Record | None = None) -> Record | None:
    """The only row of the answer, or None."""
    row = (await connection.execute(query, values)).one_or_none()
    return None if row is None else dict(row._mapping)


async def many(connection: AsyncConnection, query: Executable, values: Record | None = None) -> list[Record]:
    """All rows of the answer."""
    result = await connection.execute(query, values)
    # Not by each row's own mapping, which makes a view of all names first.
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]
