"""One pass after the other over real repositories: what becomes live, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from engine.dsl import bundle
from engine.errors import NotFound
from engine.sync import reading
from tests.support.git import Repository
from tests.support.syncing import Syncing, flow

Make = Callable[..., Syncing]


async def test_the_first_sync_registers_the_tip_alone(syncing: Syncing, git_repo: Repository) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    tip = git_repo.commit({"workflows/b.yaml": flow("b")})
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Synced", "UpToDate")
    assert await syncing.revisions() == [(tip, "REGISTERED")]
    assert await syncing.live() == {"a": (tip, "workflows/a.yaml"), "b": (tip, "workflows/b.yaml")}
    row = await syncing.row()
    assert (row["live_sha"], row["observed_sha"], row["condition"]) == (tip, tip, "Synced")


async def test_every_first_parent_commit_becomes_a_revision_in_order(
    syncing: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    second = git_repo.commit({"README.md": "nothing of ours"})
    git_repo.git("checkout", "--quiet", "-b", "feature")
    git_repo.commit({"workflows/b.yaml": flow("b", "draft")})
    git_repo.commit({"workflows/b.yaml": flow("b")})
    git_repo.git("checkout", "--quiet", "main")
    merged = git_repo.merge("feature")
    await syncing.sync()
    assert await syncing.revisions() == [(sha, "REGISTERED") for sha in (first, second, merged)]
    assert (await syncing.live())["b"] == (merged, "workflows/b.yaml")
    assert (await syncing.registry.resolve("a", second)).pin.commit_sha == first


async def test_a_pull_that_is_pushed_takes_nothing_back_in_between(
    syncing: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/c.yaml": flow("c")})
    git_repo.git("branch", "mine")
    second = git_repo.commit({"workflows/b.yaml": flow("b")})
    await syncing.sync()
    git_repo.git("checkout", "--quiet", "mine")
    git_repo.commit({"workflows/a.yaml": flow("a", "2")})
    merged = git_repo.merge("main")
    git_repo.git("checkout", "--quiet", "-B", "main")
    await syncing.sync()
    assert await syncing.revisions() == [(second, "REGISTERED"), (merged, "REGISTERED")]
    assert "definition.retired" not in {action for action, _, _ in await syncing.audit()}
    assert {name: sha for name, (sha, _) in (await syncing.live()).items()} == {
        "a": merged,
        "b": second,
        "c": second,
    }
    assert first not in {sha for sha, _ in await syncing.revisions()}


async def test_a_pass_with_nothing_new_writes_nothing(syncing: Syncing, git_repo: Repository) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    before = await syncing.audit()
    await syncing.sync()
    assert await syncing.audit() == before


async def test_a_bad_commit_changes_nothing_and_a_good_one_heals(
    syncing: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await syncing.sync()
    bad = git_repo.commit({"workflows/a.yaml": "name: a\ntaskz: []\n", "workflows/b.yaml": flow("b", "2")})
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Rejected", "InvalidRevision")
    assert "workflows/a.yaml:1:1: MISSING_KEY" in standing.message
    assert {sha for sha, _ in (await syncing.live()).values()} == {first}
    assert ("workflows/a.yaml", 2) in {(file, line) for file, line, _ in await syncing.problems(bad)}
    good = git_repo.commit({"workflows/a.yaml": flow("a")})
    assert (await syncing.sync()).condition == "Synced"
    live = await syncing.live()
    assert (live["a"][0], live["b"][0]) == (first, good)
    assert [status for _, status in await syncing.revisions()] == ["REGISTERED", "REJECTED", "REGISTERED"]


async def test_all_problems_of_all_files_are_kept(syncing: Syncing, git_repo: Repository) -> None:
    bad = git_repo.commit({f"workflows/{n}.yaml": f"name: {n}\nnot_a_key: 1\n" for n in "abc"})
    await syncing.sync()
    files = {file for file, _, _ in await syncing.problems(bad)}
    assert files == {"workflows/a.yaml", "workflows/b.yaml", "workflows/c.yaml"}


async def test_a_rejected_commit_in_the_middle_does_not_hide_the_good_one_after_it(
    syncing: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    git_repo.commit({"workflows/b.yaml": flow("b")})
    git_repo.commit({"workflows/c.yaml": "name: [\n"})
    tip = git_repo.commit({"workflows/c.yaml": flow("c")})
    await syncing.sync()
    assert [status for _, status in await syncing.revisions()] == [
        "REGISTERED",
        "REGISTERED",
        "REJECTED",
        "REGISTERED",
    ]
    assert (await syncing.live())["c"][0] == tip


async def test_a_retired_definition_stays_runnable_by_its_commit_and_can_come_back(
    syncing: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await syncing.sync()
    gone = git_repo.commit({"workflows/b.yaml": None})
    await syncing.sync()
    with pytest.raises(NotFound, match="retired"):
        await syncing.registry.resolve("b")
    assert (await syncing.registry.resolve("b", first)).pin.commit_sha == first
    back = git_repo.commit({"workflows/b.yaml": flow("b")})
    await syncing.sync()
    assert (await syncing.registry.resolve("b")).pin.commit_sha == first
    assert [(action, sha) for action, name, sha in await syncing.audit() if name == "b"] == [
        ("definition.deployed", first),
        ("definition.retired", gone),
        ("definition.restored", back),
    ]


async def test_a_moved_file_is_the_same_version(syncing: Syncing, git_repo: Repository) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    git_repo.commit({"workflows/a.yaml": None, "workflows/team/a.yaml": flow("a")})
    assert (await syncing.sync()).condition == "Synced"
    assert await syncing.live() == {"a": (first, "workflows/team/a.yaml")}


async def test_a_renamed_definition_retires_the_old_name(syncing: Syncing, git_repo: Repository) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    tip = git_repo.commit({"workflows/a.yaml": flow("b")})
    await syncing.sync()
    assert await syncing.live() == {"b": (tip, "workflows/a.yaml")}


async def test_two_files_that_swap_their_names_are_no_duplicates(
    syncing: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/x.yaml": flow("a"), "workflows/y.yaml": flow("b")})
    await syncing.sync()
    git_repo.commit({"workflows/x.yaml": flow("b"), "workflows/y.yaml": flow("a")})
    assert (await syncing.sync()).condition == "Synced"
    assert {name: path for name, (_, path) in (await syncing.live()).items()} == {
        "a": "workflows/y.yaml",
        "b": "workflows/x.yaml",
    }


async def test_a_name_in_two_files_is_a_problem_in_both(syncing: Syncing, git_repo: Repository) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    bad = git_repo.commit({"workflows/b.yaml": "# another\n" + flow("a", "2")})
    assert (await syncing.sync()).condition == "Rejected"
    assert await syncing.problems(bad) == [
        ("workflows/a.yaml", 1, "DUPLICATE_NAME"),
        ("workflows/b.yaml", 2, "DUPLICATE_NAME"),
    ]


async def test_only_yaml_files_of_the_folder_are_definitions(syncing: Syncing, git_repo: Repository) -> None:
    git_repo.commit(
        {
            "workflows/a.yaml": flow("a"),
            "workflows/deep/b.yml": flow("b"),
            "workflows/a.test.yaml": "workflow: a\n",
            "workflows/.hidden/c.yaml": "nonsense: [",
            "workflows/functions/data.yaml": "nonsense: [",
            "workflows/notes.md": "text",
            "other/d.yaml": "nonsense: [",
        }
    )
    assert (await syncing.sync()).condition == "Synced"
    assert sorted(await syncing.live()) == ["a", "b"]


async def test_changed_functions_make_new_versions_of_what_uses_them_only(
    syncing: Syncing, git_repo: Repository
) -> None:
    first = git_repo.commit(
        {
            "workflows/a.yaml": flow("a", function="lib:run"),
            "workflows/b.yaml": flow("b"),
            "workflows/functions/lib.py": "def run(): return 1\n",
        }
    )
    await syncing.sync()
    second = git_repo.commit({"workflows/functions/lib.py": "def run(): return 2\n"})
    await syncing.sync()
    old, new = await syncing.registry.resolve("a", first), await syncing.registry.resolve("a")
    assert (await syncing.live())["b"][0] == first
    assert (old.pin.commit_sha, new.pin.commit_sha) == (first, second)
    files = bundle.unpack(await syncing.registry.content(new.pin.bundle_digest))
    assert files == {"lib.py": b"def run(): return 2\n"}


async def test_reverted_functions_find_the_old_version(syncing: Syncing, git_repo: Repository) -> None:
    files = {"workflows/a.yaml": flow("a", function="lib:run"), "workflows/functions/lib.py": "run = 1\n"}
    first = git_repo.commit(files)
    await syncing.sync()
    git_repo.commit({"workflows/functions/lib.py": "run = 2\n"})
    git_repo.commit({"workflows/functions/lib.py": "run = 1\n"})
    await syncing.sync()
    assert (await syncing.live())["a"][0] == first


async def test_a_mass_deletion_is_held_until_it_is_confirmed(
    make_syncing: Make, git_repo: Repository
) -> None:
    syncing = make_syncing(max_deletions=2)
    git_repo.commit({f"workflows/{n}.yaml": flow(n) for n in "abcde"})
    await syncing.sync()
    held = git_repo.commit({f"workflows/{n}.yaml": None for n in "abc"})
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Held", "MassDeletion")
    assert sorted(await syncing.live()) == list("abcde")
    git_repo.commit({"README.md": "unrelated"})
    assert (await syncing.sync()).condition == "Held"
    git_repo.commit(message="Yes\n\nWe mean it.\n\nPinflow-Confirm-Deletions: yes\nSigned-off-by: A <a@b>")
    assert (await syncing.sync()).condition == "Synced"
    assert sorted(await syncing.live()) == ["d", "e"]
    assert await syncing.problems(held) == [("", 0, "MASS_DELETION")]


async def test_few_deletions_and_deletions_of_the_smaller_half_pass(
    make_syncing: Make, git_repo: Repository
) -> None:
    syncing = make_syncing(max_deletions=1)
    git_repo.commit({f"workflows/{n}.yaml": flow(n) for n in "abcde"})
    await syncing.sync()
    git_repo.commit({f"workflows/{n}.yaml": None for n in "ab"})
    assert (await syncing.sync()).condition == "Synced"
    git_repo.commit({"workflows/c.yaml": None})
    assert (await syncing.sync()).condition == "Synced"


async def test_an_emptied_folder_is_held_and_heals_when_the_files_return(
    syncing: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a"), "README.md": "x"})
    await syncing.sync()
    git_repo.commit({"workflows/a.yaml": None})
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Held", "EmptyFolder")
    assert list(await syncing.live()) == ["a"]
    git_repo.commit({"workflows/a.yaml": flow("a")})
    assert (await syncing.sync()).condition == "Synced"


async def test_a_source_without_definitions_is_synced_and_says_so(
    syncing: Syncing, git_repo: Repository
) -> None:
    git_repo.commit({"README.md": "x"})
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Synced", "NoDefinitions")


@pytest.mark.parametrize("folder", ["", ".", "/", "deep/er/"])
async def test_the_folder_may_be_the_root_or_deep(
    make_syncing: Make, git_repo: Repository, folder: str
) -> None:
    prefix = folder.strip("/.") + "/" if folder.strip("/.") else ""
    git_repo.commit({f"{prefix}a.yaml": flow("a", function="lib:f"), f"{prefix}functions/lib.py": "f = 1"})
    syncing = make_syncing(folder=folder)
    assert (await syncing.sync()).condition == "Synced"
    tip = git_repo.commit({f"{prefix}functions/lib.py": "f = 2"})
    assert (await syncing.sync()).condition == "Synced"
    assert await syncing.live() == {"a": (tip, f"{prefix}a.yaml")}


async def test_a_changed_folder_is_read_anew_without_a_new_commit(
    make_syncing: Make, git_repo: Repository
) -> None:
    first = git_repo.commit({"old/a.yaml": flow("a"), "new/a.yaml": flow("a"), "new/b.yaml": flow("b")})
    await make_syncing(folder="old").sync()
    moved = make_syncing(folder="new")
    assert (await moved.sync()).condition == "Synced"
    assert await moved.live() == {"a": (first, "new/a.yaml"), "b": (first, "new/b.yaml")}
    assert (await moved.sync()).condition == "Synced"
    assert len(await moved.revisions()) == 2


async def test_a_changed_folder_that_holds_nothing_is_held_and_says_so(
    make_syncing: Make, git_repo: Repository
) -> None:
    tip = git_repo.commit({"old/a.yaml": flow("a")})
    await make_syncing(folder="old").sync()
    moved = make_syncing(folder="nwe")
    for _ in range(2):
        standing = await moved.sync()
        assert (standing.condition, standing.reason) == ("Held", "EmptyFolder")
    assert await moved.live() == {"a": (tip, "old/a.yaml")}
    assert await moved.revisions() == [(tip, "REGISTERED"), (tip, "REJECTED")]
    assert (await moved.registry.resolve("a", tip)).path == "old/a.yaml"
    assert (await make_syncing(folder="old").sync()).condition == "Synced"


async def test_more_text_than_fits_into_memory_is_a_problem_and_stops_nothing(
    syncing: Syncing, git_repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    monkeypatch.setattr(reading, "MAX_TEXTS", 5000)
    large = git_repo.commit({f"workflows/{n}.yaml": flow("b") + "#" * 40 for n in range(300)})
    assert (await syncing.sync()).condition == "Rejected"
    assert [code for _, _, code in await syncing.problems(large)] == ["TOO_MANY_FILES"]
    git_repo.commit({f"workflows/{n}.yaml": None for n in range(300)})
    assert (await syncing.sync()).condition == "Synced"


async def test_a_forced_push_is_recorded_and_taken(syncing: Syncing, git_repo: Repository) -> None:
    base = git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    lost = git_repo.commit({"workflows/a.yaml": flow("a", "2")})
    await syncing.sync()
    git_repo.git("reset", "--quiet", "--hard", base)
    tip = git_repo.commit({"workflows/b.yaml": flow("b")})
    assert (await syncing.sync()).condition == "Synced"
    assert await syncing.live() == {"a": (base, "workflows/a.yaml"), "b": (tip, "workflows/b.yaml")}
    (revision,) = await syncing.registry.revision(tip)
    assert revision["history_rewritten"]
    assert (await syncing.registry.resolve("a", lost)).pin.commit_sha == lost


async def test_a_rollback_to_an_old_commit_is_a_revision_of_its_own(
    syncing: Syncing, git_repo: Repository
) -> None:
    base = git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    git_repo.commit({"workflows/a.yaml": flow("a", "2")})
    await syncing.sync()
    git_repo.git("reset", "--quiet", "--hard", base)
    await syncing.sync()
    assert [sha for sha, _ in await syncing.revisions()][::2] == [base, base]
    assert (await syncing.live())["a"][0] == base


async def test_the_loss_of_the_old_history_and_of_the_mirror_is_survived(
    syncing: Syncing, make_syncing: Make, git_repo: Repository, tmp_path: Path
) -> None:
    first = git_repo.commit({"workflows/a.yaml": flow("a"), "workflows/b.yaml": flow("b")})
    await syncing.sync()
    shutil.rmtree(git_repo.path)
    fresh = Repository(git_repo.path)
    tip = fresh.commit({"workflows/a.yaml": flow("a"), "workflows/c.yaml": flow("c")}, "A new history")
    again = make_syncing(fresh, data_dir=tmp_path / "other")
    assert (await again.sync()).condition == "Synced"
    assert {name: sha for name, (sha, _) in (await again.live()).items()} == {"a": first, "c": tip}


async def test_a_rejected_tip_is_looked_at_again_after_a_restart_or_a_request(
    syncing: Syncing, make_syncing: Make, git_repo: Repository
) -> None:
    bad = git_repo.commit({"workflows/a.yaml": "name: [\n"})
    await syncing.sync()
    await syncing.sync()
    restarted = make_syncing()
    await restarted.sync()
    await restarted.registry.request_sync("main")
    await restarted.sync()
    assert await restarted.revisions() == [(bad, "REJECTED")]
    assert (await restarted.row())["sync_requested_at"] is None


async def test_odd_commit_metadata_does_no_harm(syncing: Syncing, git_repo: Repository) -> None:
    author = "Zoë \x1b[31m <zoe@example.test>"
    sha = git_repo.commit({"workflows/a.yaml": flow("a")}, "Überschrift\n\nbody", author=author)
    raw = git_repo.git("cat-file", "commit", sha).replace("1790000001", "99999999999999999999")
    odd = git_repo.path / "odd"
    odd.write_text(raw + "\n")
    forged = git_repo.git("hash-object", "-t", "commit", "-w", "--literally", str(odd))
    assert forged
    await syncing.sync()
    (revision,) = await syncing.registry.revision(sha)
    assert revision["subject"] == "Überschrift"
    assert revision["author"].startswith("Zoë")


async def test_a_hostile_definition_is_a_located_problem(syncing: Syncing, git_repo: Repository) -> None:
    hostile: dict[str, str | bytes | None] = {
        "workflows/brackets.yaml": "[" * 100_000,
        "workflows/aliases.yaml": "a: &a [x]\nb: [*a, *a]\n",
        "workflows/latin.yaml": b"name: \xff\n",
        "workflows/huge.yaml": "x" * 2_000_000,
        "workflows/scalar.yaml": "just text\n",
        "workflows/empty.yaml": "",
        "workflows/nul.yaml": "name: a\0b\n",
    }
    bad = git_repo.commit(hostile)
    standing = await syncing.sync()
    assert standing.condition == "Rejected"
    problems = await syncing.problems(bad)
    assert {file for file, _, _ in problems} == set(hostile)
    assert "CHECK_CRASHED" not in {code for _, _, code in problems}


async def test_the_registry_keeps_its_own_copy(syncing: Syncing, git_repo: Repository) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    shutil.rmtree(git_repo.path)
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Unreachable", "RepositoryNotFound")
    pin = (await syncing.registry.resolve("a")).pin
    assert await syncing.registry.content(pin.digest) == flow("a").encode()


async def test_times_of_a_source_are_kept(syncing: Syncing, git_repo: Repository) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a")})
    await syncing.sync()
    first: dict[str, Any] = await syncing.row()
    await syncing.sync()
    second = await syncing.row()
    assert second["checked_at"] > first["checked_at"]
    assert second["condition_since"] == first["condition_since"]
    async with syncing.database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM revisions"))).scalar_one() == 1
