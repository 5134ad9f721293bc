"""What a run may start is resolved once, and no merge changes any of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import InvalidDefinition
from engine.registry.closure import digest_of, reachable
from engine.registry.revisions import VersionContent
from engine.storage.database import Database
from tests.integration.registry.test_workflow_registry import Publisher, sha_of, version


def calling(name: str, *calls: str, body: str = "1") -> VersionContent:
    """A version with a task for each of `calls`, written `name@ref`."""
    said = [dict(zip(("workflow", "ref"), call.split("@"), strict=True)) for call in calls]
    return replace(version(name, body), calls=said)


async def test_same_is_the_child_at_the_callers_own_revision(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish(
        "one", calling("root", "child@same"), calling("child", "leaf@same"), version("leaf")
    )
    second = await publisher.publish("two", version("leaf", "2"))
    old = (await publisher.registry.pin("root", first)).pin
    new = (await publisher.registry.pin("root")).pin
    assert old.calls == {"child@same": f"main/child@{first}"}
    assert old.closure[f"main/child@{first}"]["calls"] == {"leaf@same": f"main/leaf@{first}"}
    assert old.closure[f"main/leaf@{first}"]["commit_sha"] == first
    assert new.commit_sha == first, "a merge of the leaf alone makes no version of its callers"
    assert new.closure[f"main/leaf@{second}"]["commit_sha"] == second
    assert new.closure[f"main/child@{second}"]["commit_sha"] == first
    assert digest_of(old.calls, old.closure) != digest_of(new.calls, new.closure)


async def test_latest_and_commits_are_resolved_at_the_start(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", version("child"))
    pinned = calling("root", "child@latest", f"child@{first[:8]}")
    second = await publisher.publish("two", pinned, version("child", "2"))
    third = await publisher.publish("three", version("child", "3"))
    pin = (await publisher.registry.pin("root", second)).pin
    assert pin.closure[pin.calls["child@latest"]]["commit_sha"] == third
    assert pin.closure[pin.calls[f"child@{first[:8]}"]]["commit_sha"] == first


async def test_same_of_a_child_at_another_commit_is_that_commit(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", calling("child", "leaf@same"), version("leaf"))
    second = await publisher.publish(
        "two", calling("root", f"child@{first}", "leaf@same"), version("leaf", "2")
    )
    pin = (await publisher.registry.pin("root")).pin
    assert {key: each["commit_sha"] for key, each in pin.closure.items()} == {
        f"main/child@{first}": first,
        f"main/leaf@{first}": first,
        f"main/leaf@{second}": second,
    }


async def test_an_entry_holds_all_that_a_child_is_started_with(database: Database) -> None:
    publisher = Publisher(database)
    sha = await publisher.publish("one", calling("root", "child@same"), version("child"))
    child = version("child")
    assert (await publisher.registry.pin("root")).pin.closure == {
        f"main/child@{sha}": {
            "workflow": "child",
            "source": "main",
            "commit_sha": sha,
            "revision_sha": sha,
            "digest": child.digest,
            "compiled_digest": child.compiled_digest,
            "bundle_digest": "",
            "dsl": "1",
            "size": len(child.compiled or b""),
            "calls": {},
        }
    }


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("child@same", r"root calls child@same, and no workflow child was deployed at commit"),
        ("child@latest", r"no workflow child was deployed"),
        ("child@abcd1234", r"at commit abcd1234, which is not registered"),
        ("other/child@latest", r"the source other, which has none live"),
    ],
)
async def test_a_child_that_is_not_there_is_told_at_the_start(
    database: Database, call: str, said: str
) -> None:
    publisher = Publisher(database)
    await publisher.publish("one", calling("root", call))
    with pytest.raises(InvalidDefinition, match=said):
        await publisher.registry.pin("root")
    assert (await publisher.registry.resolve("root")).pin.closure == {}


async def test_a_child_at_a_short_sha_of_two_commits_is_an_error_that_names_both(database: Database) -> None:
    publisher = Publisher(database)
    await publisher.publish("one", calling("root", "child@abcd"), version("child"))
    shas = ["abcd" + end * 36 for end in "01"]
    for sha in shas:
        plan = await publisher.plan("x")
        await publisher.registry.publish(replace(plan, commit=replace(plan.commit, sha=sha)))
    with pytest.raises(InvalidDefinition, match="at commit abcd, which is ambiguous") as caught:
        await publisher.registry.pin("root")
    assert all(sha[:16] in str(caught.value) for sha in shas)


async def test_a_retired_child_is_still_there_for_older_commits(database: Database) -> None:
    publisher = Publisher(database)
    first = await publisher.publish("one", calling("root", "child@same"), version("child"))
    await publisher.publish("two", version("root", "2"), retires=("child",))
    assert (await publisher.registry.pin("root", first)).pin.closure[f"main/child@{first}"][
        "commit_sha"
    ] == first


async def test_calls_that_go_round_are_refused_with_their_way(database: Database) -> None:
    publisher = Publisher(database)
    await publisher.publish("one", calling("a", "b@same"), calling("b", "c@latest"), calling("c", "b@same"))
    with pytest.raises(InvalidDefinition, match=r"the calls of a go round: b → c → b"):
        await publisher.registry.pin("a")


async def test_a_child_of_another_source_is_found_by_both_names(database: Database) -> None:
    home, away = Publisher(database), Publisher(database, "away")
    sha = await away.publish("theirs", version("child"))
    await home.publish("ours", calling("root", "away/child@latest"))
    pinned = await home.registry.pin("root")
    assert list(pinned.pin.closure) == [f"away/child@{sha}"]
    assert not pinned.one_source


async def test_what_calls_lead_to_is_the_closure_of_a_child(database: Database) -> None:
    publisher = Publisher(database)
    sha = await publisher.publish(
        "one", calling("root", "a@same", "b@same"), calling("a", "c@same"), version("b"), version("c")
    )
    pin = (await publisher.registry.pin("root")).pin
    calls = pin.closure[f"main/a@{sha}"]["calls"]
    assert list(reachable(calls, pin.closure)) == [f"main/c@{sha_of('one')}"]
