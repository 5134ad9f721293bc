"""Real git repositories, made by the real git command, the same on every machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_EPOCH = 1_790_000_000  # each commit is a second after the last, so that SHAs do not depend on the clock
DEFAULT_AUTHOR = "Ada Author <ada@example.test>"


class Repository:
    """A repository with a work tree whose branch `main` a test commits to.

    No configuration of the machine or the user is read, identities and times are pinned.
    """

    def __init__(self, path: Path, *, branch: str = "main", object_format: str = "sha1") -> None:
        self.path = path
        self._clock = _EPOCH
        path.mkdir(parents=True, exist_ok=True)
        if not (path / ".git").exists():
            self.git("init", "--quiet", "--initial-branch", branch, f"--object-format={object_format}")

    def git(self, *arguments: str, author: str = DEFAULT_AUTHOR) -> str:
        """Run git in the work tree and return what it printed, stripped. Raises CalledProcessError with stderr noted."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=self._environment(author),
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            error = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
            error.add_note(done.stderr)
            raise error
        return done.stdout.strip()

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write files of the work tree; None removes one."""
        for name, content in files.items():
            file = self.path / name
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(
        self,
        files: Mapping[str, str | bytes | None] | None = None,
        message: str = "Change",
        author: str = DEFAULT_AUTHOR,
    ) -> str:
        """Write the files (None removes one), commit all of the work tree, and return the full SHA. May be empty."""
        self.write(files or {})
        self.git("add", "--all")
        self._clock += 1
        self.git("commit", "--quiet", "--allow-empty", "--message", message, author=author)
        return self.head()

    def tick(self) -> None:
        """Make the next commit one second later than the last."""
        self._clock += 1

    def merge(self, branch: str, message: str = "") -> str:
        """Merge a branch into the current one by a merge commit, as a forge does, and return its SHA."""
        self._clock += 1
        self.git("merge", "--quiet", "--no-ff", "--message", message or f"Merge branch '{branch}'", branch)
        return self.head()

    def head(self) -> str:
        """The full SHA of the current commit."""
        return self.git("rev-parse", "HEAD")

    def _environment(self, author: str) -> dict[str, str]:
        name, _, email = author.rstrip(">").partition(" <")
        when = f"@{self._clock} +0000"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        return kept | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": email,
            "GIT_AUTHOR_DATE": when,
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": email,
            "GIT_COMMITTER_DATE": when,
        }
