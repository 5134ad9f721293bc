"""Keeping child processes alive: each is started again when it ends, after a pause that grows while it keeps failing."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from engine.stack.processes import HeldLock, end_holder, send, until

_LOOK_EVERY = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0
_STEADY_AFTER = 30.0
_LOG_LIMIT = 20_000_000


class Part(Protocol):
    """Something that can be started again: a server or one of our own processes."""

    async def start(self) -> None:
        """Start it, or take over the one that runs."""

    def alive(self) -> bool:
        """Whether its process is there."""

    async def stop(self) -> None:
        """End it in order."""


class Process:
    """One of our own commands as a child, its output in a log file.

    The child inherits a held lock, by which a later supervisor recognises an orphan, and the read end of a pipe as
    its standard input: when this process ends, however it ends, the pipe closes and the child drains and leaves.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        patience: float,
        inherits: tuple[int, ...] = (),
    ) -> None:
        self.log = folder / "logs" / f"{name}.log"
        self._command = command
        self._environment = dict(environment)
        self._lock = HeldLock(folder / "run" / f"{name}.lock")
        self._patience = patience
        self._inherits = inherits
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, after an orphan of an earlier supervisor has left."""
        self._lock.path.parent.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # An orphan is on its way out already: its pipe closed with its supervisor.
        await end_holder(self._lock, patience=self._patience)
        if not self._lock.acquire():
            raise RuntimeError(f"{self._lock.path} was taken meanwhile")
        try:
            self._process = self._spawn()
            self._lock.note({"pid": self._process.pid})
        finally:
            self._lock.let_go()

    def alive(self) -> bool:
        """Whether the child lives."""
        return self._process is not None and self._process.poll() is None

    async def stop(self) -> None:
        """Ask it to drain; end it by force when its patience is over."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            send(process.pid, signal.SIGTERM)
            if not await until(lambda: process.poll() is not None, self._patience):
                process.kill()
                await until(lambda: process.poll() is not None, 10)
        self._close_pipe()

    def kill(self) -> None:
        """End it by force, now."""
        if self._process is not None:
            self._process.kill()

    def how_it_ended(self) -> str:
        """Words for people: by which signal, or with which code."""
        code = self._process.poll() if self._process else None
        if code is None:
            return "is gone"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._close_pipe()
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops the parts in order
                pass_fds=(self._lock.fileno(), *self._inherits),
            )

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


async def keep_alive(name: str, part: Part, say: Callable[[str], None]) -> None:
    """Start the part again whenever it is gone, for ever. Cancel to end."""
    pause = _FIRST_PAUSE
    while True:
        since = time.monotonic()
        await until(lambda: not part.alive(), math.inf, interval=_LOOK_EVERY)
        if time.monotonic() - since > _STEADY_AFTER:
            pause = _FIRST_PAUSE
        how = part.how_it_ended() if isinstance(part, Process) else "is gone"
        say(f"{name} {how}; starting it again")
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
        try:
            await part.start()
            say(f"{name} is back")
        except (
            Exception
        ) as error:  # whatever it is, the next try may go better, and nobody else would make it
            say(f"{name} does not start: {error}")


async def stop_in_order(parts: Mapping[str, Part], say: Callable[[str], None]) -> None:
    """Stop the parts one after another in the order given; one that fails does not keep the others up."""
    for name, part in parts.items():
        try:
            await part.stop()
        except Exception as error:
            say(f"{name} did not stop in order: {error}")


async def interruptible(work: Awaitable[None], signals: asyncio.Queue[int]) -> bool:
    """Await the work until it is done (True) or another signal comes (False)."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(signals.get())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    if waiter.done():
        if task.done():
            signals.put_nowait(waiter.result())  # both at once: the signal is for whoever looks next
    else:
        waiter.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    return False


def child_environment(**settings: str) -> dict[str, str]:
    """This process's environment plus settings as PINFLOW_ variables."""
    return {**os.environ, **{f"PINFLOW_{name.upper()}": value for name, value in settings.items()}}
