"""Git's objects as data."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sync.git_objects import Entry, TreeTooLarge, diff_trees, folder_entry, parse_commit, parse_tree

SHA = "ab" * 20


def raw(*entries: tuple[str, str, str]) -> bytes:
    return b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(sha) for mode, name, sha in entries)


def sha(n: int) -> str:
    return f"{n:040x}"


class Trees:
    """Trees by id, counting what is read."""

    def __init__(self, trees: dict[str, bytes]) -> None:
        self.trees = trees
        self.read: list[str] = []

    def __call__(self, name: str) -> bytes:
        self.read.append(name)
        return self.trees[name]


def test_a_tree_is_read_with_any_bytes_in_its_ids() -> None:
    odd = "0a00" * 10
    assert parse_tree(raw(("100644", "a b", odd), ("40000", "d", SHA))) == {
        "a b": Entry(0o100644, odd),
        "d": Entry(0o040000, SHA),
    }


def test_ids_of_sha256_repositories_are_longer() -> None:
    assert parse_tree(raw(("100644", "a", "cd" * 32)), 64) == {"a": Entry(0o100644, "cd" * 32)}


def test_folders_that_are_the_same_are_not_entered() -> None:
    one, two, same, old_sub, new_sub = (sha(n) for n in range(1, 6))
    trees = Trees(
        {
            one: raw(("40000", "same", same), ("40000", "sub", old_sub), ("100644", "x", sha(9))),
            two: raw(("40000", "same", same), ("40000", "sub", new_sub), ("100644", "y", sha(9))),
            old_sub: raw(("100644", "f", sha(10))),
            new_sub: raw(("100644", "f", sha(11)), ("100755", "g", sha(12))),
        }
    )
    assert diff_trees(trees, one, two) == {
        "sub/f": (Entry(0o100644, sha(10)), Entry(0o100644, sha(11))),
        "sub/g": (None, Entry(0o100755, sha(12))),
        "x": (Entry(0o100644, sha(9)), None),
        "y": (None, Entry(0o100644, sha(9))),
    }
    assert same not in trees.read


@given(
    st.dictionaries(st.integers(0, 30), st.integers(0, 3), max_size=20),
    st.dictionaries(st.integers(0, 30), st.integers(0, 3), max_size=20),
)
def test_two_trees_differ_by_what_their_entries_say(old: dict[int, int], new: dict[int, int]) -> None:
    ids = ["00" * 20, "2030" * 10, "31303036343420610000" + "ab" * 10, "ff" * 20]

    def tree(entries: dict[int, int]) -> bytes:
        return raw(*(("100644", f"f{name:02}", ids[content]) for name, content in sorted(entries.items())))

    trees = {sha(1): tree(old), sha(2): tree(new)}
    found = diff_trees(trees.__getitem__, sha(1), sha(2))
    expected = {f"f{name:02}" for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    assert set(found) == expected
    for name in expected:
        before, now = found[name]
        number = int(name[1:])
        assert (before.sha if before else None) == (ids[old[number]] if number in old else None)
        assert (now.sha if now else None) == (ids[new[number]] if number in new else None)


def test_a_file_that_becomes_a_folder_is_gone_and_its_files_are_new() -> None:
    trees = Trees(
        {
            sha(1): raw(("100644", "a", sha(5))),
            sha(2): raw(("40000", "a", sha(3))),
            sha(3): raw(("100644", "b", sha(6))),
        }
    )
    assert diff_trees(trees, sha(1), sha(2)) == {
        "a": (Entry(0o100644, sha(5)), None),
        "a/b": (None, Entry(0o100644, sha(6))),
    }


def test_a_tree_without_end_is_left() -> None:
    loop = raw(("40000", "again", sha(1)))
    with pytest.raises(TreeTooLarge, match="levels"):
        diff_trees(lambda _: loop, "", sha(1))


def test_a_tree_of_folders_without_a_file_is_left() -> None:
    levels = {sha(0): b""} | {
        sha(level): raw(*(("40000", f"f{n}", sha(level - 1)) for n in range(10))) for level in range(1, 11)
    }
    with pytest.raises(TreeTooLarge, match="folders"):
        diff_trees(levels.__getitem__, "", sha(10))


def test_a_folder_is_found_by_its_path() -> None:
    trees = {sha(1): raw(("40000", "a", sha(2))), sha(2): raw(("120000", "link", sha(3)))}
    assert folder_entry(trees.__getitem__, sha(1), "./a/") == Entry(0o040000, sha(2))
    assert folder_entry(trees.__getitem__, sha(1), "") == Entry(0o040000, sha(1))
    assert folder_entry(trees.__getitem__, sha(1), "a/b") is None
    link = folder_entry(trees.__getitem__, sha(1), "a/link/x")
    assert link is not None
    assert link.kind == "symbolic link"


def test_a_commit_is_read() -> None:
    content = (
        f"tree {sha(1)}\nparent {sha(2)}\nparent {sha(3)}\nauthor Ada L <ada@x> 1 +0100\n"
        f"committer Bo <bo@x> 1700000000 +0000\ngpgsig -----BEGIN\n more\n\nSubject here\n\nBody\n\nKey: value\nOther: 2\n"
    )
    commit = parse_commit(SHA, content.encode())
    assert (commit.tree, commit.parents) == (sha(1), (sha(2), sha(3)))
    assert (commit.author, commit.author_email, commit.committer) == ("Ada L", "ada@x", "Bo")
    assert commit.committed_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert commit.subject == "Subject here"
    assert (commit.trailer("key"), commit.trailer("Body")) == ("value", "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"tree\n\nx",
        b"author nobody\n\n",
        b"committer a <b> 999999999999999999999 +0\n\n\xff\0",
        b"committer a <b> -5 +0",
    ],
)
def test_odd_commits_do_not_fail(content: bytes) -> None:
    assert parse_commit(SHA, content).sha == SHA


def test_who_a_co_authored_by_line_names_has_written_the_commit_as_well() -> None:
    message = "Ship it (#12)\n\nCo-authored-by: Pat P <pat@x.test>\r\nco-authored-by: Sam\n\nAnd a word of the forge."
    commit = parse_commit(SHA, f"author Ada <ada@x.test> 1 +0000\n\n{message}".encode())
    assert commit.authors == (("Ada", "ada@x.test"), ("Pat P", "pat@x.test"), ("Sam", ""))


def test_a_person_of_many_brackets_is_read_in_no_time() -> None:
    commit = parse_commit(SHA, b"author " + b"<" * 1_000_000 + b"\n\nCo-authored-by: " + b"<" * 1_000_000)
    assert [len(name) for name, _ in commit.authors] == [200]
