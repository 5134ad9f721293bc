"""The connection to Postgres, and the one door at which its errors become ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from engine.errors import Misconfigured, Unavailable
from engine.storage.json_text import dumps

Connection: TypeAlias = AsyncConnection
"""What a transaction hands out; the rooms above pass it on to named queries and name it by this."""

# SQLSTATE classes after which the same statement can succeed later: connection, resources, operator intervention
# (which is also what a server that starts up or shuts down says), serialization failure and deadlock.
_TRANSIENT_CLASSES = ("08", "53", "57", "40")


_LISTEN_AGAIN = 2.0
"""Seconds after which a lost connection that listens is made anew."""
_CONNECT: dict[str, Any] = {
    "timeout": 5,
    "command_timeout": 60,
    "server_settings": {
        "statement_timeout": "60000",
        "idle_in_transaction_session_timeout": "60000",
        "timezone": "UTC",
    },
}


class Database:
    """A pool of connections to one Postgres. Made once per process, closed by `aclose`.

    Raises `Unavailable` from both context managers when Postgres is away, starting or out of connections.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            # A restarted Postgres leaves dead connections in the pool. A ping per checkout would cost a round trip
            # on every request; instead a broken connection invalidates the pool and the caller sees one 503.
            pool_pre_ping=False,
            json_serializer=dumps,
            connect_args=_CONNECT,
        )
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back if it raises."""
        with _translated():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection in autocommit, for reads: no BEGIN and COMMIT round trips."""
        with _translated():
            async with self._engine.connect() as connection:
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def direct(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
        """A connection as the driver has it, in autocommit, from a pool of its own.

        For the few statements of every start and every look at a run: the expression layer and its pool cost them more
        than Postgres does. JSON goes in and comes out as text.
        """
        with _translated():
            pool = self._pool or await self._open_pool()
            async with pool.acquire(timeout=10) as connection:
                yield connection

    async def _open_pool(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    min_size=0,
                    max_size=self._pool_size,
                    max_inactive_connection_lifetime=60,
                    # What is done here leaves nothing to reset, and a reset is a round trip.
                    reset=_nothing,
                    **self._target(),
                    **_CONNECT,
                )
        return self._pool

    def _target(self) -> dict[str, Any]:
        """What the URL says, as the driver takes it: read in one place for both pools."""
        target = dict(self._engine.dialect.create_connect_args(self._engine.url)[1])
        for name in ("prepared_statement_cache_size", "prepared_statement_name_func"):
            target.pop(name, None)  # of the expression layer
        return target

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` whenever a transaction has notified a channel, and after each gap, for ever.

        A hint and never the only way to learn of something: a connection can be lost without a word, and a pooler between
        us and Postgres may swallow what is said.
        """
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._listen_until_lost(channel, heard)
            await asyncio.sleep(_LISTEN_AGAIN)

    async def _listen_until_lost(self, channel: str, heard: Callable[[], None]) -> None:
        connection = await asyncpg.connect(**self._target(), **_CONNECT)
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(channel, lambda *_: heard())
            heard()  # what was said before
            await lost.wait()
        finally:
            connection.terminate()

    async def ping(self) -> None:
        """Raise `Unavailable` unless Postgres answers within two seconds."""
        try:
            async with asyncio.timeout(2), self.read() as connection:
                await connection.execute(text("SELECT 1"))
        except TimeoutError as error:
            raise Unavailable("Postgres did not answer within 2 s") from error

    async def aclose(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            self._pool.terminate()
        await self._engine.dispose()


async def _nothing(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Leave a connection as it is."""


class _translated:
    """Map the driver's errors that time heals to `Unavailable`; let our own and programming errors pass."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if _is_refused(error):
            said = getattr(error, "orig", None) or error
            raise Misconfigured(
                f"Postgres refuses the connection: {said}",
                hint="check the user, password and database in PINFLOW_DATABASE_URL",
            ) from error
        if not _is_transient(error):
            return
        raise Unavailable("Postgres is away", retry_after=2) from error


def _is_refused(error: BaseException) -> bool:
    """Whether Postgres does not let us in (class 28), or has no such database (3D): time heals neither."""
    driver = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(driver, "sqlstate", "") or "")[:2] in ("28", "3D")


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, PoolTimeout | InterfaceError | asyncpg.InterfaceError | ConnectionError | OSError):
        return True
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "")[:2] in _TRANSIENT_CLASSES
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        state = str(getattr(error.orig, "sqlstate", "") or "")
        return state[:2] in _TRANSIENT_CLASSES or (isinstance(error, OperationalError) and not state)
    return False
