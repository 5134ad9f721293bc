"""A commit whose definitions do not fit together changes nothing; each fault stands in the caller's file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.syncing import Syncing

Make = Callable[..., Syncing]
CHILD = """\
name: smoke
inputs: {type: object, required: [service], properties: {service: {type: string}}}
tasks: [{id: only, type: set, values: {a: "${{ inputs.service }}"}}]
"""
PARENT = """\
name: release
tasks:
  - {id: first, type: set, values: {a: 1}}
  - {id: smoke, type: workflow, depends_on: [first], workflow: smoke, inputs: {service: web}}
"""
OTHER = "name: other\ntasks: [{id: only, type: set, values: {a: 1}}]\n"


async def told(syncing: Syncing, sha: str) -> list[str]:
    """`file:line: message` of each problem of a rejected commit."""
    (revision,) = await syncing.registry.revision(sha)
    return [f"{each['file']}:{each['line']}: {each['message']}" for each in revision["problems"]]


async def test_a_parent_and_its_child_are_registered_and_pinned_together(syncing: Syncing) -> None:
    sha = syncing.repository.commit({"workflows/release.yaml": PARENT, "workflows/smoke.yaml": CHILD})
    await syncing.sync()
    pin = (await syncing.registry.pin("release")).pin
    assert pin.calls == {"smoke@same": f"main/smoke@{sha}"}


async def test_a_missing_child_is_told_where_it_is_called(syncing: Syncing) -> None:
    first = syncing.repository.commit({"workflows/other.yaml": OTHER})
    await syncing.sync()
    sha = syncing.repository.commit({"workflows/release.yaml": PARENT})
    assert (await syncing.sync()).condition == "Rejected"
    assert await told(syncing, sha) == ["workflows/release.yaml:4: there is no workflow `smoke`"]
    assert await syncing.live() == {"other": (first, "workflows/other.yaml")}


async def test_a_child_that_others_call_cannot_be_retired(syncing: Syncing) -> None:
    syncing.repository.commit(
        {"workflows/release.yaml": PARENT, "workflows/smoke.yaml": CHILD, "workflows/other.yaml": OTHER}
    )
    await syncing.sync()
    sha = syncing.repository.commit({"workflows/smoke.yaml": None})
    await syncing.sync()
    assert await told(syncing, sha) == ["workflows/release.yaml:4: there is no workflow `smoke`"]
    assert set(await syncing.live()) == {"release", "smoke", "other"}
    syncing.repository.commit({"workflows/release.yaml": OTHER.replace("other", "release")})
    await syncing.sync()
    assert set(await syncing.live()) == {"release", "other"}


async def test_a_renamed_child_is_missing_for_its_callers(syncing: Syncing) -> None:
    syncing.repository.commit({"workflows/release.yaml": PARENT, "workflows/smoke.yaml": CHILD})
    await syncing.sync()
    sha = syncing.repository.commit({"workflows/smoke.yaml": CHILD.replace("name: smoke", "name: smokes")})
    await syncing.sync()
    assert await told(syncing, sha) == ["workflows/release.yaml:4: there is no workflow `smoke`"]


async def test_a_child_whose_inputs_no_longer_fit_is_told_in_the_unchanged_caller(syncing: Syncing) -> None:
    syncing.repository.commit({"workflows/release.yaml": PARENT, "workflows/smoke.yaml": CHILD})
    await syncing.sync()
    sha = syncing.repository.commit(
        {"workflows/smoke.yaml": CHILD.replace("service: {type: string}", "service: {type: integer}")}
    )
    await syncing.sync()
    (said,) = await told(syncing, sha)
    assert said.startswith("workflows/release.yaml:4: `smoke`:")
    both = {
        "workflows/smoke.yaml": CHILD.replace("service: {type: string}", "service: {type: integer}"),
        "workflows/release.yaml": PARENT.replace("service: web", "service: 7"),
    }
    syncing.repository.commit(both)
    assert (await syncing.sync()).condition == "Synced"


async def test_a_circle_that_a_change_closes_through_unchanged_definitions_is_refused(
    syncing: Syncing,
) -> None:
    def calling(name: str, child: str) -> str:
        return f"name: {name}\ntasks: [{{id: c, type: workflow, workflow: {child}}}]\n"

    syncing.repository.commit(
        {
            "workflows/a.yaml": calling("a", "b"),
            "workflows/b.yaml": calling("b", "c"),
            "workflows/c.yaml": OTHER.replace("other", "c"),
        }
    )
    await syncing.sync()
    assert set(await syncing.live()) == {"a", "b", "c"}
    sha = syncing.repository.commit({"workflows/c.yaml": calling("c", "a")})
    await syncing.sync()
    (said,) = await told(syncing, sha)
    assert "without end: a -> b -> c -> a" in said


async def test_a_change_beside_callers_looks_at_none_of_them(syncing: Syncing) -> None:
    syncing.repository.commit(
        {"workflows/release.yaml": PARENT, "workflows/smoke.yaml": CHILD, "workflows/other.yaml": OTHER}
    )
    await syncing.sync()
    sha = syncing.repository.commit({"workflows/other.yaml": OTHER + "description: changed\n"})
    assert (await syncing.sync()).condition == "Synced"
    assert (await syncing.live())["other"][0] == sha


async def test_a_latest_child_that_is_nowhere_is_missing_as_well(syncing: Syncing) -> None:
    latest = PARENT.replace("workflow: smoke,", "workflow: smoke, ref: latest,")
    syncing.repository.commit({"workflows/other.yaml": OTHER})
    await syncing.sync()
    sha = syncing.repository.commit({"workflows/release.yaml": latest})
    assert (await syncing.sync()).condition == "Rejected"
    assert await told(syncing, sha) == ["workflows/release.yaml:4: there is no workflow `smoke`"]
    syncing.repository.commit({"workflows/smoke.yaml": CHILD})
    assert (await syncing.sync()).condition == "Synced"
    sha = syncing.repository.commit(
        {"workflows/smoke.yaml": CHILD.replace("service: {type: string}", "service: {type: integer}")}
    )
    assert (await syncing.sync()).condition == "Rejected"
    assert (await told(syncing, sha))[0].startswith("workflows/release.yaml:4: `smoke`:")


async def test_a_child_of_an_older_commit_is_not_looked_for_in_this_one(syncing: Syncing) -> None:
    first = syncing.repository.commit({"workflows/smoke.yaml": CHILD, "workflows/other.yaml": OTHER})
    await syncing.sync()
    pinned = PARENT.replace("workflow: smoke,", f"workflow: smoke, ref: {first},")
    syncing.repository.commit({"workflows/release.yaml": pinned, "workflows/smoke.yaml": None})
    assert (await syncing.sync()).condition == "Synced"
    assert (await syncing.registry.pin("release")).pin.calls == {f"smoke@{first}": f"main/smoke@{first}"}


# --- isolated: what does not fit is held back, and the rest goes on -------------------------------------------------

STRICTER = CHILD.replace("service: {type: string}", "service: {type: integer}")


@pytest.fixture
def isolated(make_syncing: Make) -> Syncing:
    return make_syncing(mode="isolated")


async def shas(syncing: Syncing) -> dict[str, str]:
    return {name: sha for name, (sha, _) in (await syncing.live()).items()}


async def family(syncing: Syncing) -> str:
    files = {"workflows/release.yaml": PARENT, "workflows/smoke.yaml": CHILD, "workflows/other.yaml": OTHER}
    first = syncing.repository.commit({**files})
    await syncing.sync()
    return first


async def test_a_child_that_no_longer_fits_an_untouched_caller_keeps_its_last_good_version(
    isolated: Syncing,
) -> None:
    first = await family(isolated)
    second = isolated.repository.commit(
        {"workflows/smoke.yaml": STRICTER, "workflows/other.yaml": OTHER + "description: changed\n"}
    )
    assert (await isolated.sync()).reason == "FilesKept"
    assert await shas(isolated) == {"release": first, "smoke": first, "other": second}
    (said,) = await told(isolated, second)
    assert said.startswith(
        "workflows/smoke.yaml:1: smoke keeps its last good version: release calls it as it was "
        "(workflows/release.yaml:4:"
    )
    third = isolated.repository.commit({"README.md": "unrelated"})
    assert (await isolated.sync()).reason == "FilesKept"
    assert await told(isolated, third) == [said]
    assert (await isolated.registry.pin("release")).pin.calls == {"smoke@same": f"main/smoke@{third}"}
    fourth = isolated.repository.commit(
        {"workflows/release.yaml": PARENT.replace("service: web", "service: 7")}
    )
    assert (await isolated.sync()).condition == "Synced"
    assert await shas(isolated) == {"release": fourth, "smoke": fourth, "other": second}


async def test_a_child_that_an_untouched_caller_needs_is_not_retired(isolated: Syncing) -> None:
    first = await family(isolated)
    second = isolated.repository.commit(
        {"workflows/smoke.yaml": None, "workflows/other.yaml": OTHER + "description: changed\n"}
    )
    assert (await isolated.sync()).reason == "FilesKept"
    assert await shas(isolated) == {"release": first, "smoke": first, "other": second}
    assert await isolated.problems(second) == [("workflows/smoke.yaml", 0, "NOT_RETIRED")]
    isolated.repository.commit({"workflows/release.yaml": None})
    assert (await isolated.sync()).condition == "Synced"
    assert set(await isolated.live()) == {"other"}


async def test_a_bad_caller_that_is_kept_keeps_the_child_that_it_calls(isolated: Syncing) -> None:
    first = await family(isolated)
    second = isolated.repository.commit(
        {"workflows/smoke.yaml": STRICTER, "workflows/release.yaml": "name: release\ntasks: []\n"}
    )
    assert (await isolated.sync()).reason == "FilesKept"
    assert await shas(isolated) == {"release": first, "smoke": first, "other": first}
    assert [file for file, _, _ in await isolated.problems(second)] == [
        "workflows/release.yaml",
        "workflows/smoke.yaml",
    ]


async def test_a_new_caller_that_does_not_fit_is_the_bad_one(isolated: Syncing) -> None:
    first = await family(isolated)
    second = isolated.repository.commit(
        {
            "workflows/release.yaml": PARENT.replace("workflow: smoke", "workflow: smokes"),
            "workflows/smoke.yaml": CHILD + "description: changed\n",
        }
    )
    assert (await isolated.sync()).reason == "FilesKept"
    assert await shas(isolated) == {"release": first, "smoke": second, "other": first}
    assert await isolated.problems(second) == [("workflows/release.yaml", 4, "CALL")]


async def test_who_closes_a_circle_through_untouched_files_is_held_back(isolated: Syncing) -> None:
    def calling(name: str, child: str) -> str:
        return f"name: {name}\ntasks: [{{id: c, type: workflow, workflow: {child}}}]\n"

    first = isolated.repository.commit(
        {
            "workflows/a.yaml": calling("a", "b"),
            "workflows/b.yaml": calling("b", "c"),
            "workflows/c.yaml": OTHER.replace("other", "c"),
            "workflows/other.yaml": OTHER,
        }
    )
    await isolated.sync()
    second = isolated.repository.commit(
        {"workflows/c.yaml": calling("c", "a"), "workflows/other.yaml": OTHER + "description: changed\n"}
    )
    assert (await isolated.sync()).reason == "FilesKept"
    assert await shas(isolated) == {"a": first, "b": first, "c": first, "other": second}
    assert await isolated.problems(second) == [("workflows/c.yaml", 1, "CALL_CYCLE")]
