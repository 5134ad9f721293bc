"""The only importer of git: a bare mirror of one source, fetched and read by the git command in a fixed, fenced way.

GitPython serves as a runner of the command and nothing else.  What is fenced, and against what:
- argument lists are fixed here; a URL, a ref or an id stands behind `--` or is checked before;
- the environment names one configuration file of ours: no system, user or command-line configuration, no hooks,
  no prompts, no credential helpers, no redirects, one allowed transport;
- no work tree, no submodules, no filters: objects are read from the mirror by `cat-file --batch`;
- objects are checked on receipt; processes run in a group of their own, with a limit on time and on file size,
  and the whole group is killed;
- a watched local repository is fetched over file:// like any remote: no command but `upload-pack` runs in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.errors import Misconfigured, SourceError
from engine.settings import SourceSettings
from engine.sync import conditions
from engine.sync.git_objects import (
    CommitObject,
    Difference,
    Entry,
    damaged,
    diff_trees,
    folder_entry,
    parse_commit,
)
from engine.sync.git_urls import Remote, parse_remote

FETCH_LIMIT = 60.0
"""Seconds for one fetch; the first one of a source may take longer."""
FIRST_FETCH_LIMIT = 900.0
_LOCAL_LIMIT = 60.0
_READ_LIMIT = 300.0
_MAX_FILE = 8 * 1024**3
"""Bytes: no single file that git writes (a pack) may be larger."""
_MAX_STDERR = 64 * 1024
_MAX_STDOUT = 256 * 1024 * 1024
# The folder of one commit is looked at again as the one before the next.
_TREES_KEPT = 8
_MAX_TREE = 64 * 1024 * 1024
_FETCHES_BETWEEN_MAINTENANCE = 200

# What an operator may set for the daemon: whom to trust, and how to get a token.
_FROM_THE_OPERATOR = frozenset({"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_ASKPASS"})
_LEFTOVERS = ("*.lock", "refs/**/*.lock", "objects/info/**/*.lock", "objects/pack/*.lock", "objects/*/tmp_*")

_CONFIG = """\
# Written by Pinflow; the only configuration that its git processes read besides the mirror's own.
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\taskPass =
[credential]
\thelper =
[protocol]
\tallow = never
[protocol "https"]
\tallow = always
[protocol "ssh"]
\tallow = always
[protocol "file"]
\tallow = always
[transfer]
\tfsckObjects = true
[fetch]
\trecurseSubmodules = false
\twriteCommitGraph = false
[submodule]
\trecurse = false
[http]
\tfollowRedirects = false
\tlowSpeedLimit = 1000
\tlowSpeedTime = 20
[gc]
\tautoDetach = false
[maintenance]
\tautoDetach = false
# The operator named the repository in the settings, and nothing but upload-pack runs in it.
[safe]
\tdirectory = *
"""


@dataclass(frozen=True, slots=True)
class _Done:
    code: int
    stdout: bytes
    stderr: str


class Mirror:
    """A bare copy of one branch of one source. Not for use by two threads at once, except `interrupt`.

    Every method raises `SourceError` with a reason of `conditions.py`; no message holds a credential.
    """

    def __init__(self, source: SourceSettings, data_dir: Path) -> None:
        self.remote: Remote = parse_remote(source.url)
        self._ref = f"refs/heads/{source.branch.removeprefix('refs/heads/')}"
        self._root = (data_dir / "mirrors").resolve()
        self._root.mkdir(parents=True, exist_ok=True)
        self._config = self._root / "gitconfig"
        _write_config(self._config)
        self._git = _git_runner(self._root)
        self._lock, self._path = _claim(self._root, source.name)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False
        self._fetches = 0
        self._check_ref()
        self._clear_stale_locks()

    # --- fetching ------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Bring the branch's tip and all it needs into the mirror. A damaged mirror is made again."""
        if self.remote.local is not None and not self.remote.local.exists():
            raise self._error(conditions.REPOSITORY_NOT_FOUND, f"there is nothing at {self.remote.shown}")
        fresh = not self._looks_whole()
        if fresh:
            self._create()
        done = self._fetch(FIRST_FETCH_LIMIT if fresh else FETCH_LIMIT)
        if done.code == 0:
            return
        reason = _why(done.stderr)
        if reason is None and not fresh:
            # Perhaps it is our copy that is ill.  A new one tells: if that fails too, the remote is to blame.
            self._create()
            done = self._fetch(FIRST_FETCH_LIMIT)
            if done.code == 0:
                return
            reason = _why(done.stderr)
        if reason == conditions.BRANCH_NOT_FOUND and not self._remote_has_branches():
            reason = conditions.REPOSITORY_EMPTY
        raise self._error(reason or conditions.FETCH_FAILED, _last_words(done.stderr))

    def _fetch(self, limit: float) -> _Done:
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
            done = self._run(
                ["init", "--quiet", "--bare", "--template=", "--", str(fresh)],
                limit=_LOCAL_LIMIT,
                git_dir=None,
            )
            if done.code != 0:
                raise self._error(conditions.MIRROR_BROKEN, _last_words(done.stderr))
            shutil.rmtree(self._path, ignore_errors=True)
            fresh.rename(self._path)
        except OSError as error:
            raise self._error(conditions.MIRROR_BROKEN, f"{self._path}: {error.strerror}") from error

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
            raise damaged(_last_words(done.stderr))
        return done.stdout.decode("ascii").split(), False

    def _is_ancestor(self, old: str, new: str) -> bool:
        done = self._run(["merge-base", "--is-ancestor", "--end-of-options", old, new], limit=_LOCAL_LIMIT)
        if done.code in (0, 1):
            return done.code == 0
        # Not in the mirror at all, as after a forced push into a new mirror?
        if self._run(["cat-file", "-e", "--end-of-options", old], limit=_LOCAL_LIMIT).code != 0:
            return False
        raise damaged(_last_words(done.stderr))

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """One `cat-file --batch` process to read objects from; it ends with the block."""
        process = self._start(["cat-file", "--batch"], stdin=subprocess.PIPE, git_dir=self._path)
        timer = threading.Timer(_READ_LIMIT, _kill_group, [process])
        timer.daemon = True
        timer.start()
        try:
            yield Reader(process, self._ref)
        finally:
            timer.cancel()
            self._running.discard(process)
            _kill_group(process)
            _close(process)

    # --- processes -----------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """End what runs, from any thread; the mirror is of no more use."""
        self._closed = True
        for process in list(self._running):
            _kill_group(process)

    def close(self) -> None:
        """Give the mirror free for others."""
        self.interrupt()
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def _check_ref(self) -> None:
        folder_done = self._run(["check-ref-format", self._ref], limit=_LOCAL_LIMIT, git_dir=None)
        if folder_done.code != 0:
            raise SourceError("the branch is no valid name of a branch", reason=conditions.INVALID_SOURCE)

    def _run(self, arguments: Sequence[str], *, limit: float, git_dir: Path | str | None = "") -> _Done:
        process = self._start(
            arguments, stdin=subprocess.DEVNULL, git_dir=self._path if git_dir == "" else None
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill_group(process)

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        said = bytearray()
        listener = threading.Thread(target=_drain, args=(process.stderr, said), daemon=True)
        listener.start()
        try:
            assert process.stdout is not None
            stdout = process.stdout.read(_MAX_STDOUT)
            _await_exit(process)
        finally:
            timer.cancel()
            self._running.discard(process)
            _kill_group(process)  # a helper may have outlived its parent
            listener.join(5)
            _close(process)
        if late.is_set():
            raise self._error(conditions.TIMED_OUT, f"git {arguments[0]} took longer than {limit:g} s")
        return _Done(process.returncode, stdout, said.decode("utf-8", "replace"))

    def _start(
        self, arguments: Sequence[str], *, stdin: int, git_dir: Path | None
    ) -> subprocess.Popen[bytes]:
        if self._closed:
            raise self._error(conditions.FETCH_FAILED, "the daemon is stopping")
        environment = self._environment(git_dir)
        foreign = [
            name
            for name in os.environ
            if name.startswith("GIT_") and name not in environment and name not in _FROM_THE_OPERATOR
        ]
        # GitPython adds to the process' own environment and cannot take away from it.
        command = ["git", *arguments]
        if foreign:
            command = ["env", *(part for name in foreign for part in ("-u", name)), *command]
        # A stdin of None would be /dev/null; GitPython asks for a stream or a number.
        running: Any = self._git.execute(
            command,
            istream=stdin,
            as_process=True,
            env=environment,
            start_new_session=True,
        )
        process: subprocess.Popen[bytes] = running.proc
        running.proc = None  # we end it ourselves, with its group
        _limit_files(process.pid)
        self._running.add(process)
        return process

    def _environment(self, git_dir: Path | None) -> dict[str, str]:
        environment = {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_ATTR_NOSYSTEM": "1",
            # The data folder may lie in somebody's repository: git must not find that one by looking upwards.
            "GIT_CEILING_DIRECTORIES": str(self._root.parent),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": self.remote.scheme,
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_ADVICE": "0",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=15 -o StrictHostKeyChecking=yes",
            # The operator's own way to hand over a token; without one, git must not ask anybody.
            "GIT_ASKPASS": os.environ.get("GIT_ASKPASS", "/bin/false"),
            "SSH_ASKPASS": "/bin/false",
        }
        if git_dir is not None:
            environment["GIT_DIR"] = str(git_dir)
        return environment

    def _error(self, reason: str, message: str) -> SourceError:
        return SourceError(self.remote.redact(message), reason=reason, hint=conditions.REASONS[reason].action)


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
        header = self._out.readline().decode("ascii", "replace").split()
        if len(header) != 3 or not header[2].isdigit():
            if header[-1:] == ["missing"]:
                return "", "", None
            raise damaged("git cat-file has ended")
        size = int(header[2])
        if size > max_bytes:
            self._skip(size + 1)
            return header[0], header[1], None
        content = self._out.read(size + 1)
        if len(content) != size + 1:
            raise damaged("git cat-file has ended")
        return header[0], header[1], content[:-1]

    def _skip(self, left: int) -> None:
        while left:
            chunk = self._out.read(min(left, 1 << 20))
            if not chunk:
                raise damaged("git cat-file has ended")
            left -= len(chunk)


# What git says, in the order in which it is looked for.  LC_ALL=C keeps the words.
_SAID: tuple[tuple[str, str], ...] = (
    (conditions.BRANCH_NOT_FOUND, r"couldn't find remote ref"),
    (conditions.TIMED_OUT, r"Operation too slow|timed out|Timeout"),
    (
        conditions.NETWORK,
        r"Could not resolve host|Connection refused|Failed to connect|Couldn't connect|unreachable|No route to host"
        r"|Connection reset|early EOF|hung up unexpectedly|unexpected disconnect|SSL|returned error: 5\d\d|RPC failed",
    ),
    (
        conditions.ACCESS_DENIED,
        r"Authentication failed|could not read (Username|Password)|Permission denied|Host key verification failed"
        r"|returned error: 40[13]|terminal prompts disabled",
    ),
    (
        conditions.REPOSITORY_NOT_FOUND,
        r"[Rr]epository .*not found|does not appear to be a git repository|does not exist|not a git repository"
        r"|returned error: 404",
    ),
    (conditions.INVALID_SOURCE, r"transport '.*' not allowed"),
    (conditions.MIRROR_BROKEN, r"No space left|Disk quota|File too large|File size limit"),
    (conditions.UNSAFE_OBJECTS, r"fsck error|error: object [0-9a-f]{40,64}: |hasDot|gitmodules"),
)


def _why(stderr: str) -> str | None:
    """The reason in what git said, or None if it is no known one."""
    for reason, pattern in _SAID:
        if re.search(pattern, stderr):
            return reason
    return None


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))] or lines
    return "; ".join(told[:4]) or "git failed without a word"


def _git_runner(folder: Path) -> Any:
    # GitPython looks for the git command when it is imported.
    try:
        from git.cmd import Git
    except ImportError as error:
        raise Misconfigured("the git command is not installed", hint="install git 2.30 or newer") from error
    # At DEBUG it logs whole commands, and so URLs.
    logging.getLogger("git").setLevel(logging.WARNING)
    return Git(str(folder))


def _write_config(path: Path) -> None:
    if path.exists() and path.read_text() == _CONFIG:
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text(_CONFIG)
    fresh.replace(path)


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


def _limit_files(pid: int) -> None:
    try:
        import resource

        resource.prlimit(pid, resource.RLIMIT_FSIZE, (_MAX_FILE, _MAX_FILE))
    except (ImportError, AttributeError, OSError, ValueError):
        pass  # not on this system, or the process is done already


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The group's id is the leader's, and stays reserved while a member lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _await_exit(process: subprocess.Popen[bytes]) -> None:
    """Wait without reaping: while the process is not reaped, its id, and so its group's, is nobody else's."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()


def _drain(stream: IO[bytes], said: bytearray) -> None:
    """Keep the first words of a stream and read the rest away, so that its writer never waits."""
    with contextlib.suppress(OSError, ValueError):
        while chunk := stream.read1(8192) if hasattr(stream, "read1") else stream.read(8192):
            if len(said) < _MAX_STDERR:
                said += chunk
