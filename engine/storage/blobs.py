"""Named queries for content by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from sqlalchemy import LargeBinary, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.storage.models import Blob

# One statement carries at most this much: a bulk insert must not need its whole content twice in memory.
_BATCH_BYTES = 8 * 1024 * 1024

# A payload may be deleted after its run; a definition of the same bytes may not, so it takes the row over.
_PUT = text(
    """
    INSERT INTO blobs (digest, kind, content)
    SELECT digest, :kind, content FROM unnest(:digests, :contents) AS new (digest, content)
    ON CONFLICT (digest) DO UPDATE SET kind = excluded.kind
        WHERE blobs.kind = 'payload' AND excluded.kind <> 'payload'
    """
).bindparams(bindparam("digests", type_=ARRAY(Text)), bindparam("contents", type_=ARRAY(LargeBinary)))


def digest_of(content: bytes) -> str:
    """Lower-case hex sha256, the key of the table."""
    return hashlib.sha256(content).hexdigest()


async def put(connection: AsyncConnection, kind: str, contents: Mapping[str, bytes]) -> None:
    """Keep `contents` (by digest); those that are there already stay as they are."""
    batch: list[str] = []
    size = 0
    # In order of digest: two writers of the same contents must not wait for each other in a ring.
    for digest in sorted(contents):
        batch.append(digest)
        size += len(contents[digest])
        if size >= _BATCH_BYTES:
            await _put(connection, kind, batch, contents)
            batch, size = [], 0
    if batch:
        await _put(connection, kind, batch, contents)


async def _put(
    connection: AsyncConnection, kind: str, digests: list[str], contents: Mapping[str, bytes]
) -> None:
    parameters = {"kind": kind, "digests": digests, "contents": [contents[digest] for digest in digests]}
    await connection.execute(_PUT, parameters)


_GET_ALL = text("SELECT digest, content FROM blobs WHERE digest = ANY(:digests)").bindparams(
    bindparam("digests", type_=ARRAY(Text))
)


async def get_all(connection: AsyncConnection, digests: Sequence[str]) -> dict[str, bytes]:
    """The contents of `digests` as they are stored, those that are there. The caller verifies them."""
    rows = await connection.execute(_GET_ALL, {"digests": list(digests)})
    return {row.digest: bytes(row.content) for row in rows}


async def get(connection: AsyncConnection, digest: str) -> bytes | None:
    """The content of `digest` as it is stored, or None. The caller verifies it."""
    content = (
        await connection.execute(select(Blob.content).where(Blob.digest == digest))
    ).scalar_one_or_none()
    return None if content is None else bytes(content)
