"""Tells at once that a local repository's branch has moved. A hint only: the poll is the guarantee.

Only refs are watched, never a work tree and never objects: what is edited but not committed is nobody's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog
from watchfiles import awatch

from engine.sync.local_repository import git_folder

_log = structlog.get_logger(__name__)

# Milliseconds.  git writes a ref by one rename, so there is little to gather; a step is also how often the watching
# thread wakes up while nothing happens.
_STEP = 10
_DEBOUNCE = 50
# How often folders that have come, gone or been replaced are looked for.
_LOOK_AGAIN = 5000


class RefWatcher:
    """Watches the branches of local repositories and calls `moved(name)` for each that changes."""

    def __init__(self, branches: Iterable[tuple[str, Path, str]], moved: Callable[[str], None]) -> None:
        """`branches` are (name of the source, path of the repository, branch)."""
        self._branches = list(branches)
        self._moved = moved

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop`. Never raises for what stands in the file system: polling goes on without us."""
        while self._branches and not stop.is_set():
            places = {name: ref_folders(path) for name, path, _ in self._branches}
            folders = sorted({folder for found in places.values() for folder in found})
            if not folders or not await self._watch(folders, places, stop):
                await _pause(stop, _LOOK_AGAIN / 1000)

    async def _watch(self, folders: list[Path], places: dict[str, list[Path]], stop: asyncio.Event) -> bool:
        """Watch until the folders are not the same any more. False if that did not work."""
        before = _identities(folders)
        try:
            async for changes in awatch(
                *folders,
                watch_filter=None,
                step=_STEP,
                debounce=_DEBOUNCE,
                rust_timeout=_LOOK_AGAIN,
                yield_on_timeout=True,
                stop_event=stop,
            ):
                self._tell({Path(path) for _, path in changes}, places)
                found = sorted({each for _, path, _ in self._branches for each in ref_folders(path)})
                if found != folders or _identities(found) != before:
                    # Whatever happened between the two watches is not known.
                    for name, _, _ in self._branches:
                        self._moved(name)
                    return True
        except (OSError, RuntimeError) as error:  # no inotify watches left, or a folder vanished
            _log.warning("repositories cannot be watched, polling goes on", error=str(error))
            return False
        return True

    def _tell(self, changed: set[Path], places: dict[str, list[Path]]) -> None:
        for name, _, branch in self._branches:
            wanted = {folder / "heads" / branch for folder in places[name] if folder.name == "refs"}
            tables = [folder for folder in places[name] if folder.name == "reftable"]
            if wanted & changed or any(table in path.parents for table in tables for path in changed):
                self._moved(name)


def ref_folders(repository: Path) -> list[Path]:
    """The folders in which a repository (with a work tree, bare, or a linked work tree) keeps its refs."""
    try:
        git = git_folder(repository)
        return [folder for folder in (git / "refs", git / "reftable") if folder.is_dir()]
    except (OSError, UnicodeDecodeError):
        return []


def _identities(folders: Iterable[Path]) -> list[tuple[int, int] | None]:
    """A folder that was deleted and made again has the same name, and nobody watches it."""
    found: list[tuple[int, int] | None] = []
    for folder in folders:
        try:
            status = folder.stat()
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return found


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
