"""Objects of a mirror, read over the pipes of one `git cat-file --batch`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from typing import IO

from engine.errors import SourceError
from engine.sync.git_objects import (
    CommitObject,
    Difference,
    Entry,
    damaged,
    diff_trees,
    folder_entry,
    parse_commit,
)

# The folder of one commit is looked at again as the one before the next.
_TREES_KEPT = 8
_MAX_TREE = 64 * 1024 * 1024
_COMMIT_HEAD = 64 * 1024
"""Bytes of a commit that are kept where many are read: who wrote it stands in its header and in its message."""
_MAX_COMMITS = 256 * 1024 * 1024
"""Bytes of commits that are read for their authors: a few kilobytes in git can mean a hundred gigabytes of them."""


class Reader:
    """Objects of a mirror by their ids, as fast as the pipe gives them. Raises `SourceError` (MirrorBroken)."""

    # Ids that are sent before the answers are read: their bytes must fit into a pipe.
    _WINDOW = 500

    def __init__(self, process: subprocess.Popen[bytes], ref: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[bytes] = process.stdin
        self._out: IO[bytes] = process.stdout
        self._ref = ref
        self._trees: dict[str, bytes] = {}

    def tip(self) -> str:
        """The commit that the branch is at."""
        sha, _, content = self._one(f"{self._ref}^{{commit}}")
        if content is None:
            raise damaged("it lacks the branch")
        return sha

    def commit(self, sha: str) -> CommitObject:
        """The commit `sha`."""
        return parse_commit(sha, self._need(sha, "commit"))

    def authors(self, shas: Sequence[str], count: int) -> list[tuple[str, str]]:
        """Who wrote these commits: the first `count` distinct (name, email), in the order of the commits."""
        found: dict[tuple[str, str], None] = {}
        size = 0
        for start in range(0, len(shas), self._WINDOW):
            window = shas[start : start + self._WINDOW]
            self._ask(window)
            for sha in window:  # to its end in any case: the pipe must be empty for the next question
                each, content = self._commit_head(sha)
                size += each
                found |= dict.fromkeys(parse_commit(sha, content).authors)
            if len(found) >= count or size > _MAX_COMMITS:
                break
        return list(found)[:count]

    def kind(self, sha: str) -> str:
        """What an object is; "" if it is not there."""
        return self._one(sha)[1]

    def has_tree(self, sha: str) -> bool:
        """Whether the tree is in the mirror."""
        try:
            self._tree(sha)
        except SourceError:
            return False
        return True

    def folder(self, commit: CommitObject, folder: str) -> Entry | None:
        """What stands at `folder` in a commit's tree."""
        return folder_entry(self._tree, commit.tree, folder)

    def diff(self, old: str, new: str) -> Difference:
        """What differs between two trees ("" for none); raises `TreeTooLarge`."""
        return diff_trees(self._tree, old, new)

    def blobs(self, shas: Sequence[str], max_bytes: int) -> Iterator[bytes | None]:
        """The contents of blobs, in order; None for one of more than `max_bytes`, which is not kept in memory."""
        for start in range(0, len(shas), self._WINDOW):
            window = shas[start : start + self._WINDOW]
            self._ask(window)
            for sha in window:
                found, kind, content = self._answer(max_bytes)
                if kind != "blob" or found != sha:
                    raise damaged(f"no file content {sha}")
                yield content

    def _tree(self, sha: str) -> bytes:
        if sha not in self._trees:
            content = self._need(sha, "tree")
            while len(self._trees) >= _TREES_KEPT:
                del self._trees[next(iter(self._trees))]
            self._trees[sha] = content
        return self._trees[sha]

    def _need(self, sha: str, kind: str) -> bytes:
        _, found, content = self._one(sha)
        if found != kind or content is None:
            raise damaged(f"no {kind} {sha}")
        return content

    def _one(self, name: str) -> tuple[str, str, bytes | None]:
        self._ask([name])
        return self._answer(_MAX_TREE)

    def _ask(self, names: Sequence[str]) -> None:
        try:
            self._in.write("".join(f"{name}\n" for name in names).encode("ascii"))
            self._in.flush()
        except OSError as error:
            raise damaged("git cat-file has ended") from error

    def _answer(self, max_bytes: int) -> tuple[str, str, bytes | None]:
        """(id, kind, content); ("", "", None) for an unknown name; content None if it is too large."""
        sha, kind, size = self._header()
        if not sha:
            return "", "", None
        if size > max_bytes:
            self._skip(size + 1)
            return sha, kind, None
        content = self._out.read(size + 1)
        if len(content) != size + 1:
            raise damaged("git cat-file has ended")
        return sha, kind, content[:-1]

    def _commit_head(self, sha: str) -> tuple[int, bytes]:
        """The size of the commit that is answered next, and its beginning."""
        found, kind, size = self._header()
        if kind != "commit" or found != sha:
            raise damaged(f"no commit {sha}")
        content = self._out.read(min(size, _COMMIT_HEAD))
        self._skip(size + 1 - len(content))
        return size, content

    def _header(self) -> tuple[str, str, int]:
        """(id, kind, size) of the next answer; ("", "", 0) for an unknown name."""
        header = self._out.readline().decode("ascii", "replace").split()
        if len(header) == 3 and header[2].isdigit():
            return header[0], header[1], int(header[2])
        if header[-1:] == ["missing"]:
            return "", "", 0
        raise damaged("git cat-file has ended")

    def _skip(self, left: int) -> None:
        while left:
            chunk = self._out.read(min(left, 1 << 20))
            if not chunk:
                raise damaged("git cat-file has ended")
            left -= len(chunk)
