"""The environments of functions on this machine: one for each lock, built beside the work and shared by its workers.

An environment is a folder `<key>` below the data folder, there whole or not at all (built elsewhere, then renamed).
Beside it stands `<key>.lock`: whoever builds or removes it holds that file's lock alone, and whoever runs from it
holds it with others. The system gives a lock back however its holder ends, so a killed worker leaves nothing locked.

Functions may be of the worker's own user, so what is on disk is not trusted blindly: a seal over all files' sizes,
times of change and inodes is compared before each call, and an environment whose seal is broken is built anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from engine import faults
from engine.activities.environment_build import ENVIRONMENT, build
from engine.activities.failures import ActivityFailure
from engine.core.wire import ENVIRONMENT_PREPARING
from engine.dsl.function_lock import FunctionLock, LockError, find_lock

_log = structlog.get_logger(__name__)

_FORMAT = 1
_MEGABYTE = 1024 * 1024
_SEAL = "pinflow.json"
_AT_ONCE = 2
"""Builds at a time in one worker."""
_TOLD_FOR = 20.0
"""Seconds for which a failed build is the answer to all who ask, before it is tried again."""
_LOOK_AGAIN = 0.2


@dataclass(frozen=True, slots=True)
class Environment:
    """What a function is run with."""

    python: Path
    packages: Path


class EnvironmentStore:
    """Environments by lock, in `folder`. One per worker process; close it to end what is being built."""

    def __init__(
        self,
        folder: Path,
        *,
        uv: str = "uv",
        allowed: bool = True,
        keep: int = 20,
        keep_bytes: int = 4096 * _MEGABYTE,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._uv = uv
        self._allowed = allowed
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._variables = dict(os.environ) if variables is None else variables
        self._builds: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, tuple[float, ActivityFailure]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    def lock_of(self, files: Mapping[str, bytes]) -> FunctionLock | None:
        """What the functions need. Raises `ActivityFailure` ENVIRONMENT if that cannot be or is not allowed here."""
        try:
            lock = find_lock(files)
        except LockError as error:
            raise ActivityFailure(ENVIRONMENT, str(error), retryable=False) from error
        if lock is not None and not self._allowed:
            message = (
                f"the functions need packages (functions/{next(iter(lock.files))}), and this worker makes no "
                "environments: PINFLOW_FUNCTION_ENVIRONMENTS is off"
            )
            raise ActivityFailure(ENVIRONMENT, message, retryable=False)
        return lock

    @asynccontextmanager
    async def use(self, lock: FunctionLock) -> AsyncIterator[Environment]:
        """The environment, which is not removed meanwhile.

        Raises `ActivityFailure`: ENVIRONMENT_PREPARING while it is being built (which this call sees to), ENVIRONMENT
        for a while after it could not be.
        """
        key = _key(lock)
        held = _hold(self._lock_file(key), exclusive=False)
        try:
            if held is None or not await asyncio.to_thread(self._is_whole, key):
                raise self._not_ready(key, lock)
            os.utime(self._lock_file(key))
            yield _environment(self._folder / key)
        finally:
            if held is not None:
                os.close(held)

    def prepare(self, lock: FunctionLock) -> asyncio.Task[None]:
        """Have it built unless it is there. The task never raises: `use` tells how it went."""
        key = _key(lock)
        if key not in self._builds:
            task = asyncio.create_task(self._built(key, lock), name=f"environment {key[:12]}")
            self._builds[key] = task
            task.add_done_callback(lambda _: self._builds.pop(key, None))
        return self._builds[key]

    async def aclose(self) -> None:
        """End what is being built."""
        builds = list(self._builds.values())
        for task in builds:
            task.cancel()
        await asyncio.gather(*builds, return_exceptions=True)

    def _not_ready(self, key: str, lock: FunctionLock) -> ActivityFailure:
        at, failure = self._failed.get(key, (0.0, None))
        if failure is not None and time.monotonic() - at < _TOLD_FOR:
            return ActivityFailure(ENVIRONMENT, failure.message, retryable=failure.retryable)
        self.prepare(lock)
        return ActivityFailure(
            ENVIRONMENT_PREPARING, "the environment of the functions is being made", retryable=False
        )

    # --- building -------------------------------------------------------------------------------------------------

    async def _built(self, key: str, lock: FunctionLock) -> None:
        began = time.monotonic()
        try:
            async with self._gate:
                if await self._build_alone(key, lock):
                    _log.info("environment made", key=key[:12], seconds=round(time.monotonic() - began, 2))
            self._failed.pop(key, None)
        except ActivityFailure as failure:
            self._failed[key] = (time.monotonic(), failure)
            _log.warning("environment not made", key=key[:12], reason=failure.message)
        except OSError as error:
            reason = f"the environment cannot be kept in {self._folder}: {error.strerror}"
            self._failed[key] = (time.monotonic(), ActivityFailure(ENVIRONMENT, reason))
            _log.warning("environment not made", key=key[:12], reason=reason)

    async def _build_alone(self, key: str, lock: FunctionLock) -> bool:
        """Build it unless another has; whether we did."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o755)  # functions may be another user's
        held = await self._hold_alone(key)
        try:
            if await asyncio.to_thread(self._is_whole, key):
                return False
            await asyncio.to_thread(self._clear, key)
            work = Path(tempfile.mkdtemp(prefix=f"build-{key}-", dir=self._folder))
            try:
                await build(self._uv, lock, work, self._variables)
                size = await asyncio.to_thread(_seal, work / "environment")
                if size > self._keep_bytes:
                    raise ActivityFailure(
                        ENVIRONMENT,
                        f"the environment has {size // _MEGABYTE} MiB, and all together may have "
                        f"{self._keep_bytes // _MEGABYTE} (PINFLOW_FUNCTION_ENVIRONMENTS_MB)",
                        retryable=False,
                    )
                await faults.point("environment.before_rename")
                os.rename(work / "environment", self._folder / key)
            finally:
                await asyncio.to_thread(_remove, work)
            os.utime(self._lock_file(key))
            await asyncio.to_thread(self._make_room, key)
            return True
        finally:
            os.close(held)

    async def _hold_alone(self, key: str) -> int:
        # Another builds it, or runs from what is to be removed.
        while (held := _hold(self._lock_file(key), exclusive=True)) is None:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(_LOOK_AGAIN)
        return held

    def _clear(self, key: str) -> None:
        """What a killed builder left, of this key and of any other that nobody builds, and a broken environment."""
        _remove(self._folder / key)
        for left in self._folder.glob("trash-*"):
            _remove(left)
        for left in self._folder.glob("build-*"):
            theirs = left.name.split("-")[1]
            held = None if theirs == key else _hold(self._lock_file(theirs), exclusive=True)
            if theirs == key or held is not None:
                _remove(left)
            if held is not None:
                os.close(held)

    def _make_room(self, newest: str) -> None:
        """Remove what was not used for the longest time until the rest is within its bounds, never what is in use."""
        found = []
        for path in self._folder.iterdir():
            size = _sealed(path).get("size") if _is_key(path.name) else None
            if isinstance(size, int):
                found.append((_used(self._lock_file(path.name)), path.name, size))
        count, size = len(found), sum(each[2] for each in found)
        for _, key, its in sorted(found):
            if count <= self._keep and size <= self._keep_bytes:
                return
            if key != newest and self._remove_unused(key):
                count, size = count - 1, size - its

    def _remove_unused(self, key: str) -> bool:
        held = _hold(self._lock_file(key), exclusive=True)
        if held is None:
            return False
        try:
            trash = Path(tempfile.mkdtemp(prefix="trash-", dir=self._folder))
            os.rename(self._folder / key, trash / key)
            _remove(trash)
            self._lock_file(key).unlink(missing_ok=True)
            _log.info("environment removed", key=key[:12])
            return True
        finally:
            os.close(held)

    # --- what is on disk ------------------------------------------------------------------------------------------

    def _lock_file(self, key: str) -> Path:
        return self._folder / f"{key}.lock"

    def _is_whole(self, key: str) -> bool:
        """Whether the environment is there and nobody has changed it."""
        folder = self._folder / key
        said = _sealed(folder)
        return bool(said) and said.get("seal") == _measure(folder)[0]


def _key(lock: FunctionLock) -> str:
    """The lock, and what else decides what an environment is: the interpreter and the system."""
    made_of = [_FORMAT, lock.digest, sys.version, sys.base_prefix, sysconfig.get_platform()]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:40]


def _is_key(name: str) -> bool:
    return len(name) == 40 and all(c in "0123456789abcdef" for c in name)


def _environment(folder: Path) -> Environment:
    major, minor = sys.version_info[:2]
    return Environment(folder / "bin" / "python", folder / "lib" / f"python{major}.{minor}" / "site-packages")


def _hold(path: Path, *, exclusive: bool) -> int | None:
    """The locked file's descriptor, None if another holds it (or there is no folder to hold it in)."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        try:
            held = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(held, kind | fcntl.LOCK_NB)
            if _is_the_file(path, held):
                return held
        except BlockingIOError:
            os.close(held)
            return None
        os.close(held)  # it was removed between our two steps


def _is_the_file(path: Path, held: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(held).st_ino
    except FileNotFoundError:
        return False


def _used(lock_file: Path) -> float:
    try:
        return lock_file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _seal(folder: Path) -> int:
    """Take away the right to write and note what is there; the size in bytes."""
    for place, _, names in os.walk(folder):
        os.chmod(place, 0o755 if Path(place) == folder else 0o555)
        for name in names:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & 0o555 | 0o444)
    seal, size = _measure(folder)
    (folder / _SEAL).write_text(json.dumps({"seal": seal, "size": size}), "utf-8")
    return size


def _measure(folder: Path) -> tuple[str, int]:
    """A digest of what no program can change without a trace (times of change are the system's own), and the size."""
    made = hashlib.sha256()
    total = 0
    root = len(str(folder)) + 1
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name == _SEAL and Path(place) == folder:
                continue
            path = os.path.join(place, name)
            found = os.lstat(path)
            total += found.st_size
            what = f"{path[root:]}\0{found.st_size}\0{found.st_ctime_ns}\0{found.st_ino}\n"
            made.update(what.encode("utf-8", "surrogateescape"))
    return made.hexdigest(), total


def _sealed(folder: Path) -> dict[str, object]:
    try:
        said = json.loads((folder / _SEAL).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _remove(folder: Path) -> None:
    """With all that is in it, although nobody may write there."""
    for place, _, _ in os.walk(folder):
        try:
            os.chmod(place, 0o755)
        except OSError:
            pass
    shutil.rmtree(folder, ignore_errors=True)
