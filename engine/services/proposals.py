"""Proposals: definitions that callers post, and promotions between sources. A commit, never a row behind git's back."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from engine import faults
from engine.dsl import loader
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.compiler import digest
from engine.dsl.definition_files import FUNCTIONS, is_definition
from engine.errors import Conflict, InputProblem, InvalidDefinition, InvalidInput, NotFound
from engine.forge.places import place_of
from engine.registry import publish
from engine.registry.refs import unknown_source
from engine.registry.workflow_registry import WorkflowRegistry
from engine.services import cursors
from engine.services.callers import Caller
from engine.services.fitting import Fitting
from engine.services.ids import new_id
from engine.settings import ForgeSettings
from engine.storage import audit, blobs, proposals, registry, sources
from engine.storage.database import Connection, Database
from engine.storage.rows import Record
from engine.sync.commit_message import message
from engine.sync.plan import join

BRANCHES = "pinflow/proposals/"
PATIENCE = 10.0
"""Seconds for which a caller waits for the commit to be on the remote."""
_LOOK_EVERY = 0.1
_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,99}/){0,8}[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class ProposalService:
    """Checks what is proposed, and writes the intent; whoever watches the source makes the commit."""

    def __init__(
        self,
        database: Database,
        definitions: WorkflowRegistry,
        forges: Sequence[ForgeSettings] = (),
        packages: Collection[str] = (),
    ) -> None:
        self._fitting = Fitting(database, definitions, packages)
        self._database = database
        self._forges = forges
        self._registry = definitions
        self._types = ActivityTypes.default()

    async def propose(
        self,
        caller: Caller,
        definition: str,
        *,
        source: str = "",
        path: str = "",
        title: str = "",
        body: str = "",
        pull_request: bool = False,
        key: str = "",
    ) -> Record:
        """Propose a definition: a commit on a branch of its own. Raises `InvalidDefinition`, located, and others.

        Without `source`, the one that has the name, or the only one. `path` is from the source's folder; without it, the
        file that the definition stands in, or `<name>.yaml`.
        """
        hashed = _hash(definition, source, path, title, body, pull_request)
        if (before := await self._before(caller, key, hashed)) is not None:
            return await self._awaited(before)
        text = definition.encode("utf-8", "surrogatepass")
        checked = await asyncio.to_thread(check, text, path or "workflow.yaml", self._types)
        if checked.problems:
            raise InvalidDefinition(checked.problems)
        name = checked.name
        assert checked.compiled is not None
        async with self._database.read() as connection:
            target = await _source_of(connection, name, source)
            place = await _place_of(connection, target, name, path)
        await self._fitting.require(target, place, text, checked.compiled)
        async with self._database.begin() as connection:
            target = await _source_of(connection, name, source)
            self._check_forge(target, pull_request)
            place = await _place_of(connection, target, name, path)
            live = await registry.live_by_name(connection, name, target["name"])
            if live and live[0]["digest"] == digest(text) and live[0]["path"] == place:
                raise Conflict(
                    f"this is what is live of {name} in {target['name']}: there is nothing to propose"
                )
            await blobs.put(connection, "definition", {digest(text): text})
            row = await self._write(
                connection, caller, target, kind="proposal", name=name, path=place, digest=digest(text),
                title=title or f"{'Change' if live else 'Add'} workflow {name}", body=body,
                pull_request=pull_request, key=key, request_hash=hashed,
            )  # fmt: skip
        await faults.point("propose.after_commit")
        return await self._awaited(row)

    async def promote(
        self,
        caller: Caller,
        name: str,
        origin: str,
        target_name: str,
        *,
        direct: bool = False,
        with_functions: bool = False,
        body: str = "",
        pull_request: bool = False,
        key: str = "",
    ) -> Record:
        """Propose to one source what is live of `name` in another; with `direct`, on its branch itself.

        Raises `Conflict` if it is live there already, or calls functions that are others there.
        """
        hashed = _hash(name, origin, target_name, direct, with_functions, body, pull_request)
        if (before := await self._before(caller, key, hashed)) is not None:
            return await self._awaited(before)
        if origin == target_name:
            raise InvalidInput(
                "a workflow is promoted from one source to another", [InputProblem("/to", "the same as from")]
            )
        version = await self._registry.resolve(f"{origin}/{name}")
        pin = version.pin
        async with self._database.read() as connection:
            known = {row["name"]: row for row in await sources.list_all(connection)}
        text, form = (
            await self._registry.content(pin.digest),
            await self._registry.compiled(pin.compiled_digest),
        )
        await self._fitting.require(
            _named(known, target_name), version.path, text, form, with_functions=False
        )
        async with self._database.begin() as connection:
            known = {row["name"]: row for row in await sources.list_all(connection)}
            target = _named(known, target_name)
            if direct and pull_request:
                raise InvalidInput(
                    "a commit on the branch itself has no pull request",
                    [InputProblem("/pull_request", "leave it out, or `direct`")],
                )
            self._check_forge(target, pull_request)
            live = await registry.live_by_name(connection, name, target_name)
            cursor = await publish.read_cursor(connection, target["id"])
            bundle = pin.bundle_digest if pin.bundle_digest != cursor.live_bundle else ""
            if live and live[0]["digest"] == pin.digest and not bundle:
                raise Conflict(
                    f"{name} is live in {target_name} as it is in {origin}: there is nothing to promote"
                )
            if bundle and not with_functions:
                raise Conflict(
                    f"{name} calls functions that are others in {target_name}",
                    hint="promote them as well (with_functions); other workflows there then call them too",
                )
            place = (
                live[0]["path"] if live else _moved(version.path, known[origin]["folder"], target["folder"])
            )
            if not live:
                await _check_free(connection, target, name, place)
            row = await self._write(
                connection, caller, target, kind="promotion", name=name, path=place, digest=pin.digest,
                bundle_digest=bundle, title=f"Promote workflow {name} from {origin} to {target_name}", body=body,
                pull_request=pull_request, key=key, request_hash=hashed, direct=direct,
                more={"Promoted-From": f"{origin}@{pin.commit_sha}"},
            )  # fmt: skip
        await faults.point("propose.after_commit")
        return await self._awaited(row)

    async def proposal(self, id: str) -> Record:
        """How a proposal stands. Raises `NotFound`."""
        async with self._database.read() as connection:
            row = await proposals.by_id(connection, id)
        if row is None:
            raise NotFound(f"no proposal {id[:80]!r}", hint="GET /proposals lists them")
        return row

    async def page(
        self, *, count: int, cursor: str = "", status: str = "", source: str = ""
    ) -> tuple[list[Record], str]:
        """Proposals, newest first, and the cursor of the next page."""
        before = cursors.decode(cursor, str)
        async with self._database.read() as connection:
            rows = await proposals.page(
                connection, count=count + 1, before=before[0] if before else "", status=status, source=source
            )
        return rows[:count], cursors.encode(rows[count - 1]["id"]) if len(rows) > count else ""

    async def _write(
        self,
        connection: Connection,
        caller: Caller,
        target: Record,
        *,
        title: str,
        body: str,
        more: Mapping[str, str] | None = None,
        **columns: Any,
    ) -> Record:
        id = new_id()
        said = message(title, body, id, more={"Proposed-by": caller.subject, **(more or {})})
        direct = columns.get("direct", False)
        branch = target["branch"].removeprefix("refs/heads/") if direct else BRANCHES + id
        added = await proposals.add(
            connection, id=id, source_id=target["id"], branch=branch, message=said, requested_by=caller.subject, **columns
        )  # fmt: skip
        if not added:
            raise Conflict("another request with this idempotency key is under way", hint="send it again")
        await audit.record(
            connection, "proposal.requested", actor=caller.subject, source=target["name"], workflow=columns["name"],
            details={"proposal": id, "kind": columns["kind"], "path": columns["path"], "branch": branch},
        )  # fmt: skip
        row = await proposals.by_id(connection, id)
        assert row is not None
        return row

    def _check_forge(self, target: Record, pull_request: bool) -> None:
        """A pull request that nobody would ever open is refused while somebody is there to read it."""
        if pull_request and place_of(self._forges, target["name"], target["url"]) is None:
            raise InvalidInput(
                f"no forge is known for source {target['name']}",
                [InputProblem("/pull_request", "is opened at a forge of PINFLOW_FORGES only")],
                hint="leave it out: the commit stands on a branch all the same; docs/how-to/connect-a-forge.md",
            )

    async def _before(self, caller: Caller, key: str, hashed: str) -> Record | None:
        """What the caller's key led to. Raises `Conflict` if it was another request."""
        if not key:
            return None
        async with self._database.read() as connection:
            row = await proposals.by_key(connection, caller.subject, key)
        if row is not None and row["request_hash"] != hashed:
            raise Conflict("the idempotency key was used for another request", hint="take a fresh key")
        return row

    async def _awaited(self, row: Record) -> Record:
        """The row once its commit is on the remote, or as it stands when the caller has waited long enough."""
        deadline = time.monotonic() + PATIENCE
        while row["status"] == "PROPOSING" and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_EVERY)
            row = await self.proposal(row["id"])
        if row["status"] == "FAILED":
            raise Conflict(f"proposal {row['id']} was not taken: {row['error']}")
        return row


async def _source_of(connection: Connection, name: str, source: str) -> Record:
    known = {row["name"]: row for row in await sources.list_all(connection)}
    if source:
        return _named(known, source)
    having = await registry.definitions(connection, name)
    live = {row["source"] for row in having if row["live_version_id"] is not None}
    fits = live or set(known)
    if len(fits) == 1:
        return known[fits.pop()]
    what = (
        f"several sources have a workflow {name}"
        if live
        else "there are several sources"
        if known
        else "no repository is watched"
    )
    raise InvalidInput(
        what,
        [InputProblem("/source", "is needed here")],
        hint=f"name one of: {', '.join(sorted(fits))}" if fits else "",
    )


def _named(known: Mapping[str, Record], source: str) -> Record:
    if source not in known:
        raise unknown_source(source, known)
    return known[source]


async def _place_of(connection: Connection, target: Record, name: str, path: str) -> str:
    """Where the definition is to stand, from the root of the repository."""
    having = [
        row for row in await registry.definitions(connection, name, target["name"]) if row["live_version_id"]
    ]
    if path and not may_stand_at(path):
        raise InvalidInput(
            f"a definition cannot stand at {loader.shown(path)}",
            [InputProblem("/path", "is no plain path of a .yaml or .yml file below the source's folder")],
        )
    place = join(target["folder"], path or f"{name}.yaml")
    if having:
        if path and having[0]["path"] != place:
            raise Conflict(
                f"{name} stands at {having[0]['path']}", hint="leave the path out, or move the file in git"
            )
        return str(having[0]["path"])
    await _check_free(connection, target, name, place)
    return place


async def _check_free(connection: Connection, target: Record, name: str, place: str) -> None:
    for row in await sources.list_all(connection):
        same = all(row[key] == target[key] for key in ("url", "branch"))
        if row["kind"] == "sources" and same and row["folder"].casefold() == place.casefold():
            raise Conflict(f"{place} is the list of sources {row['name']}", hint="give another path")
    for row in await registry.live_touched(connection, target["id"], paths=[place], names=[]):
        if row["name"] != name:
            raise Conflict(f"{place} holds the workflow {row['name']}", hint="give another path")


def may_stand_at(path: str) -> bool:
    """Whether a proposal may name the path, from the source's folder: plain words, and a place of definitions.

    `Functions/` is none either: on some machines it is the same folder.
    """
    head, _, rest = path.partition("/")
    beside = not rest or head.casefold() != FUNCTIONS
    return beside and _PATH.fullmatch(path) is not None and is_definition(path)


def _moved(path: str, origin: str, target: str) -> str:
    """The path in the target's folder that a path has in the origin's."""
    inside = path.removeprefix(f"{origin.strip('/')}/") if origin.strip("/.") else path
    return join(target, inside)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
