"""A bare mirror of one branch of one source: fetched, mended, and read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.errors import Misconfigured, SourceError
from engine.settings import SourceSettings
from engine.sync import conditions, git_said
from engine.sync.git_objects import damaged
from engine.sync.git_reader import Reader
from engine.sync.git_source import Done, GitCommand, close_process, kill_group
from engine.sync.git_urls import Remote, parse_remote

FETCH_LIMIT = 60.0
"""Seconds for one fetch; the first one of a source may take longer."""
FIRST_FETCH_LIMIT = 900.0
_LOCAL_LIMIT = 60.0
_READ_LIMIT = 300.0
_FETCHES_BETWEEN_MAINTENANCE = 200
_MAX_BROUGHT = 10_000
"""Commits of one merge that are looked at for their authors."""
_LEFTOVERS = ("*.lock", "refs/**/*.lock", "objects/info/**/*.lock", "objects/pack/*.lock", "objects/*/tmp_*")


class Mirror:
    """A bare copy of one branch of one source. Not for use by two threads at once, except `interrupt`.

    Every method raises `SourceError` with a reason of `conditions.py`; no message holds a credential.
    """

    def __init__(self, source: SourceSettings, data_dir: Path) -> None:
        self.remote: Remote = parse_remote(source.url)
        self._ref = f"refs/heads/{source.branch.removeprefix('refs/heads/')}"
        self._root = (data_dir / "mirrors").resolve()
        self._root.mkdir(parents=True, exist_ok=True)
        self._git = GitCommand(self.remote, self._root)
        self._lock, self._path = _claim(self._root, source.name)
        self._fetches = 0
        self._check_ref()
        self._clear_stale_locks()

    # --- fetching ------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Bring the branch's tip and all it needs into the mirror. A damaged mirror is made again."""
        if self.remote.local is not None and not self.remote.local.exists():
            raise self._git.error(conditions.REPOSITORY_NOT_FOUND, f"there is nothing at {self.remote.shown}")
        fresh = not self._looks_whole()
        if fresh:
            self._create()
        done = self._fetch(FIRST_FETCH_LIMIT if fresh else FETCH_LIMIT)
        if done.code == 0:
            return
        reason = git_said.why(done.stderr)
        if reason is None and not fresh:
            # Perhaps it is our copy that is ill.  A new one tells: if that fails too, the remote is to blame.
            self._create()
            done = self._fetch(FIRST_FETCH_LIMIT)
            if done.code == 0:
                return
            reason = git_said.why(done.stderr)
        if reason == conditions.BRANCH_NOT_FOUND and not self._remote_has_branches():
            reason = conditions.REPOSITORY_EMPTY
        raise self._git.error(reason or conditions.FETCH_FAILED, git_said.last_words(done.stderr))

    def _fetch(self, limit: float) -> Done:
        self._fetches += 1
        tidy = self._fetches % _FETCHES_BETWEEN_MAINTENANCE == 0
        return self._run(
            [
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-recurse-submodules",
                "--no-write-fetch-head",
                "--no-show-forced-updates",
                "--update-shallow",
                "--auto-maintenance" if tidy else "--no-auto-maintenance",
                "--refmap=",
                "--",
                self.remote.fetch,
                f"+{self._ref}:{self._ref}",
            ],
            limit=limit,
        )

    def _remote_has_branches(self) -> bool:
        done = self._run(["ls-remote", "--quiet", "--heads", "--", self.remote.fetch], limit=FETCH_LIMIT)
        return done.code != 0 or bool(done.stdout.strip())

    def _looks_whole(self) -> bool:
        return all((self._path / name).exists() for name in ("HEAD", "config", "objects", "refs"))

    def _create(self) -> None:
        """Make the mirror, empty; what was there goes. Renamed into place, so that a kill leaves no half of it."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            done = self._git.run(
                ["init", "--quiet", "--bare", "--template=", "--", str(fresh)],
                limit=_LOCAL_LIMIT,
                git_dir=None,
            )
            if done.code != 0:
                raise self._git.error(conditions.MIRROR_BROKEN, git_said.last_words(done.stderr))
            shutil.rmtree(self._path, ignore_errors=True)
            fresh.rename(self._path)
        except OSError as error:
            raise self._git.error(conditions.MIRROR_BROKEN, f"{self._path}: {error.strerror}") from error

    def _clear_stale_locks(self) -> None:
        """What a killed process left. It is stale: the claim says that the mirror is ours alone."""
        for pattern in _LEFTOVERS:
            for left in self._path.glob(pattern):
                with contextlib.suppress(OSError):
                    left.unlink()

    def discard(self) -> None:
        """Throw the mirror away, since it is damaged; the next fetch makes it again."""
        shutil.rmtree(self._path, ignore_errors=True)

    # --- history -------------------------------------------------------------------------------------------

    def history(self, old: str, new: str) -> tuple[list[str], bool]:
        """First-parent commits after `old` up to `new`, oldest first, and whether history was rewritten.

        If `old` is no ancestor of `new` (a forced push, or a commit that is gone), that is `([new], True)`.
        """
        if not self._is_ancestor(old, new):
            return [new], True
        done = self._run(
            ["rev-list", "--first-parent", "--reverse", "--end-of-options", f"{old}..{new}", "--"],
            limit=_LOCAL_LIMIT,
        )
        if done.code != 0:
            raise damaged(git_said.last_words(done.stderr))
        return done.stdout.decode("ascii").split(), False

    def brought(self, old: str, new: str) -> list[str]:
        """Commits that `new` has and `old` lacks, `new` first; not all of them, if they are very many."""
        done = self._list(f"{old}..{new}")
        if done.code != 0 and not self._has(old):
            done = self._list(new)  # a shallow repository ends there
        if done.code != 0:
            raise damaged(git_said.last_words(done.stderr))
        return done.stdout.decode("ascii").split()

    def _list(self, wanted: str) -> Done:
        return self._run(
            ["rev-list", f"--max-count={_MAX_BROUGHT}", "--end-of-options", wanted, "--"], limit=_LOCAL_LIMIT
        )

    def _has(self, sha: str) -> bool:
        return self._run(["cat-file", "-e", "--end-of-options", sha], limit=_LOCAL_LIMIT).code == 0

    def _is_ancestor(self, old: str, new: str) -> bool:
        done = self._run(["merge-base", "--is-ancestor", "--end-of-options", old, new], limit=_LOCAL_LIMIT)
        if done.code in (0, 1):
            return done.code == 0
        # Not in the mirror at all, as after a forced push into a new mirror?
        if not self._has(old):
            return False
        raise damaged(git_said.last_words(done.stderr))

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """One `cat-file --batch` process to read objects from; it ends with the block."""
        process = self._git.start(["cat-file", "--batch"], stdin=subprocess.PIPE, git_dir=self._path)
        timer = threading.Timer(_READ_LIMIT, kill_group, [process])
        timer.daemon = True
        timer.start()
        try:
            yield Reader(process, self._ref)
        finally:
            timer.cancel()
            self._git.running.discard(process)
            kill_group(process)
            close_process(process)

    def interrupt(self) -> None:
        """End what runs, from any thread; the mirror is of no more use."""
        self._git.interrupt()

    def close(self) -> None:
        """Give the mirror free for others."""
        self.interrupt()
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def _check_ref(self) -> None:
        done = self._git.run(["check-ref-format", self._ref], limit=_LOCAL_LIMIT, git_dir=None)
        if done.code != 0:
            raise SourceError("the branch is no valid name of a branch", reason=conditions.INVALID_SOURCE)

    def _run(self, arguments: Sequence[str], *, limit: float) -> Done:
        return self._git.run(arguments, limit=limit, git_dir=self._path)


def _claim(root: Path, name: str) -> tuple[int, Path]:
    """The first mirror of this name that no other process holds, and the open file that says so.

    A second daemon over the same folder gets a mirror of its own: git's locks are then never contended.
    """
    for slot in range(1, 17):
        folder = root / (f"{name}.git" if slot == 1 else f"{name}.{slot}.git")
        handle = os.open(folder.with_suffix(".claim"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        return handle, folder
    raise Misconfigured(f"16 processes hold mirrors of {name} below {root}", hint="stop some of them")
