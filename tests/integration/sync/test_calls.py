"""A commit whose definitions do not fit together changes nothing; each fault stands in the caller's file."""

from __future__ import annotations

from tests.support.syncing import Syncing

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
