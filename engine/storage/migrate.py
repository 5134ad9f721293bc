"""Bring a database to the schema that this build expects.

Migrations are Python files inside of the package, so that an installed wheel needs no `alembic.ini`.
They go forward only: to go back, restore a backup.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from engine.errors import Misconfigured, Unavailable

# Any fixed number will do, as long as every build of Pinflow uses the same one.
_LOCK = 0x70696E66


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; `connection` is the one that migrations run on."""
    result = Config()
    # ConfigParser reads % as the start of an interpolation.
    result.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    result.set_main_option("path_separator", "os")
    result.attributes["connection"] = connection
    return result


def head() -> str:
    """The newest migration that this build knows."""
    return ScriptDirectory.from_config(config()).get_current_head() or ""


async def upgrade(url: str) -> str:
    """Apply what is missing, all in one transaction, and return the revision that the database is at.

    Any number of processes may call it at once: they take turns by an advisory lock.  A database that is at a
    revision unknown to this build (a newer Pinflow was here) is left alone.

    Raises `Unavailable` if Postgres is away, `Misconfigured` if it refuses us or its schema is newer.
    """
    engine = create_async_engine(url, poolclass=NullPool, connect_args={"timeout": 5})
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            return await connection.run_sync(_upgrade)
    except DBAPIError as error:
        raise _translate(error) from error
    except (OSError, TimeoutError) as error:
        raise Unavailable("Postgres is away", retry_after=2) from error
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> str:
    script = ScriptDirectory.from_config(config())
    known = {revision.revision for revision in script.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise Misconfigured(
            f"the database is at schema {current}, which this version of Pinflow does not know",
            hint="a newer Pinflow has used it: install that version or newer",
        )
    if current != script.get_current_head():
        command.upgrade(config(connection), "head")
    return script.get_current_head() or ""


def _translate(error: DBAPIError) -> Misconfigured | Unavailable:
    state = str(getattr(error.orig, "sqlstate", "") or "")
    # 28: who we are is refused; 3D: no such database; 42501: we may not create tables.
    if state[:2] in ("28", "3D") or state == "42501":
        return Misconfigured(
            f"Postgres refuses to be migrated: {error.orig}",
            hint="check the user, password and database in the URL",
        )
    if state[:2] in ("", "08", "40", "53", "57"):
        return Unavailable("Postgres is away", retry_after=2)
    raise error
