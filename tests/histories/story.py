"""Makes the commits of a random history, by plumbing, and tells the model of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from random import Random

from tests.histories.model import LIB, LINK, LOCK, Files, Model, is_definition
from tests.support.syncing import flow

NAMES = [f"w{n}" for n in range(6)]
PATHS = [*(f"workflows/{name}.yaml" for name in NAMES), "workflows/deep/x.yaml", "workflows/deep/er/y.yml"]
_TRAILER = "\n\nPinflow-Confirm-Deletions: yes"
_PERSON = "Ada Author <ada@example.test>"


class Story:
    """A bare repository whose branch `main` moves in every way that people move branches."""

    def __init__(self, path: Path, chance: Random, model: Model) -> None:
        self.path = path
        self._chance = chance
        self._model = model
        self._clock = 1_790_000_000
        self._line: list[str] = []
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(path), where=path.parent)

    @property
    def tip(self) -> str:
        """Where the branch is."""
        return self._line[-1]

    def begin(self) -> None:
        """The first commit."""
        self._commit()

    def go_on(self) -> None:
        """Whatever happens next."""
        steps = [self._commit] * 7 + [
            self._merge,
            self._revert,
            self._amend,
            self._rewind,
            self._rewind_and_gc,
        ]
        self._chance.choice(steps)()

    # --- what people do ----------------------------------------------------------------------------------------

    def _commit(self) -> None:
        self._line.append(self._write(self._changed(self._files()), self._line[-1:]))

    def _merge(self) -> None:
        """A branch of two commits, merged: the two are no revisions."""
        first = self._write(self._changed(self._files()), [self.tip], ref="refs/tmp/side")
        tree = self._changed(self._model.trees[first])
        second = self._write(tree, [first], ref="refs/tmp/side")
        self._line.append(self._write(tree, [self.tip, second]))
        self._git("update-ref", "-d", "refs/tmp/side")

    def _revert(self) -> None:
        """Back to what the commit before the tip had."""
        parents = self._model.parents[self.tip]
        tree = self._model.trees[parents[0]] if parents else self._files()
        self._line.append(self._write(dict(tree), [self.tip]))

    def _amend(self) -> None:
        if len(self._line) > 1:
            self._line.pop()
            self._line.append(self._write(self._changed(self._files()), self._line[-1:]))

    def _rewind(self) -> None:
        """Throw some commits away, as a forced push does."""
        kept = self._chance.randint(1, len(self._line))
        self._line = self._line[:kept]
        self._git("update-ref", "refs/heads/main", self.tip)

    def _rewind_and_gc(self) -> None:
        self._rewind()
        self._git("gc", "--quiet", "--prune=now")

    # --- trees ----------------------------------------------------------------------------------------------------

    def _files(self) -> Files:
        return dict(self._model.trees[self.tip]) if self._line else {}

    def _changed(self, before: Files) -> Files:
        files = dict(before)
        for _ in range(self._chance.randint(1, 3)):
            self._change(files)
        return files

    def _change(self, files: Files) -> None:
        pick = self._chance.choice
        definitions = [path for path in files if is_definition(path)]
        name, path, marker = pick(NAMES), pick(PATHS), str(self._chance.randint(0, 3))
        what = self._chance.randint(0, 12)
        if what <= 4 or not definitions:
            function = pick(["", "", "lib:run"])
            files[path] = flow(name, marker, function=function)
            if function and self._chance.random() < 0.7:
                files.setdefault(LIB, f"def run(): return {marker}\n")
        elif what == 5:
            self._change_functions(files, marker)
        elif what == 6:
            files["README.md"] = marker
        elif what == 7:
            files.pop(pick(definitions))
        elif what in (8, 12):
            files[path] = files.pop(pick(definitions))
        elif what == 9:
            files[path] = pick([f"broken: {marker}\n", LINK, f"name: {name}\nbroken\n"])
        elif what == 10:
            for each in definitions[: self._chance.randint(1, len(definitions))]:
                files.pop(each)
        else:
            _mend(files, definitions)

    def _change_functions(self, files: Files, marker: str) -> None:
        """Mostly to functions that can be had; sometimes the one that is called goes, or their lock is none."""
        how = self._chance.randint(0, 7)
        if how == 0:
            files.pop(LIB, None)
        elif how == 1:
            files[LIB] = f"def walk(): return {marker}\n"
        elif how == 2:
            files[LOCK] = "idna>=3\n"
        else:
            files[LIB] = f"def run(): return {marker}\n"
            files.pop(LOCK, None)
            if how == 3:
                files[LOCK] = f"idna==3.{marker}\n"

    # --- git ------------------------------------------------------------------------------------------------------

    def _write(self, files: Files, parents: list[str], ref: str = "refs/heads/main") -> str:
        """One commit of a whole tree; `ref` moves to it."""
        self._clock += 1
        trailer = self._chance.random() < 0.15
        when = f"{self._clock} +0000"
        lines = [
            *([] if parents else [f"reset {ref}\n"]),
            f"commit {ref}\nmark :1\nauthor {_PERSON} {when}\ncommitter {_PERSON} {when}\n",
            _data(f"Change{_TRAILER if trailer else ''}\n"),
            *(f"{'merge' if number else 'from'} {each}\n" for number, each in enumerate(parents)),
            "deleteall\n",
        ]
        for path, content in sorted(files.items()):
            link = content == LINK
            lines.append(f"M {'120000' if link else '100644'} inline {path}\n")
            lines.append(_data("/etc/passwd" if link else content))
        lines.append("get-mark :1\n")
        sha = self._git("fast-import", "--quiet", "--force", given="".join(lines)).strip()
        self._model.trees[sha] = dict(files)
        self._model.parents[sha] = tuple(parents)
        if trailer:
            self._model.trailers.add(sha)
        return sha

    def _git(self, *arguments: str, given: str = "", where: Path | None = None) -> str:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environment = kept | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(
            ["git", *arguments],
            cwd=where or self.path,
            env=environment,
            input=given,
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout


def _mend(files: Files, definitions: list[str]) -> None:
    """Keep one valid file of each name."""
    seen: set[str] = set()
    for each in definitions:
        text = files[each]
        name = text.partition("name: ")[2].partition("\n")[0]
        if text == LINK or "broken" in text or name in seen:
            files.pop(each)
        seen.add(name)


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}\n"
