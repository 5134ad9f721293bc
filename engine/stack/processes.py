"""Child processes that can be told apart from strangers: held locks, parents' deaths, free ports.

A pid alone proves nothing: it may have been given to somebody else since.  A child therefore inherits an open,
locked file; as long as the lock is held, that very child lives, and what the file says of it is true.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


class HeldLock:
    """A lock file whose lock lives as long as the process that inherited it.

    `acquire` gives False while somebody else holds it; `note` writes what that somebody should be known by.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def fileno(self) -> int:
        """The descriptor to pass to a child (`pass_fds`); only after `acquire`."""
        if self._fd is None:
            raise RuntimeError(f"{self.path} is not locked by this process")
        return self._fd

    def note(self, facts: dict[str, Any]) -> None:
        """Write down who holds the lock: pid, port and the like."""
        content = json.dumps(facts).encode()
        os.ftruncate(self.fileno(), 0)
        os.pwrite(self.fileno(), content, 0)

    def read(self) -> dict[str, Any]:
        """What the holder (or the last one) was known by; empty if nothing readable stands there."""
        try:
            facts = json.loads(self.path.read_bytes() or b"{}")
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def let_go(self) -> None:
        """Close this process's copy: from now on only a child that inherited it holds the lock."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def is_held(self) -> bool:
        """Whether anybody, this process included, holds the lock."""
        probe = HeldLock(self.path)
        if probe.acquire():
            probe.let_go()
            return False
        return True


async def end_holder(lock: HeldLock, *, patience: float, polite: signal.Signals = signal.SIGTERM) -> None:
    """Ask the process that holds the lock to end; after `patience` seconds end it by force.

    Only a pid whose lock is held is signalled, so that a recycled pid is safe.
    """
    for sign, wait in ((polite, patience), (signal.SIGKILL, 10.0)):
        pid = lock.read().get("pid")
        if not lock.is_held():
            return
        if isinstance(pid, int):
            send(pid, sign)
        if await until(lambda: not lock.is_held(), wait):
            return
    raise RuntimeError(f"the process behind {lock.path} does not end")


def send(pid: int, sign: signal.Signals) -> None:
    """Send a signal; a process that is already gone is no error."""
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        pass


async def until(condition: Callable[[], bool], seconds: float, *, interval: float = 0.02) -> bool:
    """Poll until the condition holds (True) or the seconds are over (False)."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(interval)
    return True


def free_port(preferred: int = 0) -> int:
    """A port on 127.0.0.1 that nobody listens on: the preferred one if it can be had, else one that the OS picks."""
    for port in (preferred, 0) if preferred else (0,):
        with socket.socket() as probe:
            # Without this, a port that our own last process used a moment ago counts as taken (TIME_WAIT).
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def dying_with_parent(sign: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn` by which the kernel sends the child `sign` when the thread that started it ends (Linux only).

    None elsewhere.  To be used from the main thread: the kernel watches the thread, not the process.
    """
    if sys.platform != "linux":
        return None
    # Loaded here and not in the child: between fork and exec only calls that allocate nothing are safe.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def leave_when_stdin_closes() -> None:
    """Send this process SIGTERM when its standard input ends: a supervisor that holds the other end is then gone.

    Works on every system and for every way in which the supervisor may end.
    """

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
