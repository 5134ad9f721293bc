"""What people may do about a source besides pushing to it: confirm what is held, retire what nobody watches."""

from __future__ import annotations

from typing import Any

from engine.errors import Conflict
from engine.registry.refs import unknown_source
from engine.services.callers import Caller
from engine.storage import audit, registry, sources
from engine.storage.database import Connection, Database
from engine.storage.rows import Record
from engine.sync.conditions import CONFIRMABLE


class SourceService:
    """Each call is one transaction with its audit row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def confirm(self, caller: Caller, name: str, commit: str) -> Record:
        """Say that the held commit of a source is meant, and have it looked at again.

        `commit` is its SHA or the beginning of it.  Raises `NotFound`, and `Conflict` if no confirmation would help.
        """
        caller.require("operator")
        async with self._database.begin() as connection:
            source_id = await _known(connection, name)
            last = await sources.lock(connection, source_id)
            sha = str(last["last_sha"])
            if not sha.startswith(commit.lower()):
                raise Conflict(
                    f"{commit[:12]} is not the last commit of source {name}",
                    hint=f"that is {sha[:12]}" if sha else "it has none yet",
                )
            codes = await _held_by(connection, source_id, last)
            if not await sources.confirm(connection, source_id, sha, codes=codes, by=caller.subject):
                raise Conflict(f"{sha[:12]} of source {name} was confirmed already")
            await audit.record(
                connection,
                "source.confirmed",
                actor=caller.subject,
                source=name,
                commit_sha=sha,
                details={"codes": codes},
            )
            await sources.request_sync(connection, name)
        return {"source": name, "commit_sha": sha, "codes": codes}

    async def retire(self, caller: Caller, name: str) -> Record:
        """Retire all that a source deployed. Raises `NotFound`, and `Conflict` while a daemon watches it."""
        caller.require("admin")
        async with self._database.begin() as connection:
            source_id = await _known(connection, name)
            last = await sources.lock(connection, source_id)
            if last["watched"]:
                raise Conflict(
                    f"a daemon watches source {name}", hint="take it out of the daemon's settings first"
                )
            names = [row["name"] for row in await registry.live_all(connection, source_id)]
            await sources.retire(connection, source_id)
            await audit.record(
                connection,
                "source.retired",
                actor=caller.subject,
                source=name,
                commit_sha=last["live_sha"],
                details={"retired": names},
            )
        return {"source": name, "retired": names}


async def _known(connection: Connection, name: str) -> int:
    rows = await sources.list_all(connection)
    for row in rows:
        if row["name"] == name:
            return int(row["id"])
    raise unknown_source(name, [row["name"] for row in rows])


async def _held_by(connection: Connection, source_id: int, last: dict[str, Any]) -> list[str]:
    """The codes that hold the last revision, if a confirmation passes them."""
    rows: list[Record] = []
    if last["last_status"] == "REJECTED":
        rows = await registry.problems_of(connection, source_id, last["last_seq"])
    codes = sorted({str(row["code"]) for row in rows})
    if not codes:
        raise Conflict(
            f"{last['last_sha'][:12]} is not held", hint="`pinflow sync status` shows how it stands"
        )
    if not CONFIRMABLE.issuperset(codes):
        raise Conflict(
            f"{last['last_sha'][:12]} has {', '.join(codes)}, which no confirmation passes",
            hint=str(rows[0]["hint"]),
        )
    return codes
