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
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from engine import faults
from engine.errors import Conflict, PinflowError, Problem, SourceError
from engine.registry.revisions import (
    Bundle,
    Commit,
    Cursor,
    RevisionPlan,
)
from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import SourceSettings
from engine.storage import registry, sources
from engine.storage.database import Connection, Database
from engine.sync import conditions, plan, problems, reading
from engine.sync.checker import Checker
from engine.sync.deciding import Decider
from engine.sync.declarations import Declared
from engine.sync.git_reader import Reader
from engine.sync.git_urls import shown_url
from engine.sync.mirror import Mirror
from engine.sync.repository import Fetched, Repository
from engine.sync.standing import Standing, kept, rejected, synced
from engine.sync.trust import Judge, Judgement, Signature

_log = structlog.get_logger(__name__)
_Result = TypeVar("_Result")

# Another daemon may publish while we read; each time we begin again from where the registry then stands.
_TRIES = 10
_GIVE_UP_AFTER = 2
"""Failures of ours at one commit, after which it is rejected."""


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
        """What the commit holds, and what becomes of it."""
        assert isinstance(self.source, SourceSettings)
        decider = Decider(
            self.source, self._source_id, self._folder, self._database, self._checker, self._in_thread
        )
        return await decider.decide(reader, sha, cursor)

    # --- how the source stands ---------------------------------------------------------------------------------

    async def _standing(self, cursor: Cursor) -> Standing:
        """How the source stands once everything is registered; asked of the registry only if it has moved."""
        if self._stood is None or self._stood[0] != cursor.last_seq:
            async with self._database.read() as connection:
                rows: Sequence[dict[str, Any]] = ()
                if cursor.last_status == "REJECTED" or cursor.live_faulty:
                    rows = await registry.problems_of(connection, self._source_id, cursor.last_seq)
                if cursor.last_status == "REJECTED":
                    standing = rejected(cursor, rows)
                elif rows:
                    standing = kept(cursor, rows)
                else:
                    standing = await self._in_sync(connection, cursor)
            self._stood = (cursor.last_seq, standing)
        return self._stood[1]

    async def _in_sync(self, connection: Connection, cursor: Cursor) -> Standing:
        return synced(cursor, await registry.live_count(connection, self._source_id))

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
            told = {"problems": len(revision.problems)} if revision.problems else {}
            log.info("revision registered", deployed=len(deployed), retired=len(retired), **told)

    # --- git -----------------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


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
