"""A short-lived child of `pinflow up`: migrates the database and writes what the person's commands need to know."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from engine.errors import Misconfigured, PinflowError
from engine.services.tokens import ensure_local_token
from engine.settings import Settings, read_settings
from engine.storage.database import Database
from engine.storage.migrate import upgrade
from engine.sync.declarations import read_declarations
from engine.sync.git_source import require_git

MISCONFIGURED = 78
"""Exit code for what a person must mend; any other but 0 says that it may work later."""


async def prepare(settings: Settings, url: str, client_file: Path) -> None:
    """Migrate, make sure of a local admin token, and write URL and token into `client_file`."""
    require_git()
    read_declarations(settings)  # before anything is started that would end at once
    await upgrade(settings.database_url)
    database = Database(settings.database_url, pool_size=1)
    try:
        token = await ensure_local_token(database, client_file.with_name("token"))
    finally:
        await database.aclose()
    write_privately(client_file, json.dumps({"url": url, "token": token}))


def write_privately(file: Path, content: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(content)
    fresh.replace(file)


if __name__ == "__main__":
    try:
        asyncio.run(prepare(read_settings(), sys.argv[1], Path(sys.argv[2])))
    except PinflowError as error:
        print(f"{error.message} ({error.hint})" if error.hint else error.message, file=sys.stderr)
        sys.exit(MISCONFIGURED if isinstance(error, Misconfigured) else 1)
