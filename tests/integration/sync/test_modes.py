"""What becomes of bad files, deletions and forced pushes, by the source's settings; and what a person confirms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import Conflict, NotFound
from engine.services.callers import Caller
from engine.services.sources import SourceService
from engine.storage.database import Database
from engine.sync.reconciler import Reconciler
from tests.support.git import Repository
from tests.support.syncing import Syncing, flow

Make = Callable[..., Syncing]
OPERATOR = Caller("olga", frozenset({"operator"}))
ADMIN = Caller("ada", frozenset({"admin"}))
BAD = "name: a\ntasks: []\n"
UNREADABLE = "name: [\n"


@pytest.fixture
def isolated(make_syncing: Make) -> Syncing:
    return make_syncing(mode="isolated")


@pytest.fixture
def service(database: Database) -> SourceService:
    return SourceService(database)


async def shas(syncing: Syncing) -> dict[str, str]:
    """Name → commit that brought the live version."""
    return {name: sha for name, (sha, _) in (await syncing.live()).items()}


# --- isolated ------------------------------------------------------------------------------------------------


async def test_a_bad_file_keeps_its_last_good_version_and_the_others_go_on(
    isolated: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await isolated.sync()
    second = git_repo.commit(
        {"workflows/a.yaml": BAD, "workflows/b.yaml": flow("b", "2"), "workflows/c.yaml": flow("c")}
    )
    standing = await isolated.sync()
    assert (standing.condition, standing.reason) == ("OutOfSync", "FilesKept")
    assert "workflows/a.yaml:2:8" in standing.message
    assert await shas(isolated) == {"a": first, "b": second, "c": second}
    assert await isolated.revisions() == [(first, "REGISTERED"), (second, "REGISTERED")]
    assert [file for file, _, _ in await isolated.problems(second)] == ["workflows/a.yaml"]


async def test_the_problems_of_a_bad_file_stay_until_it_is_mended(
    isolated: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await isolated.sync()
    git_repo.commit({"workflows/a.yaml": BAD})
    await isolated.sync()
    third = git_repo.commit({"workflows/b.yaml": flow("b", "3")})
    assert (await isolated.sync()).reason == "FilesKept"
    assert [file for file, _, _ in await isolated.problems(third)] == ["workflows/a.yaml"]
    assert (await isolated.sync()).reason == "FilesKept", "a look without a commit says the same"
    mended = git_repo.commit({"workflows/a.yaml": flow("a", "4")})
    assert (await isolated.sync()).condition == "Synced"
    assert await shas(isolated) == {"a": mended, "b": third}


async def test_a_bad_file_that_is_removed_retires_what_it_kept(
    isolated: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await isolated.sync()
    git_repo.commit({"workflows/a.yaml": UNREADABLE})
    await isolated.sync()
    assert sorted(await isolated.live()) == ["a", "b"]
    git_repo.commit({"workflows/a.yaml": None})
    assert (await isolated.sync()).condition == "Synced"
    assert sorted(await isolated.live()) == ["b"]


async def test_what_may_have_moved_into_an_unreadable_file_is_not_retired(
    isolated: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await isolated.sync()
    moved = git_repo.commit({"workflows/a.yaml": None, "workflows/new/a.yaml": UNREADABLE})
    assert (await isolated.sync()).reason == "FilesKept"
    assert ("workflows/a.yaml", 0, "NOT_RETIRED") in await isolated.problems(moved)
    assert (await shas(isolated))["a"] == first
    git_repo.commit({"README.md": "unrelated"})
    await isolated.sync()
    assert (await shas(isolated))["a"] == first
    git_repo.commit({"workflows/new/a.yaml": flow("a")})
    assert (await isolated.sync()).condition == "Synced"
    assert await isolated.live() == {
        "a": (first, "workflows/new/a.yaml"),
        "b": (first, "workflows/b.yaml"),
    }


async def test_an_unreadable_file_that_goes_lets_the_lost_one_retire(
    isolated: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await isolated.sync()
    git_repo.commit({"workflows/a.yaml": None, "workflows/new.yaml": UNREADABLE})
    await isolated.sync()
    git_repo.commit({"workflows/new.yaml": None})
    assert (await isolated.sync()).condition == "Synced"
    assert sorted(await isolated.live()) == ["b"]


async def test_of_two_files_of_one_name_the_live_one_stays(isolated: Syncing, git_repo: Repository) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await isolated.sync()
    second = git_repo.commit({"workflows/x.yaml": flow("a", "2")})
    assert (await isolated.sync()).reason == "FilesKept"
    assert [code for _, _, code in await isolated.problems(second)] == ["DUPLICATE_NAME"] * 2
    assert (await isolated.live())["a"] == (first, "workflows/a.yaml")
    git_repo.commit({"workflows/a.yaml": None})
    assert (await isolated.sync()).condition == "Synced"
    assert (await isolated.live())["a"][1] == "workflows/x.yaml"


async def test_a_link_among_the_definitions_stops_no_other_file(
    isolated: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await isolated.sync()
    (git_repo.path / "workflows/a.yaml").unlink()
    (git_repo.path / "workflows/a.yaml").symlink_to("/etc/passwd")
    second = git_repo.commit({"workflows/b.yaml": flow("b", "2")})
    assert (await isolated.sync()).reason == "FilesKept"
    assert await shas(isolated) == {"a": first, "b": second}
    third = git_repo.commit({"workflows/b.yaml": flow("b", "3")})
    assert (await isolated.sync()).reason == "FilesKept"
    assert await shas(isolated) == {"a": first, "b": third}


async def test_a_kept_version_keeps_its_functions(isolated: Syncing, git_repo: Repository) -> None:
    first = git_repo.commit(
        {
            "workflows/a.yaml": flow("a", function="lib:run"),
            "workflows/b.yaml": flow("b", function="lib:run"),
            "workflows/functions/lib.py": "def run(): return 1\n",
        }
    )
    await isolated.sync()
    second = git_repo.commit(
        {"workflows/a.yaml": UNREADABLE, "workflows/functions/lib.py": "def run(): return 2\n"}
    )
    await isolated.sync()
    assert await shas(isolated) == {"a": first, "b": second}


async def test_a_definition_that_became_a_link_keeps_its_functions(
    isolated: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit(
        {
            "workflows/a.yaml": flow("a", function="lib:run"),
            "workflows/functions/lib.py": "def run(): return 1\n",
        }
    )
    await isolated.sync()
    (git_repo.path / "workflows/a.yaml").unlink()
    (git_repo.path / "workflows/a.yaml").symlink_to("/etc/passwd")
    for functions in ("def run(): return 2\n", "def walk(): return 3\n"):
        tip = git_repo.commit({"workflows/functions/lib.py": functions})
        assert (await isolated.sync()).reason == "FilesKept"
        assert await isolated.problems(tip) == [("workflows/a.yaml", 0, "SYMLINK")]
        assert await shas(isolated) == {"a": first}


async def test_a_link_among_the_functions_rejects_the_commit(isolated: Syncing, git_repo: Repository) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/functions/lib.py": "x = 1\n"})
    await isolated.sync()
    (git_repo.path / "workflows/functions/evil.py").symlink_to("/etc/passwd")
    git_repo.commit({"workflows/b.yaml": flow("b")})
    assert (await isolated.sync()).condition == "Rejected"


async def test_a_change_to_atomic_looks_at_the_bad_files_again(
    isolated: Syncing, make_syncing: Make, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await isolated.sync()
    git_repo.commit({"workflows/a.yaml": BAD})
    await isolated.sync()
    git_repo.commit({"workflows/b.yaml": flow("b", "2")})
    assert (await make_syncing(mode="atomic").sync()).condition == "Rejected"


async def test_a_second_look_at_bad_files_writes_nothing(isolated: Syncing, git_repo: Repository) -> None:
    git_repo.commit({"workflows/a.yaml": BAD, "workflows/b.yaml": flow("b")})
    await isolated.sync()
    await isolated.registry.request_sync("main")
    assert (await isolated.sync()).reason == "FilesKept"
    assert len(await isolated.revisions()) == 1


# --- what a person confirms -------------------------------------------------------------------------------------


async def test_held_deletions_are_confirmed_by_a_person(
    make_syncing: Make, git_repo: Repository, service: SourceService
) -> None:
    syncing = make_syncing(max_deletions=1)
    git_repo.commit({f"workflows/{n}.yaml": flow(n) for n in "abc"})
    await syncing.sync()
    held = git_repo.commit({f"workflows/{n}.yaml": None for n in "ab"})
    assert (await syncing.sync()).reason == "MassDeletion"
    said = await service.confirm(OPERATOR, "main", held[:10])
    assert said == {"source": "main", "commit_sha": held, "codes": ["MASS_DELETION"]}
    assert (await syncing.sync()).condition == "Synced"
    assert sorted(await syncing.live()) == ["c"]
    assert ("source.confirmed", "", held) in await syncing.audit()
    assert (await syncing.revisions())[-2:] == [(held, "REJECTED"), (held, "REGISTERED")]


async def test_a_confirmation_is_of_one_commit_and_of_what_holds_it(
    make_syncing: Make, git_repo: Repository, service: SourceService
) -> None:
    syncing = make_syncing(max_deletions=1)
    first = git_repo.commit({f"workflows/{n}.yaml": flow(n) for n in "abc"})
    with pytest.raises(NotFound, match="no source"):
        await service.confirm(OPERATOR, "main", first)
    await syncing.sync()
    with pytest.raises(Conflict, match="is not held"):
        await service.confirm(OPERATOR, "main", first)
    held = git_repo.commit({f"workflows/{n}.yaml": None for n in "ab"})
    await syncing.sync()
    with pytest.raises(Conflict, match="is not the last commit"):
        await service.confirm(OPERATOR, "main", first)
    await service.confirm(OPERATOR, "main", held)
    with pytest.raises(Conflict, match="confirmed already"):
        await service.confirm(OPERATOR, "main", held)
    # Meanwhile somebody pushed: that commit was not what the person saw.
    git_repo.commit({"README.md": "x"})
    assert (await syncing.sync()).reason == "MassDeletion"
    bad = git_repo.commit({"workflows/c.yaml": BAD})
    await syncing.sync()
    with pytest.raises(Conflict, match="no confirmation passes"):
        await service.confirm(OPERATOR, "main", bad)


@pytest.mark.parametrize(
    ("count", "percent", "gone", "held"),
    [(3, 50, 4, False), (3, 30, 4, True), (4, 30, 4, False), (0, 0, 1, True), (0, 40, 4, False)],
)
async def test_deletions_are_counted_and_weighed(
    make_syncing: Make, git_repo: Repository, count: int, percent: float, gone: int, held: bool
) -> None:
    syncing = make_syncing(max_deletions=count, max_deletions_percent=percent)
    git_repo.commit({f"workflows/w{n}.yaml": flow(f"w{n}") for n in range(10)})
    await syncing.sync()
    git_repo.commit({f"workflows/w{n}.yaml": None for n in range(gone)})
    assert ((await syncing.sync()).condition == "Held") is held


# --- forced pushes -----------------------------------------------------------------------------------------------


async def rewrite(git_repo: Repository, base: str) -> str:
    git_repo.git("reset", "--quiet", "--hard", base)
    return git_repo.commit({"workflows/b.yaml": flow("b", "another")})


async def test_a_forced_push_is_held_where_the_source_says_so(
    make_syncing: Make, git_repo: Repository, service: SourceService
) -> None:
    syncing = make_syncing(rewritten_history="hold")
    base = git_repo.commit({"workflows/a.yaml": flow("a")})
    lost = git_repo.commit({"workflows/a.yaml": flow("a", "2")})
    await syncing.sync()
    tip = await rewrite(git_repo, base)
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Held", "HistoryRewritten")
    assert await shas(syncing) == {"a": lost}
    # A commit on top is of the same rewritten history, and a trailer is written by whoever pushes.
    on_top = git_repo.commit(message="More\n\nPinflow-Confirm-Deletions: yes")
    assert (await syncing.sync()).reason == "HistoryRewritten"
    await service.confirm(OPERATOR, "main", on_top)
    assert (await syncing.sync()).condition == "Synced"
    assert sorted(await syncing.live()) == ["a", "b"]
    assert (await syncing.registry.resolve("a", lost)).pin.commit_sha == lost
    revisions = await syncing.registry.revision(on_top)
    assert [each["history_rewritten"] for each in revisions] == [True, True]
    assert tip not in {sha for sha, status in await syncing.revisions() if status == "REGISTERED"}


async def test_a_confirmed_commit_that_is_bad_as_well_says_so(
    make_syncing: Make, git_repo: Repository, service: SourceService
) -> None:
    syncing = make_syncing(rewritten_history="hold")
    git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    git_repo.git("checkout", "--quiet", "--orphan", "other")
    tip = git_repo.commit({"workflows/a.yaml": BAD})
    git_repo.git("branch", "--quiet", "-M", "main")
    assert (await syncing.sync()).reason == "HistoryRewritten"
    await service.confirm(OPERATOR, "main", tip)
    assert (await syncing.sync()).reason == "InvalidRevision"
    assert (await syncing.sync()).reason == "InvalidRevision"
    assert (await syncing.revisions())[1:] == [(tip, "REJECTED")] * 2


async def test_history_that_is_put_back_is_no_longer_held(make_syncing: Make, git_repo: Repository) -> None:
    syncing = make_syncing(rewritten_history="hold")
    base = git_repo.commit({"workflows/a.yaml": flow("a")})
    good = git_repo.commit({"workflows/a.yaml": flow("a", "2")})
    await syncing.sync()
    await rewrite(git_repo, base)
    assert (await syncing.sync()).condition == "Held"
    git_repo.git("reset", "--quiet", "--hard", good)
    assert (await syncing.sync()).condition == "Synced"
    assert await shas(syncing) == {"a": good}


async def test_a_rejected_commit_may_be_amended_where_forced_pushes_are_held(
    make_syncing: Make, git_repo: Repository
) -> None:
    syncing = make_syncing(rewritten_history="hold")
    good = git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    git_repo.commit({"workflows/a.yaml": BAD})
    await syncing.sync()
    tip = await rewrite(git_repo, good)
    assert (await syncing.sync()).condition == "Synced"
    (revision,) = await syncing.registry.revision(tip)
    assert revision["history_rewritten"]


# --- reverts -----------------------------------------------------------------------------------------------------


async def test_a_revert_is_a_revision_that_brings_no_new_version(
    syncing: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await syncing.sync()
    git_repo.commit({"workflows/a.yaml": flow("a", "2"), "workflows/b.yaml": None})
    await syncing.sync()
    versions = await count(syncing, "workflow_versions")
    git_repo.tick()
    git_repo.git("revert", "--no-edit", "HEAD")
    reverted = git_repo.head()
    assert (await syncing.sync()).condition == "Synced"
    assert (await syncing.revisions())[-1] == (reverted, "REGISTERED")
    assert await shas(syncing) == {"a": first, "b": first}
    assert await count(syncing, "workflow_versions") == versions
    for name in "ab":
        assert (await syncing.registry.resolve(name, reverted)).pin.commit_sha == first
    changes = [(action, name) for action, name, sha in await syncing.audit() if sha == reverted]
    assert ("definition.restored", "b") in changes


async def count(syncing: Syncing, table: str) -> int:
    from sqlalchemy import text

    async with syncing.database.read() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


# --- sources side by side, contested, retired, poisoned ------------------------------------------------------------


async def test_one_definition_lives_in_staging_and_in_production(
    make_syncing: Make, git_repo: Repository
) -> None:
    old = git_repo.commit({"workflows/a.yaml": flow("a")})
    git_repo.git("branch", "production")
    new = git_repo.commit({"workflows/a.yaml": flow("a", "2")})
    staging = make_syncing(name="staging", branch="main")
    production = make_syncing(name="production", branch="production")
    await staging.sync()
    await production.sync()
    resolve = staging.registry.resolve
    assert (await resolve("staging/a")).pin.commit_sha == new
    assert (await resolve("production/a")).pin.commit_sha == old
    assert (await resolve("a", new)).pin.source == "staging"


async def test_two_daemons_told_different_branches_do_not_flip_what_is_live(
    make_syncing: Make, git_repo: Repository
) -> None:
    main = git_repo.commit({"workflows/a.yaml": flow("a")})
    git_repo.git("checkout", "--quiet", "-b", "dev")
    dev = git_repo.commit({"workflows/a.yaml": flow("a", "dev")})
    one, two = make_syncing(branch="main"), make_syncing(branch="dev")
    await one.sync()
    assert await shas(one) == {"a": main}
    await two.sync()
    assert await shas(one) == {"a": dev}, "who was told last counts"
    for _ in range(3):
        assert (await one.sync()).reason == "DeclaredTwice"
        assert (await two.sync()).condition == "Synced"
    assert await one.revisions() == [(main, "REGISTERED"), (dev, "REGISTERED")]
    row = await one.row()
    assert row["contested"]
    assert "main" in row["contested_by"]


async def test_a_daemon_takes_over_from_one_that_is_gone(
    make_syncing: Make, git_repo: Repository, database: Database
) -> None:
    from sqlalchemy import text

    git_repo.commit({"workflows/a.yaml": flow("a")})
    git_repo.git("branch", "dev")
    one, two = make_syncing(branch="main"), make_syncing(branch="dev")
    await one.sync()
    await two.sync()
    assert (await one.sync()).reason == "DeclaredTwice"
    async with database.begin() as connection:
        await connection.execute(text("UPDATE sources SET watched_until = now() - interval '1 second'"))
    assert (await one.sync()).condition == "Synced"


async def test_a_source_that_nobody_watches_is_shown_startable_and_can_be_retired(
    syncing: Syncing, make_syncing: Make, git_repo: Repository, service: SourceService, database: Database
) -> None:
    from sqlalchemy import text

    sha = git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    assert (await syncing.row())["watched"]
    with pytest.raises(Conflict, match="a daemon watches"):
        await service.retire(ADMIN, "main")
    async with database.begin() as connection:
        await connection.execute(text("UPDATE sources SET watched_until = now() - interval '1 second'"))
    assert not (await syncing.row())["watched"]
    assert (await syncing.registry.resolve("a")).pin.commit_sha == sha
    assert await service.retire(ADMIN, "main") == {"source": "main", "retired": ["a"]}
    with pytest.raises(NotFound, match="retired"):
        await syncing.registry.resolve("a")
    assert (await syncing.registry.resolve("a", sha)).pin.commit_sha == sha
    again = make_syncing()
    assert (await again.sync()).condition == "Synced"
    assert (await again.registry.resolve("a")).pin.commit_sha == sha
    assert (await again.row())["retired_at"] is None
    assert len(await again.revisions()) == 2


async def test_a_commit_that_the_registry_cannot_take_does_not_block_the_next(
    syncing: Syncing, git_repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    poison = git_repo.commit({"workflows/a.yaml": flow("a", "poison")})
    whole = Reconciler._decide

    async def failing(self: Reconciler, reader: Any, sha: str, cursor: Any) -> Any:
        if sha == poison:
            raise ValueError("a fault of ours")
        return await whole(self, reader, sha, cursor)

    monkeypatch.setattr(Reconciler, "_decide", failing)
    with pytest.raises(ValueError, match="a fault of ours"):
        await syncing.sync()
    assert (await syncing.sync()).condition == "Rejected"
    assert await syncing.problems(poison) == [("", 0, "REFUSED")]
    third = git_repo.commit({"workflows/a.yaml": flow("a", "3")})
    assert (await syncing.sync()).condition == "Synced"
    assert await syncing.revisions() == [(first, "REGISTERED"), (poison, "REJECTED"), (third, "REGISTERED")]
