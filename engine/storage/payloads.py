"""Named queries for content by digest, as the payload storage of Temporal needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import Blob


async def load(connection: AsyncConnection, digests: Iterable[str]) -> dict[str, bytes]:
    """The contents that exist among `digests`, by digest."""
    rows = await connection.execute(select(Blob.digest, Blob.content).where(Blob.digest.in_(list(digests))))
    return {row.digest: bytes(row.content) for row in rows}


async def store(connection: AsyncConnection, kind: str, contents: Mapping[str, bytes]) -> None:
    """Keep `contents` (by digest). What is there already stays as it is."""
    # In order of digest: two writers of the same contents must not wait for each other in a ring.
    values = [{"digest": digest, "kind": kind, "content": contents[digest]} for digest in sorted(contents)]
    await connection.execute(insert(Blob).on_conflict_do_nothing(), values)
