"""`pinflow up` as a person runs it, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.cli.client import Client
from engine.errors import NotFound, Unavailable
from engine.stack.processes import dying_with_parent

PINFLOW = Path(sys.executable).parent / "pinflow"


class Up:
    """One folder, in which `pinflow up` is started, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / ".pinflow"
        self.log = folder / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> None:
        """Start it and wait until it says that it is up."""
        before = self.said().count("Pinflow is up")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PINFLOW, "up", *words, "--until-stdin-closes"],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
                preexec_fn=dying_with_parent(signal.SIGTERM),
            )
        self.until(lambda: self.said().count("Pinflow is up") > before, "the stack to be up", 240)

    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    def stop(self, sign: signal.Signals = signal.SIGINT) -> int:
        """End it by a signal and return its exit code."""
        assert self.process is not None
        self.process.send_signal(sign)
        code = self.process.wait(90)
        if self.process.stdin:
            self.process.stdin.close()
        self.process = None
        return code

    def pids(self) -> dict[str, int]:
        """Who runs, as the stack itself wrote it down."""
        found = {lock.stem: int(json.loads(lock.read_text())["pid"]) for lock in self.data.glob("run/*.lock")}
        found["temporal"] = int(json.loads((self.data / "temporal" / "lock").read_text())["pid"])
        found["postgres"] = int((self.data / "postgres" / "pg" / "postmaster.pid").read_text().split()[0])
        return found

    def client(self) -> Client:
        """A client of its API with the local token."""
        facts = json.loads((self.data / "client.json").read_text())
        return Client(facts["url"], facts["token"])

    def pinflow(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, as its person would."""
        return subprocess.run(
            [PINFLOW, *words], cwd=self.folder, capture_output=True, text=True, env=environment(), timeout=150
        )

    def live(self, name: str, sha: str) -> None:
        """Wait until a workflow is live at a commit."""

        def condition() -> bool:
            try:
                return bool(self.client().get(f"/workflows/{name}")["commit_sha"] == sha)
            except (NotFound, Unavailable):
                return False

        self.until(condition, f"{name} to be live at {sha}")

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
        """Wait for a condition; fails with what was printed and logged."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {log}\n{log.read_text()[-2000:]}" for log in self.data.glob("logs/*.log")
                )
                raise AssertionError(f"waited for {what}\n{self.said()}\n{logs}")
            time.sleep(0.05)


def environment() -> dict[str, str]:
    """Ours, without settings of the machine's own Pinflow."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PINFLOW_")}


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that other users can reach: as root, Postgres drops its rights."""
    folder = Path(tempfile.mkdtemp(prefix="pinflow-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
