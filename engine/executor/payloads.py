"""What a Temporal history does not carry: definitions and large payloads stand in Postgres, by digest.

A history holds a reference of some 200 bytes; Temporal's external payload storage resolves it on decode, in the
process' own event loop and outside of the workflow.  The same digest gives the same bytes at every replay.

Marks in the metadata of a payload (key `pinflow`):
- `definition`: the data are a compiled definition; kept under the digest of the data alone, always outside;
- `external`: outside, however small (many of them would together be too much for one message to Temporal);
- `inline`: never outside (a query's answer would otherwise leave a blob behind for every look).
Any other payload goes outside when it is larger than 128 KiB.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Self

from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    SerializationContext,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverSelectContext,
    StorageDriverStoreContext,
)
from temporalio.exceptions import ApplicationError

from engine.core import wire
from engine.core.wire import DEFINITION, DRIVER_NAME, INLINE
from engine.core.wire import EXTERNAL as EXTERNAL
from engine.core.wire import MARK as MARK
from engine.errors import Unavailable
from engine.executor.json_payloads import JsonPayloads
from engine.storage import blobs
from engine.storage.database import Database

EXTERNAL_ABOVE = 128 * 1024
"""Bytes; Temporal warns from 256 KiB on and refuses from 2 MiB on."""

# How long the driver retries by itself.  An error that reaches the SDK fails the workflow task, and the next try comes
# ten seconds later only; so a short absence of Postgres is waited for here, within the ten seconds of a workflow task.
_PATIENCE = 5.0
_PAUSE = 0.1


class RegistryStorageDriver(StorageDriver):
    """Reads and writes payloads as blobs, through a cache bounded in bytes; one per process.

    Raises retryable errors only: a non-retryable one would fail a run for good, although its bytes may come back.
    """

    def __init__(self, database: Database, *, cache_bytes: int = 64 * 1024 * 1024) -> None:
        self._database = database
        self._cache = _Cache(cache_bytes)
        self._loading: dict[str, asyncio.Task[bytes]] = {}

    def name(self) -> str:
        """The name that references carry; fixed for ever, since histories do."""
        return DRIVER_NAME

    def type(self) -> str:
        """The kind of driver, as Temporal's own tools show it."""
        return "pinflow.registry"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Keep each payload under its digest; what is known already is not written again."""
        claims: list[StorageDriverClaim] = []
        missing: dict[str, dict[str, bytes]] = {"compiled": {}, "payload": {}}
        for payload in payloads:
            is_definition = payload.metadata.get(MARK) == DEFINITION
            content = payload.data if is_definition else payload.SerializeToString(deterministic=True)
            digest = blobs.digest_of(content)
            claims.append(
                StorageDriverClaim({"digest": digest} | ({} if is_definition else {"form": "payload"}))
            )
            if self._cache.get(digest) is None:
                missing["compiled" if is_definition else "payload"][digest] = content
        for kind, contents in missing.items():
            if contents:
                await self._write(kind, contents)
        return claims

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """The payloads of `claims`, in their order, each checked against its digest."""
        contents = await asyncio.gather(*(self._content(claim.claim_data["digest"]) for claim in claims))
        return [
            _payload(content, claim.claim_data.get("form") == "payload")
            for claim, content in zip(claims, contents, strict=True)
        ]

    async def _content(self, digest: str) -> bytes:
        cached = self._cache.get(digest)
        if cached is not None:
            return cached
        # 185 runs of one definition that start at once are one look at Postgres.
        task = self._loading.get(digest)
        if task is None:
            task = asyncio.create_task(self._load(digest), name=f"payload {digest[:12]}")
            self._loading[digest] = task
            task.add_done_callback(lambda done: self._forget(digest, done))
        return await asyncio.shield(task)

    def _forget(self, digest: str, done: asyncio.Task[bytes]) -> None:
        self._loading.pop(digest, None)
        if not done.cancelled():
            done.exception()  # seen here, so that a load whose waiters are all gone is not reported as lost

    async def _load(self, digest: str) -> bytes:
        problem = ""
        for pause in _pauses():
            try:
                async with self._database.read() as connection:
                    content = await blobs.get(connection, digest)
            except Unavailable as error:
                problem = str(error)
            else:
                if content is None:
                    problem = "it is not in the registry"
                elif blobs.digest_of(content) != digest:
                    problem = "its bytes in the registry are not those of its digest"
                else:
                    self._cache.put(digest, content)
                    return content
            await asyncio.sleep(pause)
        raise ApplicationError(f"cannot load payload {digest}: {problem}", type="PAYLOAD_UNAVAILABLE")

    async def _write(self, kind: str, contents: dict[str, bytes]) -> None:
        problem: Unavailable | None = None
        for pause in _pauses():
            try:
                async with self._database.begin() as connection:
                    await blobs.put(connection, kind, contents)
            except Unavailable as error:
                problem = error
                await asyncio.sleep(pause)
            else:
                for digest, content in contents.items():
                    self._cache.put(digest, content)
                return
        raise ApplicationError(f"cannot keep a payload: {problem}", type="PAYLOAD_UNAVAILABLE")


class _Converter(DataConverter):
    """The SDK's own, which binds contexts by new converters for every single payload.

    Nothing of ours reads them, and the copies are a visible part of a busy worker's time.  Should the SDK rename the
    second method, its own will simply be used again.
    """

    def with_context(self, context: SerializationContext) -> Self:
        return self

    def _with_store_context(self, store_ctx: StorageDriverStoreContext) -> DataConverter:
        return self


def data_converter(database: Database) -> DataConverter:
    """The converter for clients, workers and replayers alike. One per process: its cache is the process'."""
    driver = RegistryStorageDriver(database)

    def select(context: StorageDriverSelectContext, payload: Payload) -> StorageDriver | None:
        mark = payload.metadata.get(MARK)
        if mark == INLINE:
            return None
        return driver if mark in (DEFINITION, EXTERNAL) or payload.ByteSize() > EXTERNAL_ABOVE else None

    # The threshold is applied before the selector, hence 0: a small definition goes outside as well.
    return _Converter(
        payload_converter_class=JsonPayloads,
        external_storage=ExternalStorage(drivers=[driver], driver_selector=select, payload_size_threshold=0),
    )


@lru_cache(maxsize=1024)
def definition_reference(digest: str, size: int) -> RawValue:
    """A ready-made reference to a compiled definition (`size` bytes): a start that never reads its text. Shared."""
    return wire.definition_reference(digest, size)


def _payload(content: bytes, whole: bool) -> Payload:
    if whole:
        return Payload.FromString(content)
    return Payload(metadata={"encoding": b"json/plain", MARK: DEFINITION}, data=content)


def _pauses() -> list[float]:
    """Waits that grow to a second and add up to `_PATIENCE`."""
    pauses: list[float] = []
    while sum(pauses) < _PATIENCE:
        pauses.append(min(_PAUSE * 2 ** len(pauses), 1.0))
    return pauses


class _Cache:
    """The most recently used contents, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._contents: OrderedDict[str, bytes] = OrderedDict()

    def get(self, digest: str) -> bytes | None:
        content = self._contents.get(digest)
        if content is not None:
            self._contents.move_to_end(digest)
        return content

    def put(self, digest: str, content: bytes) -> None:
        if digest in self._contents or len(content) > self._limit:
            return
        self._contents[digest] = content
        self._size += len(content)
        while self._size > self._limit:
            _, dropped = self._contents.popitem(last=False)
            self._size -= len(dropped)
