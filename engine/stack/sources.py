"""What `pinflow up` watches, from what a person said or what it watched last time."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """What to watch, as the person said it. An empty `repo` means: what was watched last time, or nothing."""

    repo: str = ""
    branch: str = "main"
    folder: str = "workflows"
    file: Path | None = None

    def sources_file(self, remembered: str) -> str:
        """The file of sources, "" for none. Raises `Misconfigured` if there is no such file."""
        if self.file is None:
            return "" if self.repo else remembered
        if self.repo:
            raise Misconfigured(
                "--repo and --sources exclude each other", hint="name the repository in the file"
            )
        if not self.file.is_file():
            raise Misconfigured(f"there is no file {self.file}", hint="--sources takes a file")
        return str(self.file.resolve())

    def sources(self, remembered: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Entries of PINFLOW_SOURCES. Raises `Misconfigured` if there is no repository where one was named."""
        if not self.repo:
            return [] if self.file is not None else remembered
        local = Path(self.repo).expanduser()
        url = str(local.resolve()) if local.exists() else self.repo
        if "://" not in url and "@" not in url and not local.exists():
            raise Misconfigured(f"there is no repository at {self.repo}", hint="--repo takes a path or a URL")
        if local.exists() and not _is_repository(local.resolve()):
            raise Misconfigured(f"{url} is not a git repository", hint=_where_one_is(local.resolve()))
        return [
            {
                "name": source_name(url),
                "url": url,
                "branch": self.branch,
                "folder": self.folder,
                # A local repository is watched as well; the poll is what mends a missed event.
                "poll_interval": 10.0 if local.exists() else 15.0,
            }
        ]


def standing_in_words(source: dict[str, Any]) -> str:
    """How a source of `GET /sources` stands, and what helps."""
    helps = f" ({source['action']})" if source.get("action") else ""
    return f"{source['condition']}: {source['message']}{helps}"


def _is_repository(folder: Path) -> bool:
    bare = (folder / "HEAD").is_file() and (folder / "objects").is_dir()
    return bare or (folder / ".git").exists()


def _where_one_is(path: Path) -> str:
    above = next((parent for parent in path.parents if _is_repository(parent)), None)
    return (
        f"it lies in one: --repo {shlex.quote(str(above))}"
        if above
        else "`git init` makes one; `pinflow init` a first workflow in it"
    )


def source_name(url: str) -> str:
    """A name for a source from the last part of its path, in the alphabet of source names."""
    last = re.sub(r"\.git$", "", url.rstrip("/")).rpartition("/")[2].lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:63].rstrip("-")
    return name if re.match(r"[a-z]", name) else f"source-{name}".strip("-")[:63]
