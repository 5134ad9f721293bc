"""Definitions whose functions are not there, or cannot be had, change nothing; each fault is told where it stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.git import Repository
from tests.support.syncing import Syncing, flow

Make = Callable[..., Syncing]
LIB = "workflows/functions/lib.py"
LOCK = "workflows/functions/requirements.txt"
RUN = "def run(): return 1\n"
OTHER = "def other(): return 2\n"
A, B, PLAIN = "workflows/a.yaml", "workflows/b.yaml", "workflows/plain.yaml"


@pytest.fixture
def isolated(make_syncing: Make) -> Syncing:
    return make_syncing(mode="isolated")


def two_callers(git_repo: Repository) -> str:
    return git_repo.commit(
        {
            A: flow("a", function="lib:run"),
            B: flow("b", function="lib:other"),
            PLAIN: flow("plain"),
            LIB: RUN + OTHER,
        }
    )


async def shas(syncing: Syncing) -> dict[str, str]:
    return {name: sha for name, (sha, _) in (await syncing.live()).items()}


async def bundles(syncing: Syncing) -> dict[str, str]:
    return {row["name"]: row["bundle_digest"] for row in await syncing.registry.workflows(limit=10)}


async def test_a_new_definition_whose_function_is_not_there_is_rejected(
    syncing: Syncing, git_repo: Repository
) -> None:
    first = two_callers(git_repo)
    await syncing.sync()
    tip = git_repo.commit({"workflows/c.yaml": flow("c", function="lib:runs")})
    assert (await syncing.sync()).condition == "Rejected"
    (revision,) = await syncing.registry.revision(tip)
    (problem,) = revision["problems"]
    assert (problem["file"], problem["line"], problem["column"]) == ("workflows/c.yaml", 4, 67)
    assert problem["message"] == "module `lib` has no function `runs`"
    assert set((await shas(syncing)).values()) == {first}


async def test_functions_that_vanish_are_told_in_the_definitions_that_call_them(
    syncing: Syncing, git_repo: Repository
) -> None:
    first = two_callers(git_repo)
    await syncing.sync()
    tip = git_repo.commit({LIB: OTHER, PLAIN: flow("plain", "2")})
    assert (await syncing.sync()).condition == "Rejected"
    assert await syncing.problems(tip) == [(A, 4, "FUNCTION")]
    gone = git_repo.commit({LIB: None})
    assert (await syncing.sync()).condition == "Rejected"
    assert await syncing.problems(gone) == [(A, 4, "FUNCTION"), (B, 4, "FUNCTION")]
    assert set((await shas(syncing)).values()) == {first}
    back = git_repo.commit({LIB: RUN + OTHER})
    assert (await syncing.sync()).condition == "Synced"
    assert await shas(syncing) == {"a": first, "b": first, "plain": back}


async def test_a_caller_that_goes_with_its_function_is_no_problem(
    syncing: Syncing, git_repo: Repository
) -> None:
    two_callers(git_repo)
    await syncing.sync()
    git_repo.commit({LIB: OTHER, A: None})
    assert (await syncing.sync()).condition == "Synced"
    assert set(await syncing.live()) == {"b", "plain"}


async def test_a_definition_whose_function_vanished_keeps_its_last_good_version(
    isolated: Syncing, git_repo: Repository
) -> None:
    first = two_callers(git_repo)
    await isolated.sync()
    before = await bundles(isolated)
    second = git_repo.commit({LIB: OTHER, PLAIN: flow("plain", "2")})
    assert (await isolated.sync()).reason == "FilesKept"
    assert await isolated.problems(second) == [(A, 4, "FUNCTION")]
    assert await shas(isolated) == {"a": first, "b": second, "plain": second}
    after = await bundles(isolated)
    assert (after["a"], after["b"] == before["b"]) == (before["a"], False)
    third = git_repo.commit({PLAIN: flow("plain", "3")})
    assert (await isolated.sync()).reason == "FilesKept"
    assert await isolated.problems(third) == [(A, 4, "FUNCTION")], "it stays until it is mended"
    assert (await shas(isolated))["a"] == first
    fourth = git_repo.commit({LIB: RUN + OTHER + "# anew\n"})
    assert (await isolated.sync()).condition == "Synced"
    assert await shas(isolated) == {"a": fourth, "b": fourth, "plain": third}


async def test_a_lock_that_is_none_rejects_the_commit_at_its_line(
    syncing: Syncing, git_repo: Repository
) -> None:
    two_callers(git_repo)
    await syncing.sync()
    tip = git_repo.commit({LOCK: "idna==3.7\nhttpx>=0.28\n"})
    assert (await syncing.sync()).condition == "Rejected"
    assert await syncing.problems(tip) == [(LOCK, 2, "FUNCTION_LOCK")]
    git_repo.commit({LOCK: "idna==3.7\nhttpx==0.28\n"})
    assert (await syncing.sync()).condition == "Synced"


async def test_nobody_takes_functions_whose_lock_is_none_and_others_go_on(
    isolated: Syncing, git_repo: Repository
) -> None:
    first = two_callers(git_repo)
    await isolated.sync()
    bad = {LOCK: "httpx>=0.28\n", A: flow("a", "2", function="lib:run"), PLAIN: flow("plain", "2")}
    second = git_repo.commit(bad)
    assert (await isolated.sync()).reason == "FilesKept"
    assert await isolated.problems(second) == [(A, 0, "FUNCTION_LOCK"), (LOCK, 1, "FUNCTION_LOCK")]
    assert await shas(isolated) == {"a": first, "b": first, "plain": second}
    third = git_repo.commit({"README.md": "x"})
    assert (await isolated.sync()).reason == "FilesKept"
    assert await isolated.problems(third) == await isolated.problems(second)
    fourth = git_repo.commit({LOCK: "httpx==0.28\n"})
    assert (await isolated.sync()).condition == "Synced"
    assert await shas(isolated) == {"a": fourth, "b": fourth, "plain": second}


async def test_a_second_look_at_functions_that_are_missing_writes_nothing(
    isolated: Syncing, git_repo: Repository
) -> None:
    two_callers(git_repo)
    await isolated.sync()
    git_repo.commit({LIB: OTHER, LOCK: "httpx>=0.28\n"})
    await isolated.sync()
    await isolated.registry.request_sync("main")
    assert (await isolated.sync()).reason == "FilesKept"
    assert len(await isolated.revisions()) == 2


async def test_a_module_of_a_package_that_the_operator_allows_may_be_called(
    make_syncing: Make, git_repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncing = make_syncing()
    git_repo.commit({A: flow("a", function="acme.jobs:run")})
    assert (await syncing.sync()).condition == "Rejected"
    monkeypatch.setattr(syncing.reconciler._checker, "packages", frozenset({"acme"}))
    await syncing.registry.request_sync("main")
    assert (await syncing.sync()).condition == "Synced"


async def test_a_commit_that_changes_neither_reads_no_functions(
    syncing: Syncing, git_repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_callers(git_repo)
    await syncing.sync()

    async def never(*_: object) -> None:
        raise AssertionError("nobody asked for functions")

    monkeypatch.setattr(syncing.reconciler._checker, "names", never)
    monkeypatch.setattr(syncing.reconciler._registry, "contents", never)
    git_repo.commit({PLAIN: flow("plain", "2")})
    assert (await syncing.sync()).condition == "Synced"
