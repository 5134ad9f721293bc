"""One revision, one transaction: all of it becomes live, or nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from engine import faults
from engine.errors import Conflict
from engine.registry.revisions import Cursor, Published, RevisionPlan, VersionContent
from engine.storage import blobs, publishing, sources, triggers
from engine.storage.database import Connection, Database
from engine.storage.rows import Record

ACTOR = "sync"
"""The actor of the audit rows: the daemon. Who wrote and committed stands in the revision; git does not prove it."""


async def publish(database: Database, plan: RevisionPlan) -> Published:
    """Register the plan's commit as the next revision of its source.

    Raises `Conflict` if the registry no longer stands where the plan says (another daemon was faster, or the
    outcome of an earlier try was unknown): read the cursor again and make a new plan.
    """
    async with database.begin() as connection:
        published = await _publish(connection, plan)
        await faults.point("publish.before_commit")
    await faults.point("publish.after_commit")
    return published


async def _publish(connection: Connection, plan: RevisionPlan) -> Published:
    now = await read_cursor(connection, plan.source_id, lock=True)
    seen = plan.expected
    if (now.last_seq, now.live_seq, now.live_sha) != (seen.last_seq, seen.live_seq, seen.live_sha):
        raise Conflict(f"source {plan.source} has moved on to revision {now.last_seq} ({now.last_sha[:12]})")
    if now.declaration != seen.declaration:
        raise Conflict(f"source {plan.source} was declared anew by another daemon")
    seq = now.last_seq + 1
    revision_id = await _add_revision(connection, plan, seq)
    if plan.problems:
        await publishing.add_problems(
            connection, revision_id, [problem.to_json() for problem in plan.problems]
        )
    if plan.rejected:
        await _audit(connection, plan, [_rejected(plan)])
        return Published(seq=seq, registered=False)
    published = await _apply(connection, plan, seq)
    moved = await sources.move_live(
        connection,
        plan.source_id,
        seen=(seen.live_seq, seen.live_sha),
        to=(seq, plan.commit.sha),
        folder=plan.folder,
    )
    if not moved:
        raise Conflict(f"the live pointer of source {plan.source} has moved")
    return published


async def read_cursor(connection: Connection, source_id: int, *, lock: bool = False) -> Cursor:
    """Where the registry stands; with `lock`, nobody else publishes until the transaction ends."""
    row = await (sources.lock if lock else sources.cursor)(connection, source_id)
    return Cursor(**row)


async def _add_revision(connection: Connection, plan: RevisionPlan, seq: int) -> int:
    return await publishing.add_revision(
        connection,
        source_id=plan.source_id,
        seq=seq,
        status="REJECTED" if plan.rejected else "REGISTERED",
        history_rewritten=plan.history_rewritten,
        bundle_digest=plan.bundle.digest,
        **asdict(plan.commit),
    )


async def _apply(connection: Connection, plan: RevisionPlan, seq: int) -> Published:
    await _store_contents(connection, plan)
    rows: list[Record] = []
    if plan.deploys:
        rows = await publishing.add_versions(
            connection,
            source_id=plan.source_id,
            commit_sha=plan.commit.sha,
            seq=seq,
            rows=[_version_row(version) for version in plan.deploys],
        )
    # The same version at the same path is no change: no range, no audit row.
    changed = [
        row for row in rows if (row["version_id"], row["path"]) != (row["live_version_id"], row["live_path"])
    ]
    if changed:
        live = [{key: row[key] for key in ("name", "version_id", "path")} for row in changed]
        await publishing.make_live(connection, source_id=plan.source_id, seq=seq, rows=live)
    if plan.retires:
        await publishing.retire(connection, source_id=plan.source_id, seq=seq, names=plan.retires)
    told = await triggers.follow(
        connection,
        source_id=plan.source_id,
        seq=seq,
        names=[*(row["name"] for row in changed), *plan.retires],
    )
    published = Published(
        seq=seq,
        registered=True,
        deployed=tuple(row["name"] for row in changed),
        restored=tuple(row["name"] for row in changed if row["retired_seq"] is not None),
        moved=tuple(
            row["name"] for row in changed if row["live_version_id"] and row["live_path"] != row["path"]
        ),
        retired=plan.retires,
    )
    await _audit(
        connection, plan, [_registered(plan, published), *_changes(changed, plan.retires), *_triggers(told)]
    )
    return published


async def _store_contents(connection: Connection, plan: RevisionPlan) -> None:
    texts = {version.digest: version.text for version in plan.deploys if version.text is not None}
    compiled = {
        version.compiled_digest: version.compiled for version in plan.deploys if version.compiled is not None
    }
    await blobs.put(connection, "definition", texts)
    await blobs.put(connection, "compiled", compiled)
    if plan.bundle.content is not None:
        await blobs.put(connection, "bundle", {plan.bundle.digest: plan.bundle.content})


def _version_row(version: VersionContent) -> dict[str, Any]:
    return {
        "name": version.name,
        "path": version.path,
        "git_blob": version.git_blob,
        "digest": version.digest,
        "compiled_digest": version.compiled_digest,
        "bundle_digest": version.bundle_digest,
        "dsl": version.dsl,
        "version": version.version,
        "title": version.title,
        "description": version.description,
        "labels": version.labels,
        "uses_functions": version.uses_functions,
        "calls": version.calls,
        "triggers": version.triggers,
    }


async def _audit(connection: Connection, plan: RevisionPlan, rows: list[dict[str, Any]]) -> None:
    await publishing.record_all(
        connection, actor=ACTOR, source=plan.source, commit_sha=plan.commit.sha, rows=rows
    )


def _rejected(plan: RevisionPlan) -> dict[str, Any]:
    details = {
        "problems": len(plan.problems),
        "first": str(plan.problems[0]),
        "history_rewritten": plan.history_rewritten,
        "author": plan.commit.author,
    } | _signed(plan)
    return {"action": "revision.rejected", "workflow": "", "details": details}


def _registered(plan: RevisionPlan, published: Published) -> dict[str, Any]:
    details = {
        "seq": published.seq,
        "deployed": len(published.deployed),
        "retired": len(published.retired),
        "history_rewritten": plan.history_rewritten,
        "replaces": plan.expected.live_sha,
        "author": plan.commit.author,
    } | _more(plan)
    return {"action": "revision.registered", "workflow": "", "details": details}


def _more(plan: RevisionPlan) -> dict[str, Any]:
    more = _signed(plan)
    if plan.problems:
        more |= {"problems": len(plan.problems), "first": str(plan.problems[0])}
    return more | {"confirmed": True} if plan.confirmed else more


def _signed(plan: RevisionPlan) -> dict[str, Any]:
    if not plan.commit.signer:
        return {}
    return {"signer": plan.commit.signer, "signer_key": plan.commit.signer_key}


def _triggers(told: list[Record]) -> list[dict[str, Any]]:
    return [
        {
            "action": "trigger.set" if row["live"] else "trigger.removed",
            "workflow": row["workflow"],
            "details": {"trigger": row["id"], **({"spec": row["spec"]} if row["live"] else {})},
        }
        for row in told
    ]


def _changes(changed: list[Record], retired: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for row in changed:
        details = {
            "digest": row["digest"],
            "bundle_digest": row["bundle_digest"],
            "path": row["path"],
            "version_of": row["commit_sha"],
        }
        if row["live_version_id"] and row["live_path"] != row["path"]:
            details["moved_from"] = row["live_path"]
        action = "definition.deployed" if row["retired_seq"] is None else "definition.restored"
        rows.append({"action": action, "workflow": row["name"], "details": details})
    rows += [{"action": "definition.retired", "workflow": name, "details": {}} for name in retired]
    return rows
