"""One remote for all of the sources that share it: one mirror, and one fetch however many ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from engine.errors import PinflowError, SourceError
from engine.settings import Credential
from engine.sync import conditions
from engine.sync.git_source import DEFAULT_LIMITS, Limits
from engine.sync.mirror import Mirror, of_our_disk, short_branch

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Fetched:
    """How a fetch ended: an error of the whole repository, or of single branches."""

    error: SourceError | None = None
    of_branches: dict[str, SourceError] = field(default_factory=dict)

    def check(self, branch: str) -> None:
        """Raise the error that concerns a branch, if there is one."""
        error = self.error or self.of_branches.get(short_branch(branch))
        if error is not None:
            # A new one: raised by several passes at once, an exception would gather all of their traces.
            raise SourceError(error.message, reason=error.reason, hint=error.hint)


class Repository:
    """A mirror and the thread that fetches it."""

    def __init__(
        self,
        url: str,
        branches: Iterable[str],
        data_dir: Path,
        credential: Credential | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.url = url
        self._branches = tuple(branches)
        self._data_dir = data_dir
        self._credential = credential
        self._limits = limits
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="git-fetch")
        self._turn = asyncio.Lock()
        self._begun = 0
        self._last = Fetched()
        self._mirror: Mirror | None = None
        self._discarded = 0
        self._closing = False

    @property
    def mirror(self) -> Mirror:
        """The mirror; only after a fetch that did not end with an error of the whole repository."""
        assert self._mirror is not None
        return self._mirror

    @property
    def generation(self) -> int:
        """How often the mirror was thrown away."""
        return self._discarded

    async def fetched(self) -> Fetched:
        """The outcome of a fetch that began after this call. Who asks while one runs shares the next."""
        asked = self._begun
        async with self._turn:
            if self._begun == asked:
                self._begun += 1
                self._last = await self._in_thread(self._fetch)
            return self._last

    async def discard(self, generation: int) -> None:
        """Throw a damaged mirror away, unless that has been done since `generation`."""
        async with self._turn:
            if self._discarded == generation and self._mirror is not None:
                self._discarded += 1
                await self._in_thread(self._mirror.discard)

    async def aclose(self) -> None:
        """End what runs. Safe at any point."""
        self._closing = True
        if self._mirror is not None:
            self._mirror.interrupt()
        await asyncio.to_thread(self._thread.shutdown, True, cancel_futures=True)
        if self._mirror is not None:
            self._mirror.close()

    def _fetch(self) -> Fetched:
        try:
            if self._mirror is None:
                self._mirror = Mirror(
                    self.url, self._branches, self._data_dir, self._credential, self._limits
                )
            if self._closing:
                self._mirror.interrupt()
            return Fetched(of_branches=self._mirror.fetch())
        except SourceError as error:
            return Fetched(error)
        except OSError as error:
            return Fetched(of_our_disk(error))
        except PinflowError as error:  # git is not there, or too many processes share the folder
            return Fetched(SourceError(error.message, reason=conditions.FETCH_FAILED, hint=error.hint))

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
