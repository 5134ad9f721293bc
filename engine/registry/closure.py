"""What a run may start, resolved once: every version that it or a descendant may call.

`same` is the child as it was at the caller's own revision, so that a commit is one whole; `latest` is the one that is
live now; a SHA is the one that was live at that commit.  The live pointer of a source is read once.  All else is history
that no later merge changes, so the answer is what one moment had, however long the look takes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.core.contracts import Json
from engine.errors import InvalidDefinition
from engine.registry.refs import candidates
from engine.storage import registry
from engine.storage.database import Connection
from engine.storage.rows import Record

SAME = "same"
LATEST = "latest"
MOST = 500
"""Versions in one closure."""
_SHA = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Closure:
    """`calls` and `closure` as in `Pin`. `one_source` if nothing of it stands in another source than the root."""

    calls: dict[str, str] = field(default_factory=dict)
    closure: dict[str, Json] = field(default_factory=dict)
    one_source: bool = True


@dataclass(frozen=True, slots=True)
class _Revision:
    """A commit of a source at which a name is looked up."""

    source_id: int
    source: str
    seq: int
    sha: str


def digest_of(calls: Mapping[str, str], closure: Mapping[str, Json]) -> str:
    """What a closure is known by in the audit; "" for a run that starts no other."""
    if not calls:
        return ""
    text = json.dumps([calls, closure], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def reachable(calls: Mapping[str, str], closure: Mapping[str, Json]) -> dict[str, Json]:
    """The part of a closure that `calls` lead to."""
    found: dict[str, Json] = {}
    todo = sorted(calls.values())
    while todo:
        key = todo.pop()
        if key not in found:
            found[key] = closure[key]
            todo += sorted(closure[key]["calls"].values())
    return found


async def resolve(connection: Connection, root: Record, *, live: bool) -> Closure:
    """The closure of a version as the registry's queries tell it. `live`: its revision is the one that is live.

    Raises `InvalidDefinition` if a child is not there, or if the calls go round.
    """
    if not root["calls"]:
        return Closure()
    return await _Resolver(connection, root, live=live).resolve()


class _Resolver:
    def __init__(self, connection: Connection, root: Record, *, live: bool) -> None:
        self._connection = connection
        self._root = root
        here = _revision_of(root)
        self._live: dict[str, _Revision | None] = {here.source: here} if live else {}
        self._commits: dict[tuple[str, str], _Revision] = {}
        self._found: dict[tuple[_Revision, str], Record] = {}

    async def resolve(self) -> Closure:
        """Level by level, so that a family costs a query for each revision and level."""
        calls: dict[tuple[_Revision, str], dict[str, tuple[_Revision, str]]] = {}
        root = (_revision_of(self._root), self._root["name"])
        self._found[root] = self._root
        level = [root]
        while level:
            for caller in level:
                calls[caller] = await self._targets(caller)
            wanted = [target for caller in level for target in calls[caller].values()]
            new = [target for target in dict.fromkeys(wanted) if target not in self._found]
            await self._look_up(new)
            for caller in level:
                self._require(caller, calls[caller])
            if len(self._found) > MOST:
                raise InvalidDefinition([], f"{self._root['name']} may start more than {MOST} versions")
            level = new
        self._refuse_rings(root, calls)
        return self._closure(root, calls)

    async def _targets(self, caller: tuple[_Revision, str]) -> dict[str, tuple[_Revision, str]]:
        """Where each call of a version leads: `name@ref` → revision and name."""
        here, _ = caller
        found = {}
        for call in self._found[caller]["calls"]:
            source, _, name = call["workflow"].rpartition("/")
            at = await self._revision(caller, source or here.source, call["ref"])
            found[f"{call['workflow']}@{call['ref']}"] = (at, name)
        return found

    async def _revision(self, caller: tuple[_Revision, str], source: str, ref: str) -> _Revision:
        here, name = caller
        if ref == SAME and source == here.source:
            return here
        if ref == LATEST:
            if source not in self._live:
                self._live[source] = await self._live_of(source)
            at = self._live[source]
            if at is None:
                raise InvalidDefinition(
                    [], f"{name} calls a workflow of the source {source}, which has none live"
                )
            return at
        if (source, ref) not in self._commits:
            self._commits[source, ref] = await self._commit(name, source, ref)
        return self._commits[source, ref]

    async def _live_of(self, source: str) -> _Revision | None:
        row = await registry.live_revision(self._connection, source)
        return None if row is None else _Revision(row["source_id"], source, row["seq"], row["sha"])

    async def _commit(self, caller: str, source: str, ref: str) -> _Revision:
        sha = ref.lower()
        rows = (
            await registry.revisions_by_prefix(self._connection, sha, source) if _SHA.fullmatch(sha) else []
        )
        registered = [row for row in rows if row["status"] == "REGISTERED"]
        commits = sorted({row["sha"] for row in registered})
        if len(commits) != 1:
            what = f"is ambiguous: {candidates(commits)}" if commits else "is not registered"
            raise InvalidDefinition([], f"{caller} calls a workflow at commit {ref}, which {what}")
        # A commit can be the tip twice, after a forced push: the newer one counts.
        row = max(registered, key=lambda each: each["seq"])
        return _Revision(row["source_id"], source, row["seq"], row["sha"])

    async def _look_up(self, targets: list[tuple[_Revision, str]]) -> None:
        revisions: dict[_Revision, list[str]] = {}
        for at, name in targets:
            revisions.setdefault(at, []).append(name)
        for at, names in revisions.items():
            rows = await registry.versions_at(self._connection, at.source_id, names, seq=at.seq, sha=at.sha)
            for row in rows:
                self._found[at, row["name"]] = row

    def _require(self, caller: tuple[_Revision, str], calls: Mapping[str, tuple[_Revision, str]]) -> None:
        for written, target in calls.items():
            if target not in self._found:
                at, name = target
                raise InvalidDefinition(
                    [],
                    f"{caller[1]} calls {written}, and no workflow {name} was deployed at commit {at.sha[:12]} of {at.source}",
                    hint="deploy it, or start a version of the caller that does not need it",
                )

    def _refuse_rings(
        self,
        root: tuple[_Revision, str],
        calls: Mapping[tuple[_Revision, str], Mapping[str, tuple[_Revision, str]]],
    ) -> None:
        """A workflow that may start itself, by whatever way, has no end that anybody can know."""
        done: set[tuple[_Revision, str]] = set()
        path: list[tuple[_Revision, str]] = []
        todo: list[tuple[tuple[_Revision, str], bool]] = [(root, True)]
        while todo:
            node, down = todo.pop()
            if not down:
                done.add(path.pop())
                continue
            if node in done:
                continue
            if node in path:
                ring = " → ".join(name for _, name in [*path[path.index(node) :], node])
                raise InvalidDefinition([], f"the calls of {root[1]} go round: {ring}")
            path.append(node)
            todo.append((node, False))
            todo += [(target, True) for target in calls[node].values()]

    def _closure(
        self,
        root: tuple[_Revision, str],
        calls: Mapping[tuple[_Revision, str], Mapping[str, tuple[_Revision, str]]],
    ) -> Closure:
        keyed = {
            caller: {written: _key(target) for written, target in sorted(found.items())}
            for caller, found in calls.items()
        }
        entries = {
            _key(node): _entry(self._found[node]) | {"calls": keyed[node]} for node in calls if node != root
        }
        return Closure(
            calls=keyed[root],
            closure=dict(sorted(entries.items())),
            one_source=all(at.source_id == root[0].source_id for at, _ in calls),
        )


def _revision_of(row: Record) -> _Revision:
    return _Revision(row["source_id"], row["source"], row["revision_seq"], row["revision_sha"])


def _key(target: tuple[_Revision, str]) -> str:
    """By revision, as what `same` means depends on it: one version may stand at several of them."""
    at, name = target
    return f"{at.source}/{name}@{at.sha}"


def _entry(row: Record) -> dict[str, Json]:
    names = (
        "source",
        "commit_sha",
        "revision_sha",
        "digest",
        "compiled_digest",
        "bundle_digest",
        "dsl",
        "size",
    )
    return {"workflow": row["name"], **{name: row[name] for name in names}}
