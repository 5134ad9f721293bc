"""A list of sources that lives in git: registered commit by commit like definitions, so that a bad change changes nothing."""

from __future__ import annotations

from pathlib import Path

import structlog

from engine.errors import Problem
from engine.registry.revisions import Bundle, Cursor
from engine.storage import blobs
from engine.storage.database import Connection, Database
from engine.sync import conditions, plan, problems, reading
from engine.sync.checker import Checker
from engine.sync.declarations import Declarations, Declared, read_list
from engine.sync.git_reader import Reader
from engine.sync.reconciler import Reconciler
from engine.sync.repository import Repository
from engine.sync.standing import Standing

_log = structlog.get_logger(__name__)
_MAX_LIST = 256 * 1024


class ListReconciler(Reconciler):
    """Brings the registry to the list that one file of a branch holds. Its text is kept as the revision's bundle."""

    kind = "sources"

    def __init__(
        self,
        declared: Declared,
        data_dir: Path,
        database: Database,
        checker: Checker,
        repository: Repository | None,
        given: Declarations,
    ) -> None:
        super().__init__(declared, data_dir, database, checker, repository)
        self._given = given

    async def listed(self) -> tuple[Declared, ...] | None:
        """The sources of the list that is in force; None if there is none, or it does not fit this machine any more."""
        found, faults = await self._in_force(await self.begin())
        if faults:
            _log.error("list does not fit this machine", source=self.source.name, first=str(faults[0]))
            return None
        return found

    async def _in_force(self, cursor: Cursor) -> tuple[tuple[Declared, ...] | None, tuple[Problem, ...]]:
        if not cursor.live_bundle:
            return None, ()
        text = await self._registry.content(cursor.live_bundle)
        return read_list(text, self._folder, self._given, self.source.name)

    async def _decide(
        self, reader: Reader, sha: str, cursor: Cursor
    ) -> tuple[reading.CommitReading, plan.Decision]:
        found, text = await self._in_thread(lambda: reading.read_file(reader, sha, self._folder, _MAX_LIST))
        if text is None:
            said = f"there is no file {self._folder} in the repository, or it has more than {_MAX_LIST} bytes"
            return found, plan.Decision(problems=(Problem(problems.SOURCES_FILE, said, file=self._folder),))
        _, faults = read_list(text, self._folder, self._given, self.source.name)
        found = reading.with_bundle(found, Bundle(blobs.digest_of(text), text))
        return found, plan.Decision(problems=faults)

    async def _in_sync(self, connection: Connection, cursor: Cursor) -> Standing:
        found, faults = await self._in_force(cursor)
        if faults:
            said = f"the list of {cursor.live_sha[:12]} does not fit this machine's settings: {faults[0]}"
            return Standing(conditions.REJECTED, conditions.INVALID_REVISION, said[:2000])
        names = ", ".join(each.name for each in found or ())
        return Standing(
            conditions.SYNCED,
            conditions.UP_TO_DATE,
            f"{cursor.live_sha[:12]} is in force and lists {names or 'no source'}"[:2000],
        )
