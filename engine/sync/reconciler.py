"""One pass over a source: fetch, look, register each new commit, say how the source stands.

The last good revision stays live whatever happens.  A pass holds no state that a restart would miss: what is done
stands in the registry, and the next pass begins from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from engine import faults
from engine.dsl import codes as dsl_codes
from engine.dsl.calls import Misfit
from engine.errors import Conflict, PinflowError, Problem, SourceError
from engine.registry.revisions import (
    Bundle,
    Commit,
    Cursor,
    LiveDefinition,
    RevisionPlan,
    VersionContent,
)
from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import SourceSettings
from engine.storage import blobs, registry, sources
from engine.storage.database import Connection, Database
from engine.sync import calls, conditions, functions, plan, problems, reading
from engine.sync.checker import Answer, Checker, Question
from engine.sync.declarations import Declared
from engine.sync.git_reader import Reader
from engine.sync.git_urls import shown_url
from engine.sync.mirror import Mirror
from engine.sync.repository import Fetched, Repository
from engine.sync.trust import Judge, Judgement, Signature

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")

# Another daemon may publish while we read; each time we begin again from where the registry then stands.
_TRIES = 10
_GIVE_UP_AFTER = 2
"""Failures of ours at one commit, after which it is rejected."""
# Carried problems whose paths may not be looked up by name: everything is compared anew.
_OF_ODD_ENTRIES = frozenset({problems.SYMLINK, problems.SUBMODULE, problems.FILE_NAME})


@dataclass(frozen=True, slots=True)
class Standing:
    """How a source stands after a pass; the words are those of `conditions.py`."""

    condition: str
    reason: str
    message: str
    observed_sha: str | None = None


class Reconciler:
    """Brings the registry to what one source's branch holds. One pass at a time; it reads git in a thread of its own."""

    kind = "definitions"

    def __init__(
        self,
        source: SourceSettings | Declared,
        data_dir: Path,
        database: Database,
        checker: Checker,
        repository: Repository | None = None,
    ) -> None:
        """Without a `repository` that others share, it has one of its own."""
        declared = source if isinstance(source, Declared) else Declared(source)
        self.declared = declared
        self.source = declared.source
        self._folder = declared.place
        self._own = repository is None
        self._repository = repository or Repository(
            self.source.url, [self.source.branch], data_dir, declared.credential
        )
        self._database = database
        self._registry = WorkflowRegistry(database)
        self._checker = checker
        rules = self.source.rules if isinstance(self.source, SourceSettings) else ()
        self._judge = Judge(self.source.verify, rules, declared.trust, data_dir, self.source.verify_from)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"git-{self.source.name}")
        self._declaration = " ".join(
            (shown_url(self.source.url), self.source.branch, self._folder, self.kind, _rules_of(declared))
        )
        self._source_id = 0
        self._recheck = True
        self._keys = ""
        self._stood: tuple[int, Standing] | None = None
        self._failed: tuple[str, int] = ("", 0)

    async def run_pass(self) -> Standing:
        """Look at the source once and register what is new. Raises `Unavailable` if Postgres is away."""
        cursor = await self.begin()
        fetched, _ = await asyncio.gather(self._repository.fetched(), self.prepare(cursor))
        return await self.finish(cursor, fetched)

    async def begin(self) -> Cursor:
        """Where the registry stands. Comes before the fetch that `finish` is given."""
        if not self._source_id:
            await self._declare()
        cursor = await self._registry.cursor(self._source_id)
        if cursor.declaration != self._declaration and not cursor.watched:
            # Whoever was told otherwise is gone.
            await self._declare()
            cursor = await self._registry.cursor(self._source_id)
        return cursor

    async def prepare(self, cursor: Cursor) -> None:
        """During the fetch: where everything will have to be checked, the processes of the check come up meanwhile."""
        if cursor.last_sha:
            return
        try:
            await self._checker.warm(every=True)
        except Exception as error:  # the check will say so
            _log.warning("the processes that check definitions do not start", error=str(error))

    async def finish(self, cursor: Cursor, fetched: Fetched) -> Standing:
        """Register what a fetch brought that began after `cursor` was read."""
        if cursor.declaration != self._declaration:
            return await self._stand_aside()
        try:
            standing = await self._attempt(cursor, fetched)
        except SourceError as error:
            standing = Standing(conditions.UNREACHABLE, error.reason, error.message)
        await self._report(standing, cursor)
        return standing

    async def unwatch(self) -> None:
        """Say that this source is not declared any more: what was told of it stays, and nobody looks."""
        async with self._database.begin() as connection:
            await sources.unwatch(connection, self.source.name, self._declaration)

    async def note_failure(self, error: Exception) -> None:
        """Say that a pass ended by a fault of ours."""
        message = f"{type(error).__name__}: {str(error)[:300]}"
        await self._report(Standing(conditions.OUT_OF_SYNC, conditions.PASS_FAILED, message), None)

    async def aclose(self) -> None:
        """End what runs. Safe in the middle of a pass."""
        if self._own:
            await self._repository.aclose()
        await asyncio.to_thread(self._thread.shutdown, True, cancel_futures=True)

    # --- who watches ------------------------------------------------------------------------------------------

    async def _declare(self) -> None:
        async with self._database.begin() as connection:
            self._source_id = await sources.ensure(
                connection,
                name=self.source.name,
                url=shown_url(self.source.url),
                branch=self.source.branch,
                folder=self._folder,
                kind=self.kind,
                declaration=self._declaration,
                settings=shown_settings(self.declared),
            )

    async def _stand_aside(self) -> Standing:
        """Another daemon was told later, and otherwise, what this source is: two that both publish would flip what is live."""
        message = (
            "another daemon watches something else under this name, or by other rules; "
            f"we were told: {self._declaration}"
        )
        _log.error("stands aside", source=self.source.name, told=self._declaration)
        async with self._database.begin() as connection:
            await sources.contest(connection, self._source_id, by=self._declaration)
        return Standing(conditions.OUT_OF_SYNC, conditions.DECLARED_TWICE, message)

    # --- the steps of a pass ---------------------------------------------------------------------------------

    async def _attempt(self, cursor: Cursor, fetched: Fetched) -> Standing:
        """Register; begin again if another daemon was faster, or the mirror turned out to be damaged.

        The cursor is always read before the fetch.  The fetched tip is then newer than all that the cursor knows; if
        somebody publishes in between, the compare-and-set refuses us.  The other way round, a slow daemon would take
        the newer revision of a fast one for a forced push, and put its own older tip on top.
        """
        repaired = False
        for _ in range(_TRIES):
            generation = self._repository.generation
            try:
                fetched.check(self.source.branch)
                return await self._register_fetched(cursor)
            except Conflict as error:
                _log.info("pass begins again", source=self.source.name, reason=error.message)
            except SourceError as error:
                if error.reason != conditions.MIRROR_BROKEN or repaired:
                    raise
                repaired = True
                _log.warning("mirror is made again", source=self.source.name, error=error.message)
                await self._repository.discard(generation)
            cursor = await self._registry.cursor(self._source_id)
            if cursor.declaration != self._declaration:
                return await self._stand_aside()
            fetched = await self._repository.fetched()
        raise Conflict(f"source {self.source.name} was changed by others {_TRIES} times in a row")

    async def _register_fetched(self, cursor: Cursor) -> Standing:
        await faults.point("sync.after_fetch")
        mirror = self._repository.mirror
        recheck = await self._must_recheck(cursor)
        tip = mirror.tip(self.source.branch)
        if tip and reading.is_done(tip, cursor, self._folder, recheck=recheck):
            return replace(
                await self._standing(cursor), observed_sha=tip
            )  # nothing moved: git is not started
        opened = mirror.reader(self.source.branch)
        reader = await self._in_thread(opened.__enter__)
        try:
            return await self._register_new(mirror, reader, cursor, recheck=recheck)
        finally:
            await asyncio.shield(self._leave(opened))

    async def _must_recheck(self, cursor: Cursor) -> bool:
        """Whether a tip with problems may be without them by now, although it is the same."""
        if self._recheck or cursor.sync_requested_at is not None:
            return True
        if cursor.last_status != "REJECTED" or not self._judge.asks:
            return False
        return await self._in_thread(self._judge.keys) != self._keys

    async def _leave(self, opened: AbstractContextManager[Reader]) -> None:
        await self._in_thread(lambda: opened.__exit__(None, None, None))

    async def _register_new(
        self, mirror: Mirror, reader: Reader, cursor: Cursor, *, recheck: bool
    ) -> Standing:
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
            cursor = await self._register_or_refuse(mirror, reader, sha, cursor, rewritten=rewritten)
            rewritten = False
        self._recheck = False
        return replace(await self._standing(cursor), observed_sha=tip.sha)

    async def _register_or_refuse(
        self, mirror: Mirror, reader: Reader, sha: str, cursor: Cursor, *, rewritten: bool
    ) -> Cursor:
        """Register a commit. One at which we fail twice, by a fault of ours, is rejected: it must not block the next."""
        try:
            return await self._register(mirror, reader, sha, cursor, rewritten=rewritten)
        except PinflowError:
            raise
        except Exception as error:
            times = self._failed[1] + 1 if self._failed[0] == sha else 1
            self._failed = (sha, times)
            if times < _GIVE_UP_AFTER:
                raise
            _log.exception("commit refused", source=self.source.name, commit_sha=sha)
            said = f"the registry cannot take this commit: {type(error).__name__}: {str(error)[:300]}"
            commit = await self._in_thread(lambda: reading.commit_alone(reader, sha))
            problem = Problem(problems.REFUSED, said, hint="please report it; later commits are looked at")
            rejected = plan.Decision(problems=(problem,))
            return await self._publish(commit, Bundle(), rejected, cursor, rewritten=rewritten)

    async def _register(
        self, mirror: Mirror, reader: Reader, sha: str, cursor: Cursor, *, rewritten: bool
    ) -> Cursor:
        """Register one commit as the next revision and return where the registry then stands."""
        dropped = await self._drops_the_live_one(mirror, sha, cursor, rewritten=rewritten)
        judged = await self._in_thread(lambda: self._judge_signature(mirror, sha, cursor))
        confirmed = cursor.confirmed_sha == sha
        held = judged.problems or (self._rewritten(sha, cursor) if dropped and not confirmed else ())
        if held:
            commit, bundle = await self._in_thread(lambda: reading.commit_alone(reader, sha)), Bundle()
            decision = plan.Decision(problems=held)
        else:
            found, decision = await self._decide(reader, sha, cursor)
            commit, bundle = found.commit, found.bundle
            if not decision.problems or decision.partial:
                decision = self._keep_rules(found, decision, judged.signature, sha)
            if dropped and self._holds_rewritten():
                decision = replace(decision, confirmed=True)
        if sha == cursor.last_sha and await self._stays(decision, cursor):
            return cursor
        commit = await self._in_thread(
            lambda: reading.with_authors(mirror, reader, commit, cursor, history_rewritten=rewritten)
        )
        commit = replace(commit, signer=judged.signature.signer, signer_key=judged.signature.key)
        return await self._publish(commit, bundle, decision, cursor, rewritten=rewritten or dropped)

    async def _publish(
        self, commit: Commit, bundle: Bundle, decision: plan.Decision, cursor: Cursor, *, rewritten: bool
    ) -> Cursor:
        revision = RevisionPlan(
            source_id=self._source_id,
            source=self.source.name,
            folder=self._folder,
            commit=commit,
            expected=cursor,
            history_rewritten=rewritten,
            bundle=bundle,
            deploys=decision.deploys,
            retires=decision.retires,
            problems=decision.problems,
            partial=decision.partial,
            confirmed=decision.confirmed,
        )
        published = await self._registry.publish(revision)
        self._tell(revision, published.deployed, published.retired)
        after = replace(cursor, last_seq=published.seq, last_sha=commit.sha, last_status="REJECTED")
        if not published.registered:
            return after
        return replace(
            after,
            last_status="REGISTERED",
            live_seq=published.seq,
            live_sha=commit.sha,
            live_tree=commit.tree_sha,
            live_bundle=bundle.digest,
            live_faulty=bool(revision.problems),
            retired=False,
            folder=self._folder,
        )

    async def _stays(self, decision: plan.Decision, cursor: Cursor) -> bool:
        """Whether a second look at the last revision's commit changes nothing.

        It is as bad as it was; or the operator asks for more than at the first look.  A commit that was taken is not
        taken back by that, and one that has problems of its own does not become one that waits for somebody.
        """
        if not decision.problems:
            return False
        async with self._database.read() as connection:
            known = await registry.problems_of(connection, self._source_id, cursor.last_seq)
        before = sorted((row["file"], row["line"], row["code"], row["message"]) for row in known)
        now = sorted((each.file, each.line, each.code, each.message) for each in decision.problems)
        if now == before and decision.partial is (cursor.last_status == "REGISTERED"):
            return True
        if cursor.retired or cursor.folder != self._folder:
            return False
        if cursor.last_status == "REGISTERED":
            return not decision.partial
        unread = {problem.code for problem in decision.problems} <= conditions.HELD_UNREAD
        return unread and not any(row["code"] in conditions.HELD_BY for row in known)

    # --- who may ------------------------------------------------------------------------------------------------

    def _judge_signature(self, mirror: Mirror, sha: str, cursor: Cursor) -> Judgement:
        self._keys = self._judge.keys()
        here = cursor.folder == self._folder and not cursor.retired
        # Pushed back to what is live: all of it was taken, and nothing more can come of it.
        taken = here and sha == cursor.live_sha and not cursor.live_faulty
        return self._judge.judge(mirror, sha, cursor, taken=taken)

    def _keep_rules(
        self, found: reading.CommitReading, decision: plan.Decision, signature: Signature, sha: str
    ) -> plan.Decision:
        """Hold a commit that changes, in whatever way, what a rule reserves for others than its signer."""
        touched = reading.touched_paths(found, self._folder) | {each.path for each in decision.deploys}
        broken = self._judge.rules_kept(signature, self._folder, touched, sha)
        return plan.Decision(problems=broken) if broken else decision

    def _holds_rewritten(self) -> bool:
        return isinstance(self.source, SourceSettings) and self.source.rewritten_history == "hold"

    async def _drops_the_live_one(self, mirror: Mirror, sha: str, cursor: Cursor, *, rewritten: bool) -> bool:
        """Whether the live commit is not in the history of `sha`; asked only where it may be so."""
        if cursor.live_sha in ("", sha) or not (rewritten or cursor.last_status == "REJECTED"):
            return False
        return not await self._in_thread(lambda: mirror.is_ancestor(cursor.live_sha, sha))

    def _rewritten(self, sha: str, cursor: Cursor) -> tuple[Problem, ...]:
        if not self._holds_rewritten():
            return ()
        said = f"a forced push to {sha[:12]} dropped the live commit {cursor.live_sha[:12]}"
        return (Problem(problems.HISTORY_REWRITTEN, said, hint="if this is meant: `pinflow sync confirm`"),)

    # --- what a commit means --------------------------------------------------------------------------------------

    async def _decide(
        self, reader: Reader, sha: str, cursor: Cursor
    ) -> tuple[reading.CommitReading, plan.Decision]:
        live: list[LiveDefinition] | None = None
        carried = await self._carried(cursor)
        whole = any(code in _OF_ODD_ENTRIES for _, code in carried)
        if whole or await self._in_thread(lambda: reading.needs_listing(reader, cursor, self._folder)):
            live = await self._live(registry.live_all)
        again = {path for path, _ in carried if self._is_of_functions(path)}
        paths = {path for path, _ in carried if path} - again
        found = await self._in_thread(
            lambda: reading.read_commit(
                reader,
                sha,
                cursor,
                self._folder,
                live,
                paths,
                functions=bool(again),
                isolated=self._isolated,
            )
        )
        files = await self._check(found)
        blocking = (*found.problems, *self._blocking(found))
        if blocking:
            others = tuple(problem for file in files for problem in file.problems)
            return found, plan.Decision(problems=blocking + others)
        return found, await self._judge_files(reader, found, files, cursor)

    @property
    def _isolated(self) -> bool:
        return isinstance(self.source, SourceSettings) and self.source.mode == "isolated"

    async def _carried(self, cursor: Cursor) -> list[tuple[str, str]]:
        """(path, code) of the live revision's problems: what they concern is looked at again until it is mended."""
        if not cursor.live_faulty:
            return []
        async with self._database.read() as connection:
            rows = await registry.problems_of(connection, self._source_id, cursor.live_seq)
        return [(row["file"], row["code"]) for row in rows]

    def _blocking(self, found: reading.CommitReading) -> tuple[Problem, ...]:
        """What is wrong with the tree beyond single definitions; the functions are one thing, and never half of it."""
        if not self._isolated:
            return found.changes.problems
        return tuple(each for each in found.changes.problems if self._is_of_functions(each.file))

    def _is_of_functions(self, path: str) -> bool:
        return path.startswith(plan.join(self._folder, f"{plan.FUNCTIONS}/"))

    async def _check(self, found: reading.CommitReading) -> list[plan.CheckedFile]:
        questions = [Question(path, text) for path, text in found.texts.items() if text is not None]
        answers = await self._checker.check(questions) if questions else []
        files = [_checked(answer, found) for answer in answers]
        return files + [_too_large(path, found) for path, text in found.texts.items() if text is None]

    async def _judge_files(
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
        if found.changes.functions:
            users = await self._live(registry.live_function_users)
        judged = await functions.judge(
            self._checker,
            self._registry,
            found.bundle,
            plan.join(self._folder, plan.FUNCTIONS),
            files,
            [each for each in users if each.bundle_digest != found.bundle.digest],
            paths,
        )
        assert isinstance(self.source, SourceSettings)
        guard = plan.Guard(
            live=count,
            max_deletions=self.source.max_deletions,
            max_percent=self.source.max_deletions_percent,
            confirmed=found.confirmed or cursor.confirmed_sha == found.commit.sha,
        )
        decide = partial(
            plan.decide,
            removed=found.changes.removed,
            live=live,
            guard=guard,
            bundle_digest=found.bundle.digest,
            function_users=judged.users,
            isolated=self._isolated,
            others=found.changes.problems,
        )
        return await self._decide_together(judged.files, judged.problems, decide)

    async def _decide_together(
        self,
        files: Sequence[plan.CheckedFile],
        problems: Sequence[Problem],
        decide: Callable[..., plan.Decision],
    ) -> plan.Decision:
        """Decide, and see whether what would then be live fits together.

        Where bad files stand alone, what does not fit is held back: the caller if the commit changes it, otherwise what
        it calls. The rest is judged again without it, until all that would be live fits.
        """
        kept = [*problems]
        while True:
            decision = decide(files, kept=kept)
            if decision.problems and not decision.partial:
                return decision
            bad = {problem.file for problem in decision.problems}
            good = [file for file in files if file.content.path not in bad]
            found = await calls.misfits(
                self._database, self._registry, self._source_id, good, decision.retires
            )
            unfit = [each for each in found if each.problem not in kept]
            if not unfit:
                return decision
            if not self._isolated:
                return plan.Decision(problems=tuple(each.problem for each in unfit))
            held = await self._held_back(unfit, good, decision.retires)
            paths = {file.content.path for file in good}
            files = [_with_problems(file, held) for file in files]
            kept += [problem for problem in held if problem.file not in paths]

    async def _held_back(
        self, unfit: Sequence[Misfit], good: Sequence[plan.CheckedFile], retires: Sequence[str]
    ) -> list[Problem]:
        """The problems of what is held back so that the others fit; of what the commit changes nothing of, as it is."""
        paths = {file.content.path for file in good}
        changed = {file.content.name: file.content for file in good}
        async with self._database.read() as connection:
            rows = await registry.live_touched(connection, self._source_id, paths=[], names=retires)
        gone = {row["name"]: row["path"] for row in rows}
        held: list[Problem] = []
        for each in unfit:
            if each.problem.file in paths:
                held.append(each.problem)
                continue
            blamed = [_needed_as_it_was(each, changed[name]) for name in each.between if name in changed]
            blamed += [_needed(each, name, gone[name]) for name in each.between if name in gone]
            held += blamed or [each.problem]
        return list(dict.fromkeys(held))

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
                rows: Sequence[dict[str, Any]] = ()
                if cursor.last_status == "REJECTED" or cursor.live_faulty:
                    rows = await registry.problems_of(connection, self._source_id, cursor.last_seq)
                if cursor.last_status == "REJECTED":
                    standing = _rejected(cursor, rows)
                elif rows:
                    standing = _kept(cursor, rows)
                else:
                    standing = await self._in_sync(connection, cursor)
            self._stood = (cursor.last_seq, standing)
        return self._stood[1]

    async def _in_sync(self, connection: Connection, cursor: Cursor) -> Standing:
        return _synced(cursor, await registry.live_count(connection, self._source_id))

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
                declaration=self._declaration,
                watched_for=max(60.0, 3 * self.source.poll_interval),
            )

    def _tell(self, revision: RevisionPlan, deployed: Sequence[str], retired: Sequence[str]) -> None:
        log = _log.bind(source=self.source.name, commit_sha=revision.commit.sha)
        if revision.rejected:
            log.warning("commit rejected", problems=len(revision.problems), first=str(revision.problems[0]))
        else:
            kept = {"problems": len(revision.problems)} if revision.problems else {}
            log.info("revision registered", deployed=len(deployed), retired=len(retired), **kept)

    # --- git -----------------------------------------------------------------------------------------------------

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
    return plan.CheckedFile(content, answer.problems, tuple(answer.functions))


def _needed_as_it_was(misfit: Misfit, content: VersionContent) -> Problem:
    """A changed definition is held back for a caller that stays as it is."""
    return Problem(
        code=misfit.problem.code,
        message=f"{content.name} keeps its last good version: {_as_told(misfit)}",
        file=content.path,
        line=plan.name_line(content.text),
        column=1,
        path="name",
        hint="change both in one commit",
    )


def _needed(misfit: Misfit, name: str, path: str) -> Problem:
    """A definition whose file is gone stays for a caller that stays."""
    return Problem(
        code=problems.NOT_RETIRED,
        message=f"workflow {name} stays live: {_as_told(misfit)}",
        file=path,
        hint="change what calls it in the same commit",
    )


def _as_told(misfit: Misfit) -> str:
    found = misfit.problem
    return (
        f"{misfit.between[0]} calls it as it was ({found.file}:{found.line}:{found.column}: {found.message})"
    )


def _with_problems(file: plan.CheckedFile, found: Sequence[Problem]) -> plan.CheckedFile:
    own = tuple(problem for problem in found if problem.file == file.content.path)
    return replace(file, problems=file.problems + own)


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
    first = rows[0] if rows else {"file": "", "line": 0, "column": 0, "code": "", "message": ""}
    if first["code"] in conditions.HELD_BY:
        message = f"{cursor.last_sha[:12]} is held: {first['message']}"[:2000]
        return Standing(conditions.HELD, conditions.HELD_BY[first["code"]], message)
    message = f"{cursor.last_sha[:12]} has {_count(rows)}"[:2000]
    return Standing(conditions.REJECTED, conditions.INVALID_REVISION, message)


def _kept(cursor: Cursor, rows: Sequence[dict[str, Any]]) -> Standing:
    message = f"{cursor.live_sha[:12]} is live but for files that keep their last good version: it has {_count(rows)}"
    return Standing(conditions.OUT_OF_SYNC, conditions.FILES_KEPT, message[:2000])


def _count(rows: Sequence[dict[str, Any]]) -> str:
    first = rows[0] if rows else {"file": "", "line": 0, "column": 0, "code": "", "message": ""}
    line = f":{first['line']}:{first['column']}" if first["line"] else ""
    place = f"{first['file']}{line}: " if first["file"] else ""
    return f"{len(rows)} problem{'s' if len(rows) > 1 else ''}, the first: {place}{first['code']} {first['message']}"


def _rules_of(declared: Declared) -> str:
    """A short digest of what decides what is taken: a daemon that knows older rules must not go around newer ones."""
    rules = shown_settings(declared) | {"groups": declared.trust.groups if declared.trust else {}}
    rules.pop("included_from", "")
    return f"rules:{hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:8]}"


def shown_settings(declared: Declared) -> dict[str, Any]:
    """What of a source's settings is of use to people who look at it. Nothing in it is a secret."""
    keys = (
        "mode",
        "verify",
        "verify_from",
        "rewritten_history",
        "max_deletions",
        "max_deletions_percent",
        "rules",
    )
    source = declared.source.model_dump(mode="json")
    shown = {key: source[key] for key in keys if key in source}
    shown = {key: value for key, value in shown.items() if key != "verify_from" or value}
    return shown | ({"included_from": declared.included_from} if declared.included_from else {})
