"""Publishing revisions and resolving refs, on a real Postgres."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from engine.errors import Conflict, InvalidInput, NotFound, Problem
from engine.registry.revisions import Bundle, Commit, RevisionPlan, VersionContent
from engine.registry.workflow_registry import WorkflowRegistry
from engine.storage import sources
from engine.storage.database import Database


def sha_of(label: str) -> str:
    return hashlib.sha1(label.encode()).hexdigest()


def version(name: str, body: str = "1", *, bundle: str = "", path: str = "") -> VersionContent:
    text_, compiled = f"name: {name} # {body}".encode(), json.dumps({"name": name, "body": body}).encode()
    return VersionContent(
        name=name,
        path=path or f"workflows/{name}.yaml",
        git_blob=sha_of(name + body),
        digest=hashlib.sha256(text_).hexdigest(),
        compiled_digest=hashlib.sha256(compiled).hexdigest(),
        bundle_digest=bundle,
        dsl="1",
        version=body,
        title="",
        description="",
        labels={"team": "platform"},
        uses_functions=bool(bundle),
        text=text_,
        compiled=compiled,
    )


class Publisher:
    """Publishes commits named by a label, one after the other."""

    def __init__(self, database: Database, source: str = "main") -> None:
        self.database = database
        self.registry = WorkflowRegistry(database)
        self.source = source
        self.source_id = 0

    async def plan(self, label: str, *deploys: VersionContent, retires: tuple[str, ...] = ()) -> RevisionPlan:
        async with self.database.begin() as connection:
            self.source_id = await sources.ensure(
                connection, name=self.source, url="file:///x", branch="main", folder="workflows"
            )
        commit = Commit(
            sha=sha_of(label),
            parent_sha="",
            tree_sha=sha_of(f"tree {label}"),
            author="Ada",
            author_email="ada@example.test",
            committer="Ada",
            committed_at=datetime.now(UTC),
            subject=label,
        )
        return RevisionPlan(
            source_id=self.source_id,
            source=self.source,
            folder="workflows",
            commit=commit,
            expected=await self.registry.cursor(self.source_id),
            deploys=deploys,
            retires=retires,
        )

    async def publish(self, label: str, *deploys: VersionContent, retires: tuple[str, ...] = ()) -> str:
        await self.registry.publish(await self.plan(label, *deploys, retires=retires))
        return sha_of(label)


async def audit_of(database: Database, sha: str) -> list[tuple[str, str]]:
    async with database.read() as connection:
        rows = await connection.execute(
            text("SELECT action, workflow FROM audit WHERE commit_sha = :sha ORDER BY id"), {"sha": sha}
        )
        return [(row.action, row.workflow) for row in rows]


async def test_latest_is_the_version_of_the_last_commit_that_changed_it(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", version("hello"), version("other"))
    second = await publisher.publish("two", version("other", "2"))
    pinned = await publisher.registry.resolve("hello")
    assert (pinned.pin.commit_sha, pinned.pin.revision_sha) == (first, second)
    assert (await publisher.registry.resolve("main/other")).pin.commit_sha == second


async def test_a_commit_that_changed_nothing_of_a_workflow_resolves_to_what_was_live_at_it(
    database: Database,
) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", version("hello"))
    second = await publisher.publish("two")
    third = await publisher.publish("three", version("hello", "2"))
    for ref, expected in ((first, first), (second, first), (second[:7], first), (third.upper(), third)):
        pinned = await publisher.registry.resolve("hello", ref)
        assert pinned.pin.commit_sha == expected
    assert (await publisher.registry.resolve("hello", second)).pin.revision_sha == second


async def test_a_revert_finds_the_old_version_again(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", version("hello"))
    await publisher.publish("two", version("hello", "2"))
    await publisher.publish("three", version("hello"))
    pinned = await publisher.registry.resolve("hello")
    assert pinned.pin.commit_sha == first
    spans = await publisher.registry.versions("hello")
    assert [(span["from_seq"], span["to_seq"]) for span in spans] == [(3, None), (2, 3), (1, 2)]
    assert spans[0]["version_id"] == spans[2]["version_id"] != spans[1]["version_id"]


async def test_a_retired_workflow_is_not_found_but_its_old_commits_are(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", version("hello"))
    second = await publisher.publish("two", retires=("hello",))
    with pytest.raises(NotFound, match=f"retired by commit {second[:12]}"):
        await publisher.registry.resolve("hello")
    with pytest.raises(NotFound, match="not deployed at commit"):
        await publisher.registry.resolve("hello", second)
    assert (await publisher.registry.resolve("hello", first)).pin.commit_sha == first
    third = await publisher.publish("three", version("hello"))
    assert await audit_of(database, second) == [("revision.registered", ""), ("definition.retired", "hello")]
    assert await audit_of(database, third) == [("revision.registered", ""), ("definition.restored", "hello")]


async def test_a_rejected_revision_changes_nothing_and_keeps_its_problems(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", version("hello"))
    plan = await publisher.plan("bad", version("hello", "2"))
    problem = Problem(code="UNKNOWN_KEY", message="no", file="workflows/hello.yaml", line=3, column=5)
    published = await publisher.registry.publish(replace(plan, problems=(problem,)))
    assert not published.registered
    assert (await publisher.registry.resolve("hello")).pin.revision_sha == first
    (revision,) = await publisher.registry.revision(sha_of("bad"))
    assert revision["status"] == "REJECTED"
    assert [(p["file"], p["line"], p["column"], p["code"]) for p in revision["problems"]] == [
        ("workflows/hello.yaml", 3, 5, "UNKNOWN_KEY")
    ]
    assert await audit_of(database, sha_of("bad")) == [("revision.rejected", "")]
    with pytest.raises(NotFound, match="was rejected"):
        await publisher.registry.resolve("hello", sha_of("bad"))


async def test_of_two_publishers_one_wins_and_the_other_is_told(database: Database) -> None:
    publisher = Publisher(database)
    await publisher.publish("one", version("hello"))
    plans = [await publisher.plan(f"two-{n}", version("hello", f"2-{n}")) for n in range(4)]
    outcomes = await asyncio.gather(
        *(publisher.registry.publish(plan) for plan in plans), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        "Conflict",
        "Conflict",
        "Conflict",
        "Published",
    ]
    assert (await publisher.registry.cursor(publisher.source_id)).live_seq == 2


async def test_publishing_the_same_plan_twice_is_refused(database: Database) -> None:
    publisher = Publisher(database)
    plan = await publisher.plan("one", version("hello"))
    await publisher.registry.publish(plan)
    with pytest.raises(Conflict):
        await publisher.registry.publish(plan)
    assert len(await audit_of(database, sha_of("one"))) == 2


async def test_a_name_in_two_sources_must_be_said_in_full(database: Database) -> None:
    await Publisher(database, "eu").publish("one", version("hello"))
    publisher = Publisher(database, "us")
    await publisher.publish("two", version("hello"))
    with pytest.raises(InvalidInput, match="eu/hello, us/hello"):
        await publisher.registry.resolve("hello")
    assert (await publisher.registry.resolve("us/hello")).pin.source == "us"
    assert (await publisher.registry.resolve("hello", sha_of("one"))).pin.source == "eu"


@pytest.mark.parametrize("ref", ["main", "abc", "--upload-pack=x", "", "a" * 65])
async def test_what_is_no_sha_is_refused(database: Database, ref: str) -> None:
    publisher = Publisher(database)
    await publisher.publish("one", version("hello"))
    with pytest.raises(InvalidInput, match="is no commit"):
        await publisher.registry.resolve("hello", ref)


async def test_an_ambiguous_short_sha_is_refused(database: Database) -> None:
    publisher = Publisher(database)
    await publisher.publish("seed", version("hello"))
    for end in ("0", "1"):
        plan = await publisher.plan("x")
        await publisher.registry.publish(replace(plan, commit=replace(plan.commit, sha="abcd" + end * 36)))
    with pytest.raises(InvalidInput, match="ambiguous"):
        await publisher.registry.resolve("hello", "abcd")
    assert await publisher.registry.full_sha("abcd0") == "abcd" + "0" * 36


async def test_an_unknown_name_says_what_there_is(database: Database) -> None:
    publisher = Publisher(database)
    await publisher.publish("one", version("release-service"))
    with pytest.raises(NotFound, match="did you mean release-service"):
        await publisher.registry.resolve("relese-service")
    with pytest.raises(NotFound, match="there are: release-service"):
        await publisher.registry.resolve("x")


async def test_bytes_are_verified_by_their_digest(database: Database) -> None:
    publisher = Publisher(database)
    await publisher.publish("one", version("hello"))
    pin = (await publisher.registry.resolve("hello")).pin
    assert await publisher.registry.compiled(pin.compiled_digest) == {"name": "hello", "body": "1"}
    async with database.begin() as connection:
        await connection.execute(text("UPDATE blobs SET content = 'x' WHERE digest = :d"), {"d": pin.digest})
    with pytest.raises(RuntimeError, match="tampered"):
        await publisher.registry.content(pin.digest)


async def test_a_move_keeps_the_version_and_notes_the_path(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", version("hello"))
    second = await publisher.publish("two", version("hello", path="workflows/sub/hello.yaml"))
    pinned = await publisher.registry.resolve("hello")
    assert (pinned.pin.commit_sha, pinned.path) == (first, "workflows/sub/hello.yaml")
    assert [change["change"] for change in await publisher.registry.changes_of(second)] == ["deployed"]


async def test_new_functions_are_a_new_version_of_the_same_text(database: Database) -> None:
    publisher = Publisher(database)
    content = b"bundle"
    digest = hashlib.sha256(content).hexdigest()
    first = await publisher.publish("one", version("hello", bundle="old"))
    plan = await publisher.plan("two", replace(version("hello", bundle=digest), text=None, compiled=None))
    await publisher.registry.publish(replace(plan, bundle=Bundle(digest, content)))
    old, new = await publisher.registry.resolve("hello", first), await publisher.registry.resolve("hello")
    assert old.pin.digest == new.pin.digest
    assert new.pin.commit_sha == sha_of("two")
    assert await publisher.registry.content(new.pin.bundle_digest) == content


async def test_odd_text_from_git_can_be_stored(database: Database) -> None:
    publisher = Publisher(database)
    odd = replace(version("hello"), title="a\0b\ud800c", description="literal \\u0000 stays")
    await publisher.publish("one", odd)
    pinned = await publisher.registry.resolve("hello")
    assert (pinned.title, pinned.description) == ("a\N{REPLACEMENT CHARACTER}b?c", "literal \\u0000 stays")


async def test_ten_thousand_definitions_are_one_transaction(database: Database) -> None:
    publisher = Publisher(database)
    await publisher.publish("many", *(version(f"flow-{n:05}") for n in range(10_000)))
    page = await publisher.registry.workflows(limit=2, after=("flow-09997", "main"))
    assert [row["name"] for row in page] == ["flow-09998", "flow-09999"]
