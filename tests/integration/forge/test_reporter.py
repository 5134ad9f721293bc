"""What the forges are told, whatever they drop, delay and repeat."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from engine.errors import Problem
from engine.forge.reporter import Reporter
from engine.registry.revisions import Commit, RevisionPlan, VersionContent
from engine.registry.workflow_registry import WorkflowRegistry
from engine.services.forges import ForgeService
from engine.settings import ForgeSettings, SourceSettings
from engine.storage import blobs, proposals, sources
from engine.storage.database import Database
from tests.support.fake_forge import FakeForge, fake_forge

KINDS = ("github", "gitlab", "gitea")
SUCCESS, FAILURE = {"success"}, {"failure", "failed"}


class Bench:
    """A registry, a reporter, and a forge."""

    def __init__(self, database: Database, forge: FakeForge, source_id: int) -> None:
        self.database = database
        self.registry = WorkflowRegistry(database)
        self.forge = forge
        self.source_id = source_id
        self.reporter = self._reporter()
        self._numbers = itertools.count(1)

    def _reporter(self) -> Reporter:
        settings = ForgeSettings(
            name="forge", kind=self.forge.kind, api=self.forge.api, hosts=("forge.example.test",), token_env="FORGE_TOKEN"
        )  # fmt: skip
        watched = {"main": SourceSettings(name="main", url="https://forge.example.test/ada/flows.git")}
        return Reporter(
            self.database, [settings], lambda: watched, public_url="https://pinflow.example.test/"
        )

    async def publish(
        self, subject: str = "Change", *, problems: tuple[Problem, ...] = (), sha: str = ""
    ) -> str:
        """A revision, as the daemon registers it; its commit."""
        number = next(self._numbers)
        sha = sha or f"{number:040x}"
        content = f"v{number}".encode()
        digest = blobs.digest_of(content)
        version = VersionContent(
            name="release", path="workflows/release.yaml", git_blob="0" * 40, digest=digest, compiled_digest=digest,
            bundle_digest="", dsl="1", version="", title="", description="", labels={}, uses_functions=False,
            text=content, compiled=content,
        )  # fmt: skip
        now = datetime.now(UTC)
        await self.registry.publish(
            RevisionPlan(
                source_id=self.source_id,
                source="main",
                folder="workflows",
                commit=Commit(sha, "", "", "Ada", "ada@example.test", "Ada", now, subject),
                expected=await self.registry.cursor(self.source_id),
                deploys=() if problems else (version,),
                problems=problems,
            )
        )
        return sha

    async def settle(self, passes: int = 40) -> None:
        """Passes until nothing is left to be told, without waiting for the pauses in between."""
        for _ in range(passes):
            await self.rows("UPDATE forge_messages SET due_at = now() WHERE sent_at IS NULL")
            if not await self.reporter.pass_once():
                return
        raise AssertionError(await self.rows("SELECT * FROM forge_messages"))

    async def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of a query."""
        async with self.database.begin() as connection:
            found = await connection.execute(text(query))
            return [dict(row._mapping) for row in found] if found.returns_rows else []


@pytest_asyncio.fixture(loop_scope="session", params=KINDS)
async def bench(
    request: pytest.FixtureRequest, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setenv("FORGE_TOKEN", "forge-token")
    async with database.begin() as connection:
        source = await sources.ensure(
            connection,
            name="main",
            url="https://forge.example.test/ada/flows.git",
            branch="main",
            folder="workflows",
        )
    async with fake_forge(request.param) as forge:
        made = Bench(database, forge, source)
        yield made
        await made.reporter.aclose()


PROBLEM = Problem("NAME", "`a-b` is not an id", "workflows/release.yaml", 2, 14, hint="use `a_b`")


async def test_a_live_commit_is_a_success_and_a_refused_one_a_failure(bench: Bench) -> None:
    good = await bench.publish()
    bad = await bench.publish(problems=(PROBLEM,))
    await bench.settle()
    assert bench.forge.last(good, "pinflow/main") in SUCCESS
    assert bench.forge.last(bad, "pinflow/main") in FAILURE
    told = {each["sha"]: each for each in bench.forge.statuses}
    assert told[good]["description"] == "live: 1 deployed"
    assert told[good]["target_url"] == f"https://pinflow.example.test/commits/{good}"
    assert told[bad]["description"].startswith(
        "1 problem: workflows/release.yaml:2:14: NAME `a-b` is not an id"
    )


async def test_nothing_is_told_of_what_the_registry_has_not_committed(bench: Bench) -> None:
    await bench.settle()
    assert bench.forge.statuses == []


async def test_each_commit_is_told_once(bench: Bench) -> None:
    shas = [await bench.publish() for _ in range(5)]
    await bench.settle()
    await bench.settle()
    assert sorted(each["sha"] for each in bench.forge.statuses) == sorted(shas)


async def test_a_look_at_what_is_told_already_writes_nothing(bench: Bench) -> None:
    await bench.publish()
    await bench.settle()
    before = await bench.rows("SELECT xmin::text, xmax::text FROM forge_messages")
    await bench.reporter.pass_once()
    assert await bench.rows("SELECT xmin::text, xmax::text FROM forge_messages") == before


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_the_forge_does_it_shows_in_the_end_what_the_registry_says(
    bench: Bench, seed: int
) -> None:
    chance = random.Random(seed)
    bench.forge.faults = chance.choices(["drop", "refuse", "500", "429", "garbage", "ok"], k=25)
    expected = {}
    for _ in range(6):
        bad = chance.random() < 0.5
        expected[await bench.publish(problems=(PROBLEM,) if bad else ())] = FAILURE if bad else SUCCESS
    await bench.settle()
    for sha, states in expected.items():
        assert bench.forge.last(sha, "pinflow/main") in states
        assert len([each for each in bench.forge.statuses if each["sha"] == sha]) == 1
    assert await bench.rows("SELECT 1 FROM forge_messages WHERE sent_at IS NULL") == []


async def test_a_commit_that_is_looked_at_again_and_registered_is_told_again(bench: Bench) -> None:
    sha = await bench.publish(problems=(PROBLEM,))
    await bench.settle()
    await bench.publish(sha=sha)
    await bench.settle()
    assert [each["state"] in SUCCESS for each in bench.forge.statuses] == [False, True]


async def test_a_commit_that_is_the_tip_once_more_is_not_told_again(bench: Bench) -> None:
    sha = await bench.publish()
    await bench.settle()
    await bench.publish(sha=sha)
    await bench.settle()
    assert len(bench.forge.statuses) == 1


async def test_the_pull_request_that_a_commit_names_gets_one_comment(bench: Bench) -> None:
    bench.forge.faults = ["ok", "drop", "ok", "ok", "ok", "drop"]
    await bench.publish("Merge pull request #12 from ada/topic")
    await bench.publish("Ship it (#13)", problems=(PROBLEM,))
    await bench.publish("Not one (#14) of them")
    await bench.settle()
    told = {each["number"]: each["body"] for each in bench.forge.comments}
    assert sorted(told) == [12, 13]
    assert len(bench.forge.comments) == 2
    assert "`release` is deployed" in told[12]
    assert "workflows/release.yaml:2:14: NAME" in told[13]
    assert "What was live stays live." in told[13]


async def test_a_commit_that_is_live_in_part_is_no_success(bench: Bench) -> None:
    """As a source in isolated mode registers it: the good files are live, the problems are kept."""
    sha = await bench.publish("Ship it (#13)")
    await bench.rows(
        """INSERT INTO revision_problems (revision_id, file, line, "column", code, path, message, hint)
           SELECT id, 'workflows/bad.yaml', 3, 1, 'NAME', '', 'bad', '' FROM revisions"""
    )
    await bench.settle()
    assert bench.forge.last(sha, "pinflow/main") in FAILURE
    assert (
        bench.forge.statuses[0]["description"] == "live in part; 1 problem: workflows/bad.yaml:3:1: NAME bad"
    )
    assert "`release` is deployed" in bench.forge.comments[0]["body"]
    assert "is live in part" in bench.forge.comments[0]["body"]


async def test_a_refusal_is_parked_in_the_end_and_stops_no_other(bench: Bench) -> None:
    await bench.publish()
    bench.forge.token = "another"
    await bench.settle()
    [row] = await bench.rows("SELECT last_error, attempts, parked_at FROM forge_messages")
    assert row["parked_at"] is not None
    assert "401" in row["last_error"]
    assert "forge-token" not in row["last_error"]
    fault = (await ForgeService(bench.database, []).faults())["main"]
    assert (fault["waiting"], fault["parked"]) == (0, 1)
    assert "401" in fault["error"]
    bench.forge.token = "forge-token"
    sha = await bench.publish()
    await bench.settle()
    assert bench.forge.last(sha, "pinflow/main") in SUCCESS


async def test_an_answer_without_end_is_cut_off(bench: Bench) -> None:
    bench.forge.faults = ["huge"] * 30
    await bench.publish()
    await bench.settle()
    assert "more than" in (await bench.rows("SELECT last_error FROM forge_messages"))[0]["last_error"]


async def test_a_token_that_is_not_set_is_told_by_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_TOKEN")
    await bench.publish()
    await bench.settle()
    assert "FORGE_TOKEN" in (await bench.rows("SELECT last_error FROM forge_messages"))[0]["last_error"]


async def test_a_proposal_that_asks_for_it_gets_one_pull_request(bench: Bench) -> None:
    content = b"name: release\n"
    async with bench.database.begin() as connection:
        await blobs.put(connection, "definition", {blobs.digest_of(content): content})
        await proposals.add(
            connection, id="p1", kind="proposal", source_id=bench.source_id, name="release", path="workflows/release.yaml",
            branch="pinflow/proposals/p1", message="Change it\n\nSince we must.\n\nPinflow-Proposal: p1\n",
            digest=blobs.digest_of(content), requested_by="ada", pull_request=True,
        )  # fmt: skip
        await proposals.pushed(connection, "p1", commit_sha="c" * 40, base_sha="b" * 40, actor="sync")
    bench.forge.faults = ["drop"]
    await bench.settle()
    assert len(bench.forge.pulls) == 1
    said = bench.forge.pulls[0]["said"]
    assert said["title"] == "Change it"
    assert (said.get("base") or said.get("target_branch")) == "main"
    async with bench.database.read() as connection:
        row = await proposals.by_id(connection, "p1")
    assert row is not None
    assert row["url"] == "https://forge.example.test/pulls/1"
