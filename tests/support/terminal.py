"""A terminal as a reader of the documentation has one: a shell that keeps its folder and its variables."""

from __future__ import annotations

import shlex
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path


class Terminal:
    """One bash. Use it from one thread at a time."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, line: str, *, code: int = 0) -> str:
        """Run a line and return what it printed, on both channels. It must end with the exit code `code`."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        end = f"--- {uuid.uuid4().hex} "
        self._bash.stdin.write(f"{line}\nprintf '\\n%s%d\\n' {shlex.quote(end)} $?\n")
        self._bash.stdin.flush()
        said = ""
        for read in self._bash.stdout:
            if read.startswith(end):
                ended = int(read.removeprefix(end))
                said = said.removesuffix("\n")
                assert ended == code, f"{line}: exit code {ended}\n{said}"
                return said
            said += read
        raise AssertionError(f"{line}: the shell has ended\n{said}")

    def start(self, line: str, log: Path) -> int:
        """Start what keeps a terminal, as a process group of its own; its process id."""
        self.type(f"setsid {line} > {shlex.quote(str(log))} 2>&1 < /dev/null &")
        return int(self.type("echo $!"))

    def close(self) -> None:
        """End the shell."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        self._bash.wait(30)
        self._bash.stdout.close()
