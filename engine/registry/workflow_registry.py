"""The registry as the other rooms see it: what is deployed, what a name and a ref mean, and the bytes behind it."""

from __future__ import annotations

import difflib
import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.core.contracts import Json, Pin
from engine.errors import InvalidInput, NotFound
from engine.registry import closure
from engine.registry import publish as publishing
from engine.registry.closure import Closure
from engine.registry.refs import ambiguous_ref, unknown_source
from engine.registry.revisions import Cursor, Published, RevisionPlan
from engine.storage import blobs, registry, sources
from engine.storage.database import Connection, Database
from engine.storage.rows import Record

LATEST = "latest"
_SHA = re.compile(r"[0-9a-f]{4,64}")
_CACHED_DEFINITIONS = 512
_PROBLEMS_LISTED = 50


@dataclass(frozen=True, slots=True)
class PinnedVersion:
    """A version as a run takes it: the pin, and what the registry knows of it.

    `seq` is the number of the pin's revision; `one_source` if all that the run may start stands in the same source.
    """

    pin: Pin
    version_id: int
    source_id: int
    path: str
    version: str
    title: str
    description: str
    labels: dict[str, Any]
    seq: int = 0
    one_source: bool = True


class WorkflowRegistry:
    """Publishes revisions and resolves refs. Holds nothing but a small cache of compiled definitions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._compiled: OrderedDict[str, Json] = OrderedDict()

    async def publish(self, plan: RevisionPlan) -> Published:
        """Register a revision in one transaction; see `engine.registry.publish.publish`."""
        return await publishing.publish(self._database, plan)

    async def cursor(self, source_id: int) -> Cursor:
        """Where the registry stands with a source."""
        async with self._database.read() as connection:
            return await publishing.read_cursor(connection, source_id)

    # --- refs ----------------------------------------------------------------------------------------------

    async def resolve(self, name: str, ref: str = LATEST) -> PinnedVersion:
        """The version of `name` (or `source/name`) at `ref`: `latest`, a commit SHA, or a unique short one.

        A commit that changed nothing of the workflow resolves to the version that was live at it.
        Raises `NotFound` (the message says what exists) and `InvalidInput` for an ambiguous name or ref.
        """
        async with self._database.read() as connection:
            return _pinned(await self._find(connection, name, ref), Closure())

    async def pin(self, name: str, ref: str = LATEST) -> PinnedVersion:
        """As `resolve`, with all that a run of the version may start.

        Raises `InvalidDefinition` as well, if a child is missing.
        """
        async with self._database.read() as connection:
            row = await self._find(connection, name, ref)
            return _pinned(row, await closure.resolve(connection, row, live=ref == LATEST))

    async def _find(self, connection: Connection, name: str, ref: str) -> Record:
        source, _, bare = name.rpartition("/")
        if ref == LATEST:
            return await self._resolve_latest(connection, bare, source)
        return await self._resolve_sha(connection, bare, source, ref)

    async def _resolve_latest(self, connection: Connection, name: str, source: str) -> Record:
        found = await registry.live_by_name(connection, name, source)
        if not found:
            raise await _unknown_name(connection, name, source)
        return _only(found, name)

    async def _resolve_sha(self, connection: Connection, name: str, source: str, ref: str) -> Record:
        sha = ref.lower()
        if not _SHA.fullmatch(sha):
            raise InvalidInput(
                f"ref {ref[:80]!r} is no commit",
                hint="use `latest`, a full commit SHA, or at least 4 characters of one",
            )
        known = await registry.definitions(connection, name, source)
        if not known:
            raise await _unknown_name(connection, name, source)
        revisions = await registry.revisions_by_prefix(connection, sha, source)
        commits = sorted({revision["sha"] for revision in revisions})
        if not commits:
            raise NotFound(
                f"commit {ref} is no revision of a watched branch",
                hint=await _latest_commits(connection, known),
            )
        if len(commits) > 1:
            raise ambiguous_ref(ref, commits)
        return await self._resolve_revision(connection, name, commits[0], known, revisions)

    async def _resolve_revision(
        self, connection: Connection, name: str, sha: str, known: list[Record], revisions: list[Record]
    ) -> Record:
        found = []
        rejected = False
        for definition in known:
            of_source = [r for r in revisions if r["source_id"] == definition["source_id"]]
            registered = [r["seq"] for r in of_source if r["status"] == "REGISTERED"]
            rejected = rejected or bool(of_source and not registered)
            if registered:  # a commit can be the tip twice, after a forced push: the newer one counts
                seq = max(registered)
                row = await registry.version_at(connection, definition["source_id"], name, seq=seq, sha=sha)
                found += [row] if row else []
        if found:
            return _only(found, name)
        if rejected:
            raise NotFound(
                f"commit {sha[:12]} was rejected: nothing of it is deployed",
                hint=f"GET /commits/{sha[:12]} and `pinflow audit ls --commit {sha[:12]}` show why",
            )
        raise NotFound(
            f"workflow {name} was not deployed at commit {sha[:12]}", hint="see `pinflow workflows versions`"
        )

    # --- bytes ---------------------------------------------------------------------------------------------

    async def compiled(self, digest: str) -> Json:
        """The compiled definition of this digest, verified. Shared: do not change it."""
        if digest in self._compiled:
            self._compiled.move_to_end(digest)
            return self._compiled[digest]
        form = json.loads(await self.content(digest))
        self._compiled[digest] = form
        if len(self._compiled) > _CACHED_DEFINITIONS:
            self._compiled.popitem(last=False)
        return form

    async def contents(self, digests: Sequence[str]) -> dict[str, bytes]:
        """The bytes of many digests, verified, by digest. Raises as `content` does."""
        async with self._database.read() as connection:
            found = await blobs.get_all(connection, digests)
        for digest in digests:
            _verify(digest, found.get(digest))
        return found

    async def content(self, digest: str) -> bytes:
        """The bytes of this digest: a definition's text, a compiled form or a bundle, verified.

        Raises `NotFound` if there are none, `RuntimeError` if they are not what the digest says.
        """
        async with self._database.read() as connection:
            content = await blobs.get(connection, digest)
        return _verify(digest, content)

    # --- lists ---------------------------------------------------------------------------------------------

    async def workflows(
        self, *, limit: int = 100, after: tuple[str, str] = ("", ""), source: str = ""
    ) -> list[Record]:
        """Live definitions by (name, source), those after `after` only: the columns of a version, `source`, `path`."""
        async with self._database.read() as connection:
            return await registry.list_live(connection, limit=limit, after=after, source=source)

    async def versions(self, name: str, *, limit: int = 100, before: int = 0) -> list[Record]:
        """When which version of `name` (or `source/name`) was live, newest first, also of a retired workflow.

        Each has `from_seq, from_sha, from_at` and `to_seq, to_sha, to_at` (null while live), the commit that made it
        live (`author, author_email, committed_at, subject, signer`) and its runs; `before` is a `from_seq`.
        Raises `NotFound`, and `InvalidInput` if several sources have the name.
        """
        source, _, bare = name.rpartition("/")
        async with self._database.read() as connection:
            known = await registry.definitions(connection, bare, source)
            if not known:
                raise await _unknown_name(connection, bare, source)
            if len(known) > 1:
                raise _ambiguous(bare, known)
            return await registry.spans(connection, known[0]["source_id"], bare, limit=limit, before=before)

    async def revisions(
        self, *, limit: int = 100, before: int = 0, source: str = "", sha: str = "", status: str = ""
    ) -> list[Record]:
        """Revisions, newest first; `before` is an `id` of the last page; `sha` is a full one.

        Each has its `problem_count` and the first 50 of its `problems`: a single commit can have a hundred thousand.
        """
        async with self._database.read() as connection:
            found = await registry.list_revisions(
                connection, limit=limit, before=before, source=source, sha=sha, status=status
            )
            return await _with_problems(connection, found, each=_PROBLEMS_LISTED)

    async def revision(self, sha: str) -> list[Record]:
        """The revisions that this (full) commit is, one per source and time it was the tip, each with all its `problems`."""
        async with self._database.read() as connection:
            found = await registry.list_revisions(connection, limit=100, sha=sha)
            return await _with_problems(connection, found)

    async def full_sha(self, ref: str) -> str:
        """The full SHA of the revision that `ref` (full or short) means. Raises as `resolve` does."""
        sha = ref.lower()
        async with self._database.read() as connection:
            found = await registry.revisions_by_prefix(connection, sha) if _SHA.fullmatch(sha) else []
        commits = sorted({revision["sha"] for revision in found})
        if not commits:
            raise NotFound(f"commit {ref[:80]} is no revision of a watched branch")
        if len(commits) > 1:
            raise ambiguous_ref(ref, commits)
        return str(commits[0])

    async def changes_of(self, sha: str) -> list[Record]:
        """What a commit deployed and retired: `source, name, path, change, version_id, commit_sha, digest`."""
        async with self._database.read() as connection:
            return await registry.changes_of(connection, sha)

    async def sources(self) -> list[Record]:
        """Every source with its condition and its live pointer."""
        async with self._database.read() as connection:
            return await sources.list_all(connection)

    async def request_sync(self, source: str | None = None) -> list[str]:
        """Ask the daemon to look at a source (or at all) now. Raises `NotFound` for an unknown one."""
        async with self._database.begin() as connection:
            asked = await sources.request_sync(connection, source)
            if source is not None and not asked:
                raise unknown_source(source, [row["name"] for row in await sources.list_all(connection)])
        return list(asked)


def _verify(digest: str, content: bytes | None) -> bytes:
    if content is None:
        raise NotFound(f"no content with digest {digest}")
    if blobs.digest_of(content) != digest:
        # Not for the caller to mend: somebody or something has changed the table.
        raise RuntimeError(
            f"the stored content of {digest} has another digest: the database was tampered with"
        )
    return content


def _only(found: list[Record], name: str) -> Record:
    if len(found) > 1:
        raise _ambiguous(name, found)
    return found[0]


def _pinned(row: Record, may_start: Closure) -> PinnedVersion:
    pin = Pin(
        workflow=row["name"],
        source=row["source"],
        commit_sha=row["commit_sha"],
        revision_sha=row["revision_sha"],
        digest=row["digest"],
        compiled_digest=row["compiled_digest"],
        bundle_digest=row["bundle_digest"],
        dsl=row["dsl"],
        calls=may_start.calls,
        closure=may_start.closure,
    )
    return PinnedVersion(
        pin=pin,
        version_id=row["version_id"],
        source_id=row["source_id"],
        path=row["path"],
        version=row["version"],
        title=row["title"],
        description=row["description"],
        labels=row["labels"],
        seq=row["revision_seq"],
        one_source=may_start.one_source,
    )


async def _with_problems(
    connection: Connection, revisions: list[Record], *, each: int | None = None
) -> list[Record]:
    faulty = [revision["id"] for revision in revisions if revision["problem_count"]]
    found = await registry.problems(connection, faulty, each=each)
    return [revision | {"problems": found.get(revision["id"], [])} for revision in revisions]


def _ambiguous(name: str, found: list[Record]) -> InvalidInput:
    choices = ", ".join(f"{row['source']}/{name}" for row in found)
    return InvalidInput(f"several sources have a workflow {name}", hint=f"name one of: {choices}")


async def _unknown_name(connection: Connection, name: str, source: str) -> NotFound:
    known = await registry.definitions(connection, name, source)
    retired = [row for row in known if row["live_version_id"] is None]
    if retired:
        row = retired[0]
        return NotFound(
            f"workflow {name} was retired by commit {str(row['retired_sha'])[:12]}",
            hint="run an older version of it with its commit SHA as ref",
        )
    if source and source not in (there := [row["name"] for row in await sources.list_all(connection)]):
        return unknown_source(source, there)
    wanted = f"{source}/{name}" if source else name
    rows = await registry.names(connection)
    live = sorted({row["name"] for row in rows if not row["retired"] and source in ("", row["source"])})
    close = difflib.get_close_matches(name, live, n=3)
    if close:
        return NotFound(f"no workflow {wanted[:160]!r}", hint=f"did you mean {' or '.join(close)}?")
    some = ", ".join(live[:10]) + (", ..." if len(live) > 10 else "")
    return NotFound(
        f"no workflow {wanted[:160]!r}", hint=f"there are: {some}" if live else "none is deployed yet"
    )


async def _latest_commits(connection: Connection, known: list[Record]) -> str:
    wanted = {row["source"] for row in known}
    tips = [
        f"{row['name']} is at {row['live_sha'][:12]}"
        for row in await sources.list_all(connection)
        if row["name"] in wanted and row["live_sha"]
    ]
    return "; ".join(tips)
