"""Git repositories of many definitions, and changes of one file whose moment of merging is known exactly."""

from __future__ import annotations

from pathlib import Path

from benchmarks.shapes import typical
from tests.support.git import Repository

FILES_PER_FOLDER = 100


def many(path: Path, count: int) -> Repository:
    """A repository of `count` definitions of about 40 lines, a hundred in a folder, in one commit."""
    repository = Repository(path)
    repository.commit({file(number): typical(name(number)) for number in range(count)}, "All of them")
    return repository


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
