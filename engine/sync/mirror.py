"""A bare mirror of a repository's branches: fetched, mended, and read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from engine.errors import Misconfigured, SourceError
from engine.settings import Credential
from engine.sync import conditions, git_said, local_repository
from engine.sync.git_credentials import Access, check_host
from engine.sync.git_objects import damaged
from engine.sync.git_reader import Reader
from engine.sync.git_source import DEFAULT_LIMITS, Done, GitCommand, Limits, close_process, kill_group
from engine.sync.git_urls import Remote, parse_remote

FETCH_LIMIT = 60.0
"""Seconds for one fetch; the first one of a source may take longer."""
FIRST_FETCH_LIMIT = 900.0
_LOCAL_LIMIT = 60.0
_READ_LIMIT = 300.0
_FETCHES_BETWEEN_MAINTENANCE = 200
MAX_BROUGHT = 10_000
"""Commits of one merge that are looked at for their authors."""
_ENOUGH = 64 * 1024
"""Bytes of a remote's list of branches, of which one is asked for."""
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What is no branch's own fault: to ask for each branch alone would only take longer.
_OF_THE_WHOLE_REPOSITORY = frozenset(
    {
        conditions.NETWORK,
        conditions.TIMED_OUT,
        conditions.ACCESS_DENIED,
        conditions.NO_CREDENTIAL,
        conditions.REDIRECTED,
        conditions.REPOSITORY_NOT_FOUND,
        conditions.REPOSITORY_EMPTY,
        conditions.INVALID_SOURCE,
        conditions.DISK_FULL,
    }
)
_LEFTOVERS = ("*.lock", "refs/**/*.lock", "objects/info/**/*.lock", "objects/pack/*.lock", "objects/*/tmp_*")


class Mirror:
    """A bare copy of some branches of one repository, for all of the sources that share it.

    One thread fetches, any number may read meanwhile, and any may `interrupt`.
    Every method raises `SourceError` with a reason of `conditions.py`; no message holds a credential.
    """

    def __init__(
        self,
        url: str,
        branches: Iterable[str],
        data_dir: Path,
        credential: Credential | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.remote: Remote = parse_remote(url)
        check_host(credential, self.remote)
        self._root = (data_dir / "mirrors").resolve()
        self._root.mkdir(parents=True, exist_ok=True)
        self._limits = limits
        self._git = GitCommand(self.remote, self._root, Access(credential, self._root), limits)
        self._branches = tuple(dict.fromkeys(short_branch(each) for each in branches))
        for branch in self._branches:
            self._check_ref(branch)
        self._lock, self._path = _claim(self._root, _folder_name(self.remote, credential))
        self._fetches = 0
        self._suspects: set[str] = set()
        self._too_large: dict[tuple[str, ...], tuple[bytes, str]] = {}
        self._hash = "sha1"
        self._clear_leftovers()

    @property
    def path(self) -> Path:
        """Where the mirror stands."""
        return self._path

    # --- fetching ------------------------------------------------------------------------------------------

    def fetch(self) -> dict[str, SourceError]:
        """Bring the branches and all they need into the mirror; a damaged mirror is made again.

        The branches that could not be fetched, and why; raises `SourceError` if none could.  One fetch serves all:
        only a branch that failed is asked for in a fetch of its own, so that it stops no other.
        """
        if self.remote.local is not None and not self.remote.local.exists():
            raise self._git.error(conditions.REPOSITORY_NOT_FOUND, f"there is nothing at {self.remote.shown}")
        if self.remote.local is not None and (lent := local_repository.borrows(self.remote.local)):
            raise self._git.error(conditions.INVALID_SOURCE, lent)
        failed: dict[str, SourceError] = {}
        together = [branch for branch in self._branches if branch not in self._suspects]
        alone = [branch for branch in self._branches if branch in self._suspects]
        try:
            if together:
                self._fetch_or_mend(together)
        except SourceError as error:
            if len(together) == 1 or error.reason in _OF_THE_WHOLE_REPOSITORY:
                failed |= dict.fromkeys(together, error)
            else:
                alone = [*together, *alone]
        for branch in alone:
            try:
                self._fetch_or_mend([branch])
            except SourceError as error:
                failed[branch] = error
        self._suspects = {branch for branch in failed if len(self._branches) > 1}
        if len(failed) == len(self._branches):
            raise next(iter(failed.values()))
        return failed

    def _fetch_or_mend(self, branches: Sequence[str]) -> None:
        """Fetch branches, into a new mirror if there is none, or if the old one is ill or has grown too large.

        What is too large is not fetched again before it has changed.
        """
        known = self._too_large.get(tuple(branches))
        if known is not None and known[0] == self._asked(branches):
            raise self._git.error(conditions.TOO_LARGE, known[1])
        before = [self.tip(branch) for branch in branches]
        self._fetch_whole(branches)
        self._too_large.pop(tuple(branches), None)
        if before == [self.tip(branch) for branch in branches] or self._size() <= self._limits.disk:
            return
        self._create()  # without what no branch holds any more
        self._fetch_whole(branches)
        if self._size() > self._limits.disk:
            self.discard()
            raise self._larger_than_allowed(branches, "it was fetched, and thrown away")

    def _larger_than_allowed(self, branches: Sequence[str], said: str) -> SourceError:
        """The error, kept until the branches have changed."""
        disk, memory = (limit // 1024**2 for limit in (self._limits.disk, self._limits.memory))
        message = (
            f"the repository takes more than PINFLOW_GIT_MB ({disk} MB of disk) or PINFLOW_GIT_MEMORY_MB "
            f"({memory} MB of memory) allow: {said}"
        )
        self._too_large[tuple(branches)] = (self._asked(branches), message)
        return self._git.error(conditions.TOO_LARGE, message)

    def _asked(self, branches: Sequence[str]) -> bytes:
        """What the remote says of branches, without their objects; nothing if it cannot be asked."""
        wanted = ["ls-remote", "--quiet", "--", self.remote.fetch, *map(_ref, branches)]
        try:
            done = self._run(wanted, limit=FETCH_LIMIT, most=_ENOUGH)
        except SourceError:
            return b""
        return done.stdout if done.code == 0 else b""

    def _fetch_whole(self, branches: Sequence[str]) -> None:
        fresh = not self._looks_whole()
        if fresh:
            self._create()
        done = self._fetch(branches, FIRST_FETCH_LIMIT if fresh else FETCH_LIMIT)
        if done.code and (other := git_said.object_format(done.stderr)) and other != self._hash:
            self._hash = other
            fresh = True
            self._create()
            done = self._fetch(branches, FIRST_FETCH_LIMIT)
        if done.code == 0:
            return
        reason = git_said.why(done.stderr)
        if reason is None and not fresh:
            # Perhaps it is our copy that is ill.  A new one tells: if that fails too, the remote is to blame.
            self._create()
            done = self._fetch(branches, FIRST_FETCH_LIMIT)
            if done.code == 0:
                return
            reason = git_said.why(done.stderr)
        if reason == conditions.BRANCH_NOT_FOUND and not self._remote_has_branches():
            reason = conditions.REPOSITORY_EMPTY
        if reason == conditions.TOO_LARGE:
            raise self._larger_than_allowed(branches, git_said.last_words(done.stderr))
        raise self._git.error(reason or conditions.FETCH_FAILED, git_said.last_words(done.stderr))

    def _fetch(self, branches: Sequence[str], limit: float) -> Done:
        self._fetches += 1
        tidy = self._fetches % _FETCHES_BETWEEN_MAINTENANCE == 0
        done = None
        try:
            done = self._run_fetch(branches, limit, tidy=tidy)
        finally:
            if done is None or done.code:
                self._clear_leftovers()
        return done

    def _run_fetch(self, branches: Sequence[str], limit: float, *, tidy: bool) -> Done:
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
                *(f"+{_ref(branch)}:{_ref(branch)}" for branch in branches),
            ],
            limit=limit,
        )

    def _remote_has_branches(self) -> bool:
        wanted = ["ls-remote", "--quiet", "--heads", "--", self.remote.fetch]
        done = self._run(wanted, limit=FETCH_LIMIT, most=_ENOUGH)
        return done.code != 0 or bool(done.stdout.strip())

    def _size(self) -> int:
        """Bytes of the objects."""
        folders = [entry.path for entry in os.scandir(self._path / "objects") if entry.is_dir()]
        return sum(entry.stat().st_size for folder in folders for entry in os.scandir(folder))

    def _looks_whole(self) -> bool:
        return all((self._path / name).exists() for name in ("HEAD", "config", "objects", "refs"))

    def _create(self) -> None:
        """Make the mirror, empty; what was there goes. Renamed into place, so that a kill leaves no half of it."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            done = self._git.run(
                [
                    "init",
                    "--quiet",
                    "--bare",
                    "--template=",
                    f"--object-format={self._hash}",
                    "--",
                    str(fresh),
                ],
                limit=_LOCAL_LIMIT,
                git_dir=None,
            )
            if done.code != 0:
                reason = git_said.why(done.stderr) or conditions.MIRROR_BROKEN
                raise self._git.error(reason, git_said.last_words(done.stderr))
            shutil.rmtree(self._path, ignore_errors=True)
            fresh.rename(self._path)
        except OSError as error:
            raise of_our_disk(error) from error

    def _clear_leftovers(self) -> None:
        """What a git that was killed left: locks, and halves of packs, which would fill the disk look by look.

        Nobody else writes here: the claim says that the mirror is ours alone, and one thread fetches.
        """
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

    def brought(self, old: str, new: str, *more: str) -> list[str]:
        """Commits that `new` has and `old` (and `more`) lack, `new` first; not all of them, if they are very many."""
        others = (old, *more)
        done = self._list(new, others)
        if done.code != 0:  # a shallow repository ends there, or somebody named a commit that is not in it
            done = self._list(new, [each for each in others if self.has(each)])
        if done.code != 0:
            raise damaged(git_said.last_words(done.stderr))
        return done.stdout.decode("ascii").split()

    def _list(self, wanted: str, without: Sequence[str]) -> Done:
        named = [wanted, *(f"^{sha}" for sha in without)]
        return self._run(
            ["rev-list", f"--max-count={MAX_BROUGHT}", "--end-of-options", *named, "--"], limit=_LOCAL_LIMIT
        )

    def has(self, sha: str) -> bool:
        """Whether the mirror holds an object."""
        return self._run(["cat-file", "-e", "--end-of-options", sha], limit=_LOCAL_LIMIT).code == 0

    def _is_ancestor(self, old: str, new: str) -> bool:
        done = self._run(["merge-base", "--is-ancestor", "--end-of-options", old, new], limit=_LOCAL_LIMIT)
        if done.code in (0, 1):
            return done.code == 0
        # Not in the mirror at all, as after a forced push into a new mirror?
        if not self.has(old):
            return False
        raise damaged(git_said.last_words(done.stderr))

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` has `old` in its history; False as well if `old` is not in the mirror."""
        return self._is_ancestor(old, new)

    def tip(self, branch: str) -> str:
        """The commit of a branch as the last fetch left it, without starting git; "" if that cannot be told."""
        try:
            found = (self._path / _ref(short_branch(branch))).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""  # packed away by a gc, or never fetched
        return found if _SHA.fullmatch(found) else ""

    def judge(self, arguments: Sequence[str], *, limit: float, environment: Mapping[str, str]) -> Done:
        """Run git in the mirror for `trust.py`, with the operator's keys in its environment."""
        return self._git.run(arguments, limit=limit, git_dir=self._path, environment=environment)

    @contextlib.contextmanager
    def reader(self, branch: str = "") -> Iterator[Reader]:
        """One `cat-file --batch` process to read objects from; it ends with the block. Without `branch`, of the first."""
        process = self._git.start(["cat-file", "--batch"], stdin=subprocess.PIPE, git_dir=self._path)
        timer = threading.Timer(_READ_LIMIT, kill_group, [process])
        timer.daemon = True
        timer.start()
        try:
            yield Reader(process, _ref(short_branch(branch or self._branches[0])))
        finally:
            timer.cancel()
            self._git.running.discard(process)
            kill_group(process)
            close_process(process)

    def interrupt(self) -> None:
        """End what runs, from any thread; the mirror is of no more use."""
        self._git.interrupt()

    def close(self) -> None:
        """Give the mirror free for others. A second time nothing: the number may be another file's by then."""
        self.interrupt()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _check_ref(self, branch: str) -> None:
        done = self._git.run(["check-ref-format", _ref(branch)], limit=_LOCAL_LIMIT, git_dir=None)
        if done.code != 0:
            raise SourceError("the branch is no valid name of a branch", reason=conditions.INVALID_SOURCE)

    def _run(self, arguments: Sequence[str], *, limit: float, most: int | None = None) -> Done:
        if most is None:
            return self._git.run(arguments, limit=limit, git_dir=self._path)
        return self._git.run(arguments, limit=limit, git_dir=self._path, most=most)


def of_our_disk(error: OSError) -> SourceError:
    """What our own file system refused, as a condition of the source."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = conditions.DISK_FULL if full else conditions.MIRROR_BROKEN
    return SourceError(
        f"{error.filename or 'the data folder'}: {error.strerror or error}",
        reason=reason,
        hint=conditions.REASONS[reason].action,
    )


def short_branch(branch: str) -> str:
    """The branch without `refs/heads/`."""
    return branch.removeprefix("refs/heads/")


def _ref(branch: str) -> str:
    return f"refs/heads/{branch}"


def _folder_name(remote: Remote, credential: Credential | None) -> str:
    """One folder for a repository and the way into it: who may not read it must not find what another fetched."""
    way = credential.model_dump_json() if credential else ""
    digest = hashlib.sha256(f"{remote.fetch}\n{way}".encode()).hexdigest()[:16]
    last = re.sub(r"[^a-z0-9]+", "-", remote.shown.rstrip("/").rpartition("/")[2].lower()).strip("-")
    return f"{last[:40] or 'repository'}-{digest}"


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
