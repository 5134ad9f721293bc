"""What the forges are told, whatever they drop, delay and repeat."""

from __future__ import annotations

import asyncio
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
from tests.support.syncing import until

KINDS = ("github", "gitlab", "gitea")
whatever_the_kind = pytest.mark.parametrize("bench", ["github"], indirect=True)
SUCCESS, FAILURE = {"success"}, {"failure", "failed"}


class Bench:
    """A registry, a reporter, and a forge."""

    def __init__(self, database: Database, forge: FakeForge, source_id: int) -> None:
        self.database = database
        self.registry = WorkflowRegistry(database)
        self.forge = forge
        self.source_id = source_id
        self.now = 1000.0
        self.reporter = self._reporter()
        self._numbers = itertools.count(1)

    def _reporter(self) -> Reporter:
        settings = ForgeSettings(
            name="forge", kind=self.forge.kind, api=self.forge.api, hosts=("forge.example.test",), token_env="FORGE_TOKEN"
        )  # fmt: skip
        url = "https://forge.example.test/ada/flows.git"
        watched = {name: SourceSettings(name=name, url=url) for name in ("main", "other")}
        return Reporter(
            self.database,
            [settings],
            lambda: watched,
            public_url="https://pinflow.example.test/",
            clock=lambda: self.now,
        )

    async def publish(
        self,
        subject: str = "Change",
        *,
        problems: tuple[Problem, ...] = (),
        sha: str = "",
        source: str = "main",
        empty: bool = False,
    ) -> str:
        """A revision, as the daemon registers it; its commit. `empty` deploys nothing."""
        async with self.database.begin() as connection:
            source_id = await sources.ensure(
                connection,
                name=source,
                url="https://forge.example.test/ada/flows.git",
                branch="main",
                folder="workflows",
            )
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
                source_id=source_id,
                source=source,
                folder="workflows",
                commit=Commit(sha, "", "", "Ada", "ada@example.test", "Ada", now, subject),
                expected=await self.registry.cursor(source_id),
                deploys=() if problems or empty else (version,),
                problems=problems,
            )
        )
        return sha

    async def settle(self, passes: int = 40) -> None:
        """Passes until nothing is left to be told, without waiting for the pauses in between."""
        for _ in range(passes):
            if not await self.later():
                return
        raise AssertionError(await self.rows("SELECT * FROM forge_messages"))

    async def later(self, seconds: float = 3600.0) -> int:
        """One pass after so long, in which all that waits has become due; how many messages there were."""
        self.now += seconds
        await self.rows("UPDATE forge_messages SET due_at = now() WHERE sent_at IS NULL")
        return await self.reporter.pass_once()

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
    bad = ["drop", "refuse", "500", "429", "spent", "secondary", "quota", "garbage", "403", "404", "ok"]
    bench.forge.faults = chance.choices(bad, k=25)
    expected = {}
    for _ in range(6):
        refused = chance.random() < 0.5
        sha = await bench.publish(problems=(PROBLEM,) if refused else ())
        expected[sha] = FAILURE if refused else SUCCESS
    await bench.settle()
    for sha, states in expected.items():
        assert bench.forge.last(sha, "pinflow/main") in states
        assert len([each for each in bench.forge.statuses if each["sha"] == sha]) == 1
    assert await bench.rows("SELECT 1 FROM forge_messages WHERE sent_at IS NULL") == []


@pytest.mark.parametrize("point", ["forge.before_send", "forge.after_send"])
async def test_a_daemon_that_dies_around_a_call_leaves_it_to_the_next_and_nothing_is_doubled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Nothing of the dead one runs on: its messages are due again when their lease is over."""
    sha = await bench.publish("Ship it (#13)")
    await propose(bench)
    monkeypatch.setenv("PINFLOW_FAULTS", f"{point}=hang")
    dying = asyncio.create_task(bench.later())
    told = {"forge.before_send": 0, "forge.after_send": 3}[point]

    async def reached() -> bool:
        forge = bench.forge
        return len(forge.statuses) + len(forge.comments) + len(forge.pulls) == told and await claimed(bench)

    await until(reached, "all are where the daemon dies")
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    monkeypatch.delenv("PINFLOW_FAULTS")
    assert await bench.rows("SELECT 1 FROM forge_messages WHERE sent_at IS NOT NULL") == []
    await bench.settle()
    assert bench.forge.last(sha, "pinflow/main") in SUCCESS
    assert (len(bench.forge.statuses), len(bench.forge.comments), len(bench.forge.pulls)) == (1, 1, 1)


async def claimed(bench: Bench) -> bool:
    """Whether all that waits was taken by somebody."""
    return not await bench.rows("SELECT 1 FROM forge_messages WHERE attempts = 0") and bool(
        await bench.rows("SELECT 1 FROM forge_messages")
    )


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


async def test_a_refusal_is_given_up_in_the_end_and_stops_no_other(bench: Bench) -> None:
    first = await bench.publish()
    bench.forge.faults = ["422"] * 8
    for _ in range(7):
        assert await bench.later() == 1
    assert (await bench.rows("SELECT parked_at FROM forge_messages"))[0]["parked_at"] is None
    assert await bench.later() == 1
    assert await bench.later() == 0
    [row] = await bench.rows("SELECT last_error, parked_at FROM forge_messages")
    assert row["parked_at"] is not None
    assert row["last_error"] == "the forge answers 422: no; not like this"
    fault = (await ForgeService(bench.database, []).faults())["main"]
    assert (fault["waiting"], fault["parked"]) == (0, 1)
    assert "422" in fault["error"]
    sha = await bench.publish()
    await bench.settle()
    assert bench.forge.last(sha, "pinflow/main") in SUCCESS
    assert bench.forge.last(first, "pinflow/main") == ""
    # Somebody has seen to it, and says so by `pinflow sync now`.
    await ForgeService(bench.database, []).tell_again("main")
    await bench.settle()
    assert bench.forge.last(first, "pinflow/main") in SUCCESS


@whatever_the_kind
async def test_a_forge_that_was_away_for_hours_has_refused_nothing(bench: Bench) -> None:
    sha = await bench.publish()
    bench.forge.faults = ["500"] * 30
    for _ in range(30):
        assert await bench.later() == 1
    bench.forge.faults = ["422"] * 7
    for _ in range(7):
        assert await bench.later() == 1
    await bench.settle()
    assert bench.forge.last(sha, "pinflow/main") in SUCCESS


@whatever_the_kind
async def test_a_forge_that_is_away_is_asked_seldom_however_much_waits(bench: Bench) -> None:
    shas = [await bench.publish() for _ in range(40)]
    bench.forge.faults = ["500"] * 10_000
    for _ in range(90):  # an hour and a half
        await bench.later(60.0)
    assert len(bench.forge.asked) <= 8 * 25, "a pause is twice the one before it, up to five minutes"
    bench.forge.faults = []
    await bench.later(301.0)
    await bench.settle()
    assert {bench.forge.last(sha, "pinflow/main") for sha in shas} <= SUCCESS


@whatever_the_kind
@pytest.mark.parametrize("limit", ["spent", "quota", "secondary"])
async def test_a_forge_that_has_had_enough_is_left_alone_for_as_long_as_it_says(
    bench: Bench, limit: str
) -> None:
    for _ in range(12):
        await bench.publish()
    bench.forge.faults = [limit]
    await bench.later()
    asked = len(bench.forge.asked)
    pause = 55.0 if limit == "secondary" else 1790.0
    assert await bench.later(pause) == 0
    assert len(bench.forge.asked) == asked
    assert await bench.later(20.0) > 0
    await bench.settle()
    assert len({each["sha"] for each in bench.forge.statuses}) == 12


async def test_a_token_that_is_refused_says_what_to_do_and_what_waits_goes_out_when_it_is_mended(
    bench: Bench,
) -> None:
    shas = [await bench.publish() for _ in range(3)]
    bench.forge.token = "another"
    for _ in range(30):
        await bench.later()
    fault = (await ForgeService(bench.database, []).faults())["main"]
    assert (fault["waiting"], fault["parked"]) == (3, 0)
    assert "401: Bad credentials; give the daemon a token that is valid (FORGE_TOKEN)" in fault["error"]
    assert "forge-token" not in fault["error"]
    bench.forge.token = "forge-token"
    await bench.settle()
    assert {bench.forge.last(sha, "pinflow/main") for sha in shas} <= SUCCESS
    assert await ForgeService(bench.database, []).faults() == {}


@whatever_the_kind
async def test_a_token_with_too_few_rights_says_of_which_repository_and_is_waited_for(bench: Bench) -> None:
    sha = await bench.publish()
    bench.forge.faults = ["403"] * 20
    for _ in range(20):
        await bench.later()
    fault = (await ForgeService(bench.database, []).faults())["main"]
    assert (fault["waiting"], fault["parked"]) == (1, 0)
    assert "403: no" in fault["error"]
    assert "the token (FORGE_TOKEN) must be allowed to set statuses and to write on pull requests of ada/flows" in fault["error"]  # fmt: skip
    await bench.settle()
    assert bench.forge.last(sha, "pinflow/main") in SUCCESS


@whatever_the_kind
async def test_a_commit_that_names_a_pull_request_which_is_not_there_stops_no_other(bench: Bench) -> None:
    bench.forge.absent = {99}
    await bench.publish("Ship it (#99)")
    await bench.settle()
    [row] = await bench.rows("SELECT last_error FROM forge_messages WHERE parked_at IS NOT NULL")
    assert "404: Not Found; there is no such thing" in row["last_error"]
    sha = await bench.publish("Ship it (#100)")
    assert await bench.later(1.0) == 2
    assert bench.forge.last(sha, "pinflow/main") in SUCCESS
    assert [each["number"] for each in bench.forge.comments] == [100]


@whatever_the_kind
async def test_a_message_of_a_week_ago_is_given_up(bench: Bench) -> None:
    await bench.publish()
    bench.forge.faults = ["500"] * 3
    await bench.later()
    await bench.rows("UPDATE forge_messages SET created_at = now() - interval '8 days'")
    await bench.later()
    assert (await bench.rows("SELECT parked_at FROM forge_messages"))[0]["parked_at"] is not None


# --- comments -----------------------------------------------------------------------------------------------------


async def test_a_pull_request_has_one_comment_however_many_sources_and_commits_name_it(bench: Bench) -> None:
    await bench.publish("Ship it (#13)", problems=(PROBLEM,))
    await bench.settle()
    assert "was refused" in bench.forge.comments[0]["body"]
    await bench.publish("Ship it (#13)", source="other")
    newest = await bench.publish("Ship it again (#13)")
    await bench.settle()
    (comment,) = bench.forge.comments
    assert "was refused" not in comment["body"]
    assert newest[:12] in comment["body"]
    assert comment["body"].index("source `main`") < comment["body"].index("source `other`")


@whatever_the_kind
async def test_a_pull_request_that_changes_no_definition_gets_no_comment(bench: Bench) -> None:
    sha = await bench.publish("Docs (#14)", empty=True)
    await bench.settle()
    assert bench.forge.comments == []
    assert bench.forge.last(sha, "pinflow/main") in SUCCESS


async def test_our_comment_is_found_behind_many_others_and_doubled_ones_go(bench: Bench) -> None:
    talk = [{"id": number, "number": 13, "body": "hm"} for number in range(1, 251)]
    bench.forge.comments = list(talk)
    await bench.publish("Ship it (#13)", problems=(PROBLEM,))
    await bench.settle()
    ours = bench.forge.comments[-1]
    bench.forge.comments.append({**ours, "id": 900})
    await bench.publish("Ship it (#13)")
    await bench.settle()
    assert [each["id"] for each in bench.forge.comments] == [*range(1, 251), ours["id"]]
    assert "`release` is deployed" in bench.forge.comments[-1]["body"]


async def test_a_copy_of_our_marker_in_a_strangers_comment_is_passed_by(bench: Bench) -> None:
    marker = "<!-- pinflow:live:https://pinflow.example.test -->"
    bench.forge.comments = [{"id": 1, "number": 13, "body": f"{marker} all is well", "of_a_stranger": True}]
    for _ in range(2):
        await bench.publish("Ship it (#13)")
        await bench.settle()
    stranger, ours = bench.forge.comments
    assert stranger["body"] == f"{marker} all is well"
    assert "`release` is deployed" in ours["body"]


async def test_an_answer_that_quotes_our_comment_is_left_alone(bench: Bench) -> None:
    quote = "> <!-- pinflow:live:https://pinflow.example.test -->\n> deployed\n\nThank you!"
    bench.forge.comments = [{"id": 1, "number": 13, "body": quote}]
    for _ in range(2):
        await bench.publish("Ship it (#13)")
        await bench.settle()
    theirs, ours = bench.forge.comments
    assert theirs["body"] == quote
    assert "`release` is deployed" in ours["body"]


async def test_an_answer_without_end_is_cut_off(bench: Bench) -> None:
    bench.forge.faults = ["huge"] * 30
    await bench.publish()
    await bench.settle()
    assert "more than" in (await bench.rows("SELECT last_error FROM forge_messages"))[0]["last_error"]


@whatever_the_kind
async def test_a_token_that_is_not_set_is_told_by_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_TOKEN")
    sha = await bench.publish()
    await bench.later()
    assert "FORGE_TOKEN" in (await bench.rows("SELECT last_error FROM forge_messages"))[0]["last_error"]
    monkeypatch.setenv("FORGE_TOKEN", "forge-token")
    await bench.settle()
    assert bench.forge.last(sha, "pinflow/main") in SUCCESS


async def test_a_proposal_that_asks_for_it_gets_one_pull_request(bench: Bench) -> None:
    await propose(bench)
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


async def propose(bench: Bench) -> None:
    """A proposal that is on its remote and wants a pull request."""
    content = b"name: release\n"
    async with bench.database.begin() as connection:
        await blobs.put(connection, "definition", {blobs.digest_of(content): content})
        await proposals.add(
            connection, id="p1", kind="proposal", source_id=bench.source_id, name="release", path="workflows/release.yaml",
            branch="pinflow/proposals/p1", message="Change it\n\nSince we must.\n\nPinflow-Proposal: p1\n",
            digest=blobs.digest_of(content), requested_by="ada", pull_request=True,
        )  # fmt: skip
        await proposals.pushed(connection, "p1", commit_sha="c" * 40, base_sha="b" * 40, actor="sync")


async def test_what_a_pull_request_waits_for_is_told_with_its_proposal(bench: Bench) -> None:
    await propose(bench)
    bench.forge.faults = ["422", "422"]
    await bench.later()
    async with bench.database.read() as connection:
        row = await proposals.by_id(connection, "p1")
    assert row is not None
    assert "422: no; not like this" in row["pull_request_error"]
    await bench.settle()
    async with bench.database.read() as connection:
        row = await proposals.by_id(connection, "p1")
    assert row is not None
    assert (row["url"], row["pull_request_error"]) == ("https://forge.example.test/pulls/1", "")
