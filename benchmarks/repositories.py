"""Git repositories of many definitions, and changes of one file whose moment of merging is known exactly."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.shapes import typical
from tests.support.git import Repository

FILES_PER_FOLDER = 100


def many(path: Path, count: int, past: int = 0) -> Repository:
    """A repository of `count` definitions of about 40 lines, a hundred in a folder, in one commit; `past` came before it."""
    repository = Repository(path)
    if past:
        _import(repository, past)
        repository.git("reset", "--quiet", "--hard")
    repository.commit({file(number): typical(name(number)) for number in range(count)}, "All of them")
    return repository


def _import(repository: Repository, commits: int) -> None:
    """A history of one line, each commit of which changes a file that is no definition."""

    def stream() -> Iterator[bytes]:
        for number in range(commits):
            text = f"{number}\n"
            when = f"Ada <ada@example.test> {1_600_000_000 + number} +0000"
            yield (
                f"commit refs/heads/main\ncommitter {when}\ndata 6\nChange\n"
                f"M 100644 inline notes/{number % 100}.txt\ndata {len(text)}\n{text}"
            ).encode()

    with subprocess.Popen(
        ["git", "fast-import", "--quiet"], cwd=repository.path, stdin=subprocess.PIPE
    ) as importing:
        assert importing.stdin is not None
        importing.stdin.writelines(stream())
        importing.stdin.close()
        if importing.wait() != 0:
            raise RuntimeError("git fast-import failed")


def name(number: int) -> str:
    """The name of a definition."""
    return f"flow-{number:05d}"


def file(number: int) -> str:
    """Its file."""
    return f"workflows/{number // FILES_PER_FOLDER:03d}/{name(number)}.yaml"


def prepare_change(repository: Repository, number: int, note: str) -> str:
    """A commit on top of `main` that changes one definition, and that no branch points to yet; its SHA."""
    repository.write({file(number): typical(name(number), note)})
    repository.git("add", "--", file(number))
    tree = repository.git("write-tree")
    return repository.git("commit-tree", "-p", "main", "-m", f"Change {name(number)}", tree)
