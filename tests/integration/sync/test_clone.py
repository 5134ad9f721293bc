"""What a reference in somebody's own clone means."""

from __future__ import annotations

import hashlib

import pytest

from engine.errors import InvalidInput, NotFound
from engine.sync.clone import open_clone
from tests.support.git import Repository


def commits_that_begin_alike(repository: Repository, letters: int = 4) -> tuple[str, str]:
    """Two commits on branches of their own whose SHAs have their first letters in common."""
    tree = repository.git("rev-parse", "HEAD^{tree}")
    seen: dict[str, bytes] = {}
    for number in range(100_000):
        raw = f"tree {tree}\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\n{number}\n".encode()
        sha = hashlib.sha1(b"commit %d\0" % len(raw) + raw).hexdigest()
        other = seen.setdefault(sha[:letters], raw)
        if other is not raw:
            return _written(repository, other, "one"), _written(repository, raw, "other")
    raise AssertionError("no two commits begin alike")


def _written(repository: Repository, raw: bytes, name: str) -> str:
    file = repository.path.parent / name
    file.write_bytes(raw)
    sha = repository.git("hash-object", "-t", "commit", "-w", str(file))
    repository.git("update-ref", f"refs/heads/{name}", sha)
    return sha


def test_a_short_sha_of_two_commits_is_an_error_that_names_both(git_repo: Repository) -> None:
    git_repo.commit({"a": "1"})
    one, other = commits_that_begin_alike(git_repo)
    with open_clone(git_repo.path) as clone:
        with pytest.raises(InvalidInput, match="is ambiguous") as caught:
            clone.resolve(f"{one[:4]}..HEAD")
        assert one[:16] in str(caught.value)
        assert other[:16] in str(caught.value)
        assert clone.resolve(f"{one}..HEAD").base == one


def test_what_is_no_commit_is_not_found(git_repo: Repository) -> None:
    git_repo.commit({"a": "1"})
    with open_clone(git_repo.path) as clone, pytest.raises(NotFound, match="is no commit in this clone"):
        clone.resolve("0123..HEAD")
