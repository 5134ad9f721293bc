"""Random histories of a repository, synced at random moments, against a model that knows whole trees only.

`HISTORY_SEED` and `HISTORY_COUNT` choose which and how many; the seed of a history stands in the name of its test.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.errors import NotFound
from tests.support.git import Repository
from tests.support.syncing import Syncing, flow

_FIRST = int(os.environ.get("HISTORY_SEED", "1"))
_COUNT = int(os.environ.get("HISTORY_COUNT", "20"))
_MAX_DELETIONS = 2
_LIB = "workflows/functions/lib.py"
_NAMES = [f"w{n}" for n in range(6)]
_PATHS = [*(f"workflows/{name}.yaml" for name in _NAMES), "workflows/deep/x.yaml", "workflows/deep/er/y.yml"]

Files = dict[str, str]


@dataclass
class Model:
    """What the registry should hold, worked out from whole trees, one commit after the other."""

    trees: dict[str, Files] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    revisions: list[tuple[str, str]] = field(default_factory=list)
    live: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    first_with: dict[tuple[str, ...], str] = field(default_factory=dict)
    at: dict[str, dict[str, str]] = field(default_factory=dict)
    """Commit → name → commit of the version that was live at it."""

    def take(self, sha: str) -> None:
        """Register a commit."""
        found = self._definitions(self.trees[sha])
        if found is None or self._implausible(found, sha):
            self.revisions.append((sha, "REJECTED"))
            return
        self.live = found
        self.revisions.append((sha, "REGISTERED"))
        for key, _ in found.values():
            self.first_with.setdefault(key, sha)
        self.at[sha] = {name: self.first_with[key] for name, (key, _) in found.items()}

    def _definitions(self, files: Files) -> dict[str, tuple[tuple[str, ...], str]] | None:
        found: dict[str, tuple[tuple[str, ...], str]] = {}
        for path, text in files.items():
            if path == _LIB or not path.startswith("workflows/"):
                continue
            if text == "LINK" or "broken" in text:
                return None
            name = text.partition("name: ")[2].partition("\n")[0]
            if name in found:
                return None
            bundle = files.get(_LIB, "none") if "lib:run" in text else ""
            found[name] = ((name, text, bundle), path)
        return found

    def _implausible(self, found: dict[str, tuple[tuple[str, ...], str]], sha: str) -> bool:
        gone = len(self.live.keys() - found.keys())
        if not gone or sha in self.confirmed:
            return False
        return not found or (gone > _MAX_DELETIONS and 2 * gone > len(self.live))


class History:
    """Makes random commits in a repository and remembers each tree."""

    def __init__(self, repository: Repository, chance: random.Random, model: Model) -> None:
        self.repository = repository
        self.chance = chance
        self.model = model
        self.files: Files = {}
        self.shas: list[str] = []

    def commit(self) -> None:
        """One commit of one to three random changes."""
        before = dict(self.files)
        for _ in range(self.chance.randint(1, 3)):
            self._change()
        confirm = self.chance.random() < 0.15
        message = "Change\n\nPinflow-Confirm-Deletions: yes" if confirm else "Change"
        for path in before.keys() - self.files.keys():
            (self.repository.path / path).unlink()
        for path, text in self.files.items():
            self._write(path, text)
        sha = self.repository.commit(message=message)
        self._remember(sha)
        if confirm:
            self.model.confirmed.add(sha)

    def merge(self) -> None:
        """A branch of two commits, merged: the two are no revisions."""
        self.repository.git("checkout", "--quiet", "-b", "side")
        self.commit()
        self.commit()
        del self.shas[-2:]
        tree = dict(self.files)
        self.repository.git("checkout", "--quiet", "main")
        sha = self.repository.merge("side")
        self.repository.git("branch", "--quiet", "-D", "side")
        self.files = tree
        self._remember(sha)

    def rewind(self) -> None:
        """Throw some commits away, as a forced push does."""
        sha = self.chance.choice(self.shas)
        self.repository.git("reset", "--quiet", "--hard", sha)
        self.repository.git("clean", "--quiet", "-fdx")
        self.shas = self.shas[: self.shas.index(sha) + 1]
        self.files = dict(self.model.trees[sha])

    def _remember(self, sha: str) -> None:
        self.shas.append(sha)
        self.model.trees[sha] = dict(self.files)

    def _write(self, path: str, text: str) -> None:
        file = self.repository.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if text == "LINK":
            file.symlink_to("/etc/passwd")
        else:
            file.write_text(text)

    def _change(self) -> None:
        definitions = [path for path in self.files if path != _LIB and path.startswith("workflows/")]
        name, path, marker = (
            self.chance.choice(_NAMES),
            self.chance.choice(_PATHS),
            str(self.chance.randint(0, 3)),
        )
        function = self.chance.choice(["", "", "lib:run"])
        what = self.chance.randint(0, 11)
        if what <= 4 or not definitions:
            self.files[path] = flow(name, marker, function=function)
        elif what == 5:
            self.files[_LIB] = f"x = {marker}\n"
        elif what == 6:
            self.files["README.md"] = marker
        elif what == 7:
            self.files.pop(self.chance.choice(definitions))
        elif what == 8:
            self.files[path] = self.files.pop(self.chance.choice(definitions))
        elif what == 9:
            self.files[path] = self.chance.choice([f"broken: {marker}\n", "LINK", f"name: {name}\nbroken\n"])
        elif what == 10:
            for each in definitions[: self.chance.randint(1, len(definitions))]:
                self.files.pop(each)
        else:  # mend what is wrong: keep one valid file of each name
            seen: set[str] = set()
            for each in definitions:
                text = self.files[each]
                found = text.partition("name: ")[2].partition("\n")[0]
                if text == "LINK" or "broken" in text or found in seen:
                    self.files.pop(each)
                seen.add(found)


def pending(repository: Repository, last: str, tip: str) -> list[str]:
    """Which commits a pass should take, as git itself says."""
    if not last:
        return [tip]
    if last == tip:
        return []
    base = repository.git("merge-base", last, tip)
    if base != last:
        return [tip]
    return repository.git("rev-list", "--first-parent", "--reverse", f"{last}..{tip}").split()


@pytest.mark.parametrize("seed", range(_FIRST, _FIRST + _COUNT))
async def test_the_registry_equals_the_model(
    seed: int, make_syncing: Callable[..., Syncing], git_repo: Repository, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    model = Model()
    history = History(git_repo, chance, model)
    syncing = make_syncing(max_deletions=_MAX_DELETIONS)
    history.commit()
    for _ in range(chance.randint(4, 8)):
        for _ in range(chance.randint(0, 3)):
            chance.choice([history.commit] * 6 + [history.merge, history.rewind])()
        await syncing.sync()
        tip = git_repo.head()
        for sha in pending(git_repo, model.revisions[-1][0] if model.revisions else "", tip):
            model.take(sha)
        assert await syncing.revisions() == model.revisions
        live = {name: (model.first_with[key], path) for name, (key, path) in model.live.items()}
        assert await syncing.live() == live
        if chance.random() < 0.3:  # a restart, with the mirror or without it
            await syncing.reconciler.aclose()
            if chance.random() < 0.5:
                shutil.rmtree(tmp_path / "data", ignore_errors=True)
            syncing = make_syncing(max_deletions=_MAX_DELETIONS)
    await _every_commit_resolves(syncing, model)


async def _every_commit_resolves(syncing: Syncing, model: Model) -> None:
    last = {sha: status for sha, status in model.revisions if status == "REGISTERED"}
    for sha in last:
        for name in _NAMES:
            expected = model.at[sha].get(name)
            try:
                found = (await syncing.registry.resolve(name, sha)).pin.commit_sha
            except NotFound:
                found = None
            assert found == expected, (sha, name)
