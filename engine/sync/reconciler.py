"""One pass over a source: fetch, look, register each new commit, say how the source stands.

The last good revision stays live whatever happens.  A pass holds no state that a restart would miss: what is done
stands in the registry, and the next pass begins from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from engine import faults
from engine.dsl import codes as dsl_codes
from engine.errors import Conflict, Problem, SourceError
from engine.registry.revisions import Cursor, LiveDefinition, RevisionPlan, VersionContent
from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import SourceSettings
from engine.storage import blobs, registry, sources
from engine.storage.database import Database
from engine.sync import calls, conditions, plan, problems, reading
from engine.sync.checker import Answer, Checker, Question
from engine.sync.git_reader import Reader
from engine.sync.git_urls import shown_url
from engine.sync.mirror import Mirror

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")

# Another daemon may publish while we read; each time we begin again from where the registry then stands.
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Standing:
    """How a source stands after a pass; the words are those of `conditions.py`."""

    condition: str
    reason: str
    message: str
    observed_sha: str | None = None


class Reconciler:
    """Brings the registry to what one source's branch holds. One pass at a time; its git runs in a thread of its own."""

    def __init__(self, source: SourceSettings, data_dir: Path, database: Database, checker: Checker) -> None:
        self.source = source
        self._folder = source.folder.strip("/")
        self._data_dir = data_dir
        self._database = database
        self._registry = WorkflowRegistry(database)
        self._checker = checker
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"git-{source.name}")
        self._mirror: Mirror | None = None
        self._source_id = 0
        self._recheck = True
        self._stood: tuple[int, Standing] | None = None

    async def run_pass(self) -> Standing:
        """Look at the source once and register what is new. Raises `Unavailable` if Postgres is away."""
        cursor = await self._begin()
        try:
            standing = await self._attempt(cursor)
        except SourceError as error:
            standing = Standing(conditions.UNREACHABLE, error.reason, error.message)
        await self._report(standing, cursor)
        return standing

    async def note_failure(self, error: Exception) -> None:
        """Say that a pass ended by a fault of ours."""
        message = f"{type(error).__name__}: {str(error)[:300]}"
        await self._report(Standing(conditions.OUT_OF_SYNC, conditions.PASS_FAILED, message), None)

    async def aclose(self) -> None:
        """End what runs. Safe in the middle of a pass."""
        if self._mirror is not None:
            self._mirror.interrupt()
        await asyncio.to_thread(self._thread.shutdown, True, cancel_futures=True)
        if self._mirror is not None:
            self._mirror.close()

    # --- the steps of a pass ---------------------------------------------------------------------------------

    async def _begin(self) -> Cursor:
        if not self._source_id:
            async with self._database.begin() as connection:
                self._source_id = await sources.ensure(
                    connection,
                    name=self.source.name,
                    url=shown_url(self.source.url),
                    branch=self.source.branch,
                    folder=self._folder,
                )
        return await self._registry.cursor(self._source_id)

    async def _attempt(self, cursor: Cursor) -> Standing:
        """Fetch and register; begin again if another daemon was faster, or the mirror turned out to be damaged.

        The cursor is always read before the fetch.  The fetched tip is then newer than all that the cursor knows; if
        somebody publishes in between, the compare-and-set refuses us.  The other way round, a slow daemon would take
        the newer revision of a fast one for a forced push, and put its own older tip on top.
        """
        repaired = False
        for _ in range(_TRIES):
            try:
                return await self._fetch_and_register(cursor)
            except Conflict as error:
                _log.info("pass begins again", source=self.source.name, reason=error.message)
            except SourceError as error:
                if error.reason != conditions.MIRROR_BROKEN or self._mirror is None or repaired:
                    raise
                repaired = True
                _log.warning("mirror is made again", source=self.source.name, error=error.message)
                await self._in_thread(self._mirror.discard)
            cursor = await self._registry.cursor(self._source_id)
        raise Conflict(f"source {self.source.name} was changed by others {_TRIES} times in a row")

    async def _fetch_and_register(self, cursor: Cursor) -> Standing:
        mirror = await self._open_mirror()
        await self._fetch(mirror, everything=not cursor.last_sha)
        await faults.point("sync.after_fetch")
        opened = mirror.reader()
        reader = await self._in_thread(opened.__enter__)
        try:
            return await self._register_new(mirror, reader, cursor)
        finally:
            await asyncio.shield(self._leave(opened))

    async def _fetch(self, mirror: Mirror, *, everything: bool) -> None:
        """Fetch; where everything will have to be checked, the processes of the check come up meanwhile."""
        fetching = self._in_thread(mirror.fetch)
        if not everything:
            return await fetching
        # If they do not come up, the check will say so.
        fetched, _ = await asyncio.gather(fetching, self._checker.warm(every=True), return_exceptions=True)
        if isinstance(fetched, BaseException):
            raise fetched
        return None

    async def _leave(self, opened: AbstractContextManager[Reader]) -> None:
        await self._in_thread(lambda: opened.__exit__(None, None, None))

    async def _register_new(self, mirror: Mirror, reader: Reader, cursor: Cursor) -> Standing:
        recheck = self._recheck or cursor.sync_requested_at is not None
        tip = await self._in_thread(
            lambda: reading.find_tip(mirror, reader, cursor, self._folder, recheck=recheck)
        )
        if len(tip.pending) > 1 or not cursor.last_sha:
            message = f"{len(tip.pending)} to register, up to {tip.sha[:12]}"
            await self._report(
                Standing(conditions.OUT_OF_SYNC, conditions.REGISTERING, message, tip.sha), None
            )
        rewritten = tip.history_rewritten
        for sha in tip.pending:
            cursor = await self._register(mirror, reader, sha, cursor, rewritten=rewritten)
            rewritten = False
        self._recheck = False
        return replace(await self._standing(cursor), observed_sha=tip.sha)

    async def _register(
        self, mirror: Mirror, reader: Reader, sha: str, cursor: Cursor, *, rewritten: bool
    ) -> Cursor:
        """Register one commit as the next revision and return where the registry then stands."""
        found, decision = await self._decide(reader, sha, cursor)
        if decision.problems and sha == cursor.last_sha and cursor.last_status == "REJECTED":
            return cursor  # looked at once more, and it is as bad as it was
        commit = await self._in_thread(
            lambda: reading.with_authors(mirror, reader, found.commit, cursor, history_rewritten=rewritten)
        )
        revision = RevisionPlan(
            source_id=self._source_id,
            source=self.source.name,
            folder=self._folder,
            commit=commit,
            expected=cursor,
            history_rewritten=rewritten,
            bundle=found.bundle,
            deploys=decision.deploys,
            retires=decision.retires,
            problems=decision.problems,
        )
        published = await self._registry.publish(revision)
        self._tell(revision, published.deployed, published.retired)
        after = replace(cursor, last_seq=published.seq, last_sha=sha, last_status="REJECTED")
        if not published.registered:
            return after
        return replace(
            after,
            last_status="REGISTERED",
            live_seq=published.seq,
            live_sha=sha,
            live_tree=found.commit.tree_sha,
            live_bundle=found.bundle.digest,
            folder=self._folder,
        )

    async def _decide(
        self, reader: Reader, sha: str, cursor: Cursor
    ) -> tuple[reading.CommitReading, plan.Decision]:
        live: list[LiveDefinition] | None = None
        if await self._in_thread(lambda: reading.needs_listing(reader, cursor, self._folder)):
            live = await self._live(registry.live_all)
        found = await self._in_thread(lambda: reading.read_commit(reader, sha, cursor, self._folder, live))
        files = await self._check(found)
        problems_of_tree = (*found.changes.problems, *found.problems)
        if problems_of_tree:
            others = tuple(problem for file in files for problem in file.problems)
            return found, plan.Decision(problems=problems_of_tree + others)
        return found, await self._judge(reader, found, files, cursor)

    async def _check(self, found: reading.CommitReading) -> list[plan.CheckedFile]:
        questions = [Question(path, text) for path, text in found.texts.items() if text is not None]
        answers = await self._checker.check(questions) if questions else []
        files = [_checked(answer, found) for answer in answers]
        return files + [_too_large(path, found) for path, text in found.texts.items() if text is None]

    async def _judge(
        self, reader: Reader, found: reading.CommitReading, files: Sequence[plan.CheckedFile], cursor: Cursor
    ) -> plan.Decision:
        paths = [*found.changes.files, *found.changes.removed]
        names = [file.content.name for file in files if file.content.name]
        users: list[LiveDefinition] = []
        live: list[LiveDefinition] = []
        count = 0
        if paths:
            async with self._database.read() as connection:
                rows = await registry.live_touched(connection, self._source_id, paths=paths, names=names)
                count = await registry.live_count(connection, self._source_id) if rows else 0
            live = await self._with_name_lines(reader, [_live(row) for row in rows], set(paths))
        if found.bundle.digest != cursor.live_bundle:
            users = await self._live(registry.live_function_users)
        guard = plan.Guard(live=count, max_deletions=self.source.max_deletions, confirmed=found.confirmed)
        decision = plan.decide(
            files,
            found.changes.removed,
            live,
            guard=guard,
            bundle_digest=found.bundle.digest,
            function_users=users,
        )
        if decision.problems:
            return decision
        unfit = await calls.problems(self._database, self._registry, self._source_id, files, decision.retires)
        return plan.Decision(problems=unfit) if unfit else decision

    async def _with_name_lines(
        self, reader: Reader, live: list[LiveDefinition], changed: set[str]
    ) -> list[LiveDefinition]:
        """Live definitions outside of the change have a name that is defined anew: a problem will point at them."""
        result = []
        for each in live:
            if each.path not in changed:
                text = await self._registry.content(each.digest)
                each = replace(each, name_line=plan.name_line(text))
            result.append(each)
        return result

    async def _live(self, query: Callable[..., Any]) -> list[LiveDefinition]:
        async with self._database.read() as connection:
            return [_live(row) for row in await query(connection, self._source_id)]

    # --- how the source stands ---------------------------------------------------------------------------------

    async def _standing(self, cursor: Cursor) -> Standing:
        """How the source stands once everything is registered; asked of the registry only if it has moved."""
        if self._stood is None or self._stood[0] != cursor.last_seq:
            async with self._database.read() as connection:
                if cursor.last_status == "REJECTED":
                    rows = await registry.problems_of(connection, self._source_id, cursor.last_seq)
                    standing = _rejected(cursor, rows)
                else:
                    standing = _synced(cursor, await registry.live_count(connection, self._source_id))
            self._stood = (cursor.last_seq, standing)
        return self._stood[1]

    async def _report(self, standing: Standing, cursor: Cursor | None) -> None:
        if not self._source_id:
            return
        async with self._database.begin() as connection:
            await sources.report(
                connection,
                self._source_id,
                condition=standing.condition,
                reason=standing.reason,
                message=standing.message,
                observed_sha=standing.observed_sha,
                answered=cursor.sync_requested_at if cursor else None,
            )

    def _tell(self, revision: RevisionPlan, deployed: Sequence[str], retired: Sequence[str]) -> None:
        log = _log.bind(source=self.source.name, commit_sha=revision.commit.sha)
        if revision.problems:
            log.warning("commit rejected", problems=len(revision.problems), first=str(revision.problems[0]))
        else:
            log.info("revision registered", deployed=len(deployed), retired=len(retired))

    # --- git -----------------------------------------------------------------------------------------------------

    async def _open_mirror(self) -> Mirror:
        if self._mirror is None:
            self._mirror = await self._in_thread(lambda: Mirror(self.source, self._data_dir))
        return self._mirror

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _checked(answer: Answer, found: reading.CommitReading) -> plan.CheckedFile:
    text = found.texts[answer.path]
    assert text is not None
    content = VersionContent(
        name=answer.name,
        path=answer.path,
        git_blob=found.changes.files[answer.path],
        digest=blobs.digest_of(text),
        compiled_digest=blobs.digest_of(answer.compiled),
        bundle_digest="",
        dsl=answer.dsl,
        version=answer.version,
        title=answer.title,
        description=answer.description,
        labels=answer.labels or {},
        uses_functions=answer.uses_functions,
        calls=answer.calls,
        triggers=answer.triggers,
        text=text,
        compiled=answer.compiled,
    )
    return plan.CheckedFile(content, answer.problems)


def _too_large(path: str, found: reading.CommitReading) -> plan.CheckedFile:
    message = f"the file is larger than {reading.MAX_TEXT} bytes"
    answer = Answer(
        path=path, problems=(Problem(code=dsl_codes.TOO_LARGE, message=message, file=path, line=1),)
    )
    return _checked(answer, replace(found, texts={path: b""}))


_LIVE_FIELDS = tuple(name for name in LiveDefinition.__dataclass_fields__ if name != "name_line")


def _live(row: dict[str, Any]) -> LiveDefinition:
    return LiveDefinition(**{name: row[name] for name in _LIVE_FIELDS})


def _synced(cursor: Cursor, count: int) -> Standing:
    if not count:
        message = f"{cursor.live_sha[:12]} is live and holds no definition in {cursor.folder or 'its root'}"
        return Standing(conditions.SYNCED, conditions.NO_DEFINITIONS, message)
    message = f"{cursor.live_sha[:12]} is live with {count} definition{'s' if count > 1 else ''}"
    return Standing(conditions.SYNCED, conditions.UP_TO_DATE, message)


def _rejected(cursor: Cursor, rows: Sequence[dict[str, Any]]) -> Standing:
    held = {problems.MASS_DELETION: conditions.MASS_DELETION, problems.EMPTY_FOLDER: conditions.EMPTY_FOLDER}
    first = rows[0] if rows else {"file": "", "line": 0, "column": 0, "code": "", "message": ""}
    if first["code"] in held:
        message = f"{cursor.last_sha[:12]} is held: {first['message']}"
        return Standing(conditions.HELD, held[first["code"]], message)
    place = f"{first['file']}:{first['line']}:{first['column']}: {first['code']} {first['message']}"
    count = f"{len(rows)} problem{'s' if len(rows) > 1 else ''}"
    message = f"{cursor.last_sha[:12]} has {count}, the first: {place}"[:2000]
    return Standing(conditions.REJECTED, conditions.INVALID_REVISION, message)
