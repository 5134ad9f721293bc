"""The only importer of git: runs the git command for one source, in a fixed and fenced way.

GitPython serves as a runner of the command and nothing else.  What is fenced, and against what:
- argument lists are fixed here; a URL, a ref or an id stands behind `--` or is checked before;
- of this process' environment git gets what a short list names, and so none of its secrets; ours names one configuration
  file: no system, user or command-line configuration, no hooks, no prompts, no credential helpers, no redirects, one
  allowed transport;
- no work tree, no submodules, no filters: objects are read from the mirror by `cat-file --batch`;
- objects are checked on receipt; processes run in a group of their own, with limits on time, memory and the size of
  files, and the whole group is killed;
- a watched local repository is fetched over file:// like any remote: no command but `upload-pack` runs in it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.errors import Misconfigured, SourceError
from engine.sync import conditions
from engine.sync.git_credentials import NO_CREDENTIAL, Access
from engine.sync.git_urls import Remote

_MAX_STDERR = 64 * 1024
_MAX_STDOUT = 256 * 1024 * 1024
_INHERITED = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "TMPDIR",
        "TZ",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "SSH_AUTH_SOCK",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "GIT_ASKPASS",
    ]
)
"""All that git, ssh and their helpers get of this process' environment: how to find programs, hosts and authorities."""
_LIMITED = 'ulimit -f "$1" 2>/dev/null; ulimit -d "$2" 2>/dev/null; shift 2; exec "$@"'
"""Limits that stand before git runs, and so for whatever it starts. Where a system has none, git runs without."""

_CONFIG = """\
# Written by Pinflow; the only configuration that its git processes read besides the mirror's own.
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tbigFileThreshold = 32m
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


def require_git() -> None:
    """Raise `Misconfigured` unless there is a git to run."""
    if shutil.which("git") is None:
        raise Misconfigured("git is not on the PATH, and sources are read with it", hint="install git")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one repository may take, in bytes."""

    disk: int = 8 * 1024**3
    """Of its copy as a whole, and so of each file that git writes."""
    memory: int = 2 * 1024**3
    """Of each git process."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Done:
    """How a git command ended. `stderr` is its beginning."""

    code: int
    stdout: bytes
    stderr: str


class GitCommand:
    """Runs git for one remote, in a folder of ours. `interrupt` may be called from any thread."""

    def __init__(
        self,
        remote: Remote,
        folder: Path,
        access: Access = NO_CREDENTIAL,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._remote = remote
        self._access = access
        self._folder = folder
        self._limits = limits
        self._config = folder / "gitconfig"
        _write_config(self._config)
        self._git = _git_runner(folder)
        self.running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def interrupt(self) -> None:
        """End what runs; nothing more can be started."""
        self._closed = True
        for process in list(self.running):
            kill_group(process)

    def redact(self, message: str) -> str:
        """Words of a remote without what no message may hold: it knows the credential that it was given."""
        return self._remote.redact(message, self._access.secrets())

    def run(
        self,
        arguments: Sequence[str],
        *,
        limit: float,
        git_dir: Path | None,
        environment: Mapping[str, str] | None = None,
        most: int = _MAX_STDOUT,
    ) -> Done:
        """Run git to its end. Raises `SourceError` (TimedOut) after `limit` seconds, with all its processes killed.

        Of what it prints, the first `most` bytes are read; if there is more, it is ended and its code is not 0.
        """
        process = self.start(arguments, stdin=subprocess.DEVNULL, git_dir=git_dir, environment=environment)
        late = threading.Event()

        def end() -> None:
            late.set()
            kill_group(process)

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        said = bytearray()
        listener = threading.Thread(target=_drain, args=(process.stderr, said), daemon=True)
        listener.start()
        try:
            assert process.stdout is not None
            stdout = process.stdout.read(most)
            if len(stdout) == most:
                kill_group(process)
            _await_exit(process)
        finally:
            timer.cancel()
            self.running.discard(process)
            kill_group(process)  # a helper may have outlived its parent
            listener.join(5)
            close_process(process)
        if late.is_set():
            raise self.error(conditions.TIMED_OUT, f"git {arguments[0]} took longer than {limit:g} s")
        return Done(process.returncode, stdout, said.decode("utf-8", "replace"))

    def start(
        self,
        arguments: Sequence[str],
        *,
        stdin: int,
        git_dir: Path | None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        if self._closed:
            raise self.error(conditions.FETCH_FAILED, "the daemon is stopping")
        environment = self._environment(git_dir) | dict(environment or {})
        # GitPython adds to the process' own environment and cannot take away from it.
        foreign = [name for name in os.environ if name not in environment and name not in _INHERITED]
        without = ["env", *(part for name in foreign for part in ("-u", name))] if foreign else []
        limits = [str(self._limits.disk // 512), str(self._limits.memory // 1024)]
        command = ["sh", "-c", _LIMITED, "sh", *limits, *without, "git", *arguments]
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
        self.running.add(process)
        return process

    def _environment(self, git_dir: Path | None) -> dict[str, str]:
        environment: dict[str, str] = {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_ATTR_NOSYSTEM": "1",
            # The data folder may lie in somebody's repository: git must not find that one by looking upwards.
            "GIT_CEILING_DIRECTORIES": str(self._folder.parent),
            "LC_ALL": "C",
            "LANGUAGE": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": self._remote.scheme,
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_ADVICE": "0",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=15 -o StrictHostKeyChecking=yes "
            "-o ServerAliveInterval=10 -o ServerAliveCountMax=3",
            # The operator's own way to hand over a token; without one, git must not ask anybody.
            "GIT_ASKPASS": os.environ.get("GIT_ASKPASS", "/bin/false"),
            "SSH_ASKPASS": "/bin/false",
        }
        if git_dir is not None:
            environment["GIT_DIR"] = str(git_dir)
        return environment | dict(self._access.environment())

    def error(self, reason: str, message: str) -> SourceError:
        """An error about the remote, without credentials."""
        said = self.redact(message)
        return SourceError(said, reason=reason, hint=conditions.REASONS[reason].action)


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


def kill_group(process: subprocess.Popen[bytes]) -> None:
    # The group's id is the leader's, and stays reserved while a member lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _await_exit(process: subprocess.Popen[bytes]) -> None:
    """Wait without reaping: while the process is not reaped, its id, and so its group's, is nobody else's."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def close_process(process: subprocess.Popen[bytes]) -> None:
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
