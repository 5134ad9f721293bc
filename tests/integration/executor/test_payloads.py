"""Payloads outside of histories: by digest, verified, patient, never failing a run for good."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import (
    DataConverter,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)
from temporalio.exceptions import ApplicationError

from engine.executor import payloads
from engine.executor.payloads import RegistryStorageDriver, data_converter, definition_reference
from engine.storage import blobs
from engine.storage.database import Database

BODY = b'{"name":"hello"}'
DIGEST = hashlib.sha256(BODY).hexdigest()


def plain(data: bytes, mark: bytes = b"") -> Payload:
    """A JSON payload with a mark."""
    return Payload(metadata={"encoding": b"json/plain"} | ({"pinflow": mark} if mark else {}), data=data)


async def retrieve(driver: RegistryStorageDriver, *digests: str) -> list[Payload]:
    """Definitions by digest."""
    claims = [StorageDriverClaim({"digest": digest}) for digest in digests]
    return await driver.retrieve(StorageDriverRetrieveContext(), claims)


async def encode(converter: DataConverter, *given: Payload) -> list[Payload]:
    """What would stand in a history."""
    return list(await converter.encode([RawValue(payload) for payload in given]))


async def kept(database: Database) -> list[dict[str, Any]]:
    """What stands in the table."""
    from sqlalchemy import text

    async with database.read() as connection:
        rows = await connection.execute(text("SELECT digest, kind, content FROM blobs ORDER BY digest"))
        return [dict(row._mapping) for row in rows]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "_PATIENCE", 0.3)


async def test_a_definition_is_found_by_the_digest_of_its_bytes(database: Database) -> None:
    async with database.begin() as connection:
        await blobs.put(connection, "compiled", {DIGEST: BODY})
    (payload,) = await retrieve(RegistryStorageDriver(database), DIGEST)
    assert (payload.data, payload.metadata["pinflow"]) == (BODY, b"definition")


async def test_runs_that_begin_together_look_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.begin() as connection:
        await blobs.put(connection, "compiled", {DIGEST: BODY})
    looks = 0
    real = blobs.get

    async def counted(connection: Any, digest: str) -> bytes | None:
        nonlocal looks
        looks += 1
        return await real(connection, digest)

    monkeypatch.setattr(blobs, "get", counted)
    driver = RegistryStorageDriver(database)
    await asyncio.gather(*(retrieve(driver, DIGEST) for _ in range(50)))
    await retrieve(driver, DIGEST)
    assert looks == 1


async def test_the_cache_is_bounded_in_bytes(database: Database) -> None:
    contents = {hashlib.sha256(body).hexdigest(): body for body in (bytes([n]) * 400 for n in range(5))}
    async with database.begin() as connection:
        await blobs.put(connection, "payload", contents)
    driver = RegistryStorageDriver(database, cache_bytes=1000)
    await retrieve(driver, *contents)
    assert driver._cache._size == 800


@pytest.mark.usefixtures("impatient")
async def test_bytes_that_are_not_those_of_the_digest_are_refused_retryably(database: Database) -> None:
    from sqlalchemy import text

    async with database.begin() as connection:
        await connection.execute(
            text("INSERT INTO blobs (digest, kind, content) VALUES (:d, 'compiled', '{}')"), {"d": DIGEST}
        )
    with pytest.raises(ApplicationError, match="not those of its digest") as refused:
        await retrieve(RegistryStorageDriver(database), DIGEST)
    assert not refused.value.non_retryable


async def test_what_comes_a_little_later_is_waited_for(database: Database) -> None:
    driver = RegistryStorageDriver(database)
    waiting = asyncio.create_task(retrieve(driver, DIGEST))
    await asyncio.sleep(0)
    async with database.begin() as connection:
        await blobs.put(connection, "compiled", {DIGEST: BODY})
    assert (await waiting)[0].data == BODY


@pytest.mark.usefixtures("impatient")
async def test_an_absent_postgres_is_a_retryable_error(unused_tcp_port: int) -> None:
    database = Database(f"postgresql+asyncpg://x:x@127.0.0.1:{unused_tcp_port}/x")
    driver = RegistryStorageDriver(database)
    for act in (
        retrieve(driver, DIGEST),
        driver.store(StorageDriverStoreContext(), [plain(BODY, b"definition")]),
    ):
        with pytest.raises(ApplicationError) as refused:
            await act
        assert not refused.value.non_retryable
    await database.aclose()


async def test_large_payloads_and_definitions_go_outside_and_answers_of_queries_never(
    database: Database,
) -> None:
    converter = data_converter(database)
    big = b'"' + b"x" * 200_000 + b'"'
    given = (plain(b"1"), plain(big), plain(BODY, b"definition"), plain(big, b"inline"))
    small, large, definition, answer = await encode(converter, *given)
    assert (small.data, len(answer.data)) == (b"1", len(big))
    assert large.ByteSize() < 500
    assert definition.ByteSize() < 500
    assert {row["kind"] for row in await kept(database)} == {"payload", "compiled"}
    back = await data_converter(database).decode([large, definition], [str, dict])
    assert back == ["x" * 200_000, {"name": "hello"}]


async def test_a_ready_made_reference_is_the_one_that_the_driver_would_write(database: Database) -> None:
    (stored,) = await encode(data_converter(database), plain(BODY, b"definition"))
    made = definition_reference(DIGEST, plain(BODY, b"definition").ByteSize()).payload
    assert (made.data, dict(made.metadata)) == (stored.data, dict(stored.metadata))
    assert [external.size_bytes for external in made.external_payloads] == [
        external.size_bytes for external in stored.external_payloads
    ]
