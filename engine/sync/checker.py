"""Checks definitions in child processes: warm ones, so that a small change costs milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import Problem
from engine.sync.check_frames import ANSWER, DEFINITION, MODULE, QUESTION
from engine.sync.problems import CHECK_CRASHED

# -P: a folder named `engine` where the daemon happens to be started is not ours.
COMMAND = (sys.executable, "-P", "-m", "engine.sync.check_child")
FILE_LIMIT = 10.0
"""Seconds for one file, or for a few that are answered together: far above what files within the limits of size need."""
START_LIMIT = 60.0
_BATCH = 50
_TOGETHER = 10
"""Answers that come at once: to be woken for each of ten thousand costs as much as a fifth of the check."""
_SECOND_PROCESS_ABOVE = 200
_MAX_CULPRITS = 3
"""Files of one revision that may end a child; then the rest is not looked at: the revision is rejected anyway."""


@dataclass(frozen=True, slots=True)
class Question:
    """A definition to be checked, or (by `kind`) a module of functions whose names are asked for."""

    path: str
    text: bytes
    kind: bytes = DEFINITION


@dataclass(frozen=True, slots=True)
class Answer:
    """What the check said. Without problems, `compiled` is the canonical compiled form."""

    path: str
    name: str = ""
    dsl: str = "1"
    version: str = ""
    title: str = ""
    description: str = ""
    labels: dict[str, Any] | None = None
    uses_functions: bool = False
    functions: list[str] = field(default_factory=list)
    """The functions that it calls."""
    calls: list[dict[str, str]] = field(default_factory=list)
    triggers: list[dict[str, Any]] = field(default_factory=list)
    compiled: bytes = b""
    names: list[str] | None = None
    """Of a module: the names that it has, None if that cannot be told."""
    problems: tuple[Problem, ...] = ()


class Checker:
    """One or two child processes for all sources of a daemon; they take turns batch by batch.

    `packages` are installed ones whose functions the operator allows definitions to call.
    """

    def __init__(
        self, processes: int = 2, command: Sequence[str] = COMMAND, packages: Collection[str] = ()
    ) -> None:
        self.packages = frozenset(packages)
        self._children = [_Child(command) for _ in range(max(1, processes))]

    async def warm(self, *, every: bool = False) -> None:
        """Start the first child, or `every` one, so that a commit does not wait for it. Raises `RuntimeError` if it cannot."""
        children = self._children if every else self._children[:1]
        await asyncio.gather(*(child.warm() for child in children))

    async def check(self, questions: Sequence[Question]) -> list[Answer]:
        """The answers, in order. A file that ends or hangs a child gets a problem of its own."""
        batches = [(start, questions[start : start + _BATCH]) for start in range(0, len(questions), _BATCH)]
        batches.reverse()
        answers: dict[int, list[Answer]] = {}
        culprits: list[str] = []

        async def work(child: _Child) -> None:
            while batches:
                start, batch = batches.pop()
                async with child.turn:
                    answers[start] = await child.check(batch, culprits)

        children = self._children if len(questions) > _SECOND_PROCESS_ABOVE else self._children[:1]
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(work(child))
        return [answer for start in sorted(answers) for answer in answers[start]]

    async def names(self, modules: Mapping[str, bytes]) -> dict[str, Answer]:
        """What each module of functions (by its path) is said to have."""
        answers = await self.check([Question(path, text, MODULE) for path, text in sorted(modules.items())])
        return {answer.path: answer for answer in answers}

    async def aclose(self) -> None:
        """End the children."""
        for child in self._children:
            await child.end()


class _Died(Exception):
    """The child ended, or did not answer in time; `why` is for the file's problem."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class _Child:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self.turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def warm(self) -> None:
        async with self.turn:
            await self.ensure()

    async def ensure(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PINFLOW_")}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=environment,
            limit=1 << 20,
        )
        try:
            await self._receive([""], START_LIMIT, [])
        except _Died as error:
            await self.end()
            raise RuntimeError(f"the process that checks definitions does not start: {error.why}") from error
        except BaseException:
            # Broken off: its first word is still to come, and must not pass for an answer.
            self._process.kill()
            self._process = None
            raise
        return self._process

    async def check(self, batch: Sequence[Question], culprits: list[str]) -> list[Answer]:
        answers: list[Answer] = []
        suspects: set[str] = set()
        while len(answers) < len(batch):
            if len(culprits) >= _MAX_CULPRITS:
                return answers + [_skipped(question.path) for question in batch[len(answers) :]]
            rest = batch[len(answers) :]
            # Once a child has died, each is asked about alone; who was there both times is to blame. Once is not
            # enough: perhaps the system killed the wrong process.
            died = await self._ask(rest[:1] if suspects else rest, answers)
            if died is None:
                continue
            unanswered = batch[len(answers) :]
            if unanswered[0].path in suspects:
                culprits.append(unanswered[0].path)
                answers.append(_crashed(unanswered[0].path, died.why))
            suspects.update(each.path for each in unanswered[: 1 if suspects else _TOGETHER])
        return answers

    async def _ask(self, questions: Sequence[Question], answers: list[Answer]) -> _Died | None:
        """Ask all, append what is answered; how the child died, if it did."""
        process = await self.ensure()
        assert process.stdin is not None
        groups = [questions[start : start + _TOGETHER] for start in range(0, len(questions), _TOGETHER)]
        process.stdin.write(b"".join(part for group in groups for part in _framed(group)))
        try:
            for group in groups:
                await self._receive([question.path for question in group], FILE_LIMIT, answers)
        except _Died as died:
            await self.end()
            return died
        except BaseException:
            # Broken off in the middle: what is still in the pipe must not pass for an answer to the next question.
            process.kill()
            self._process = None
            raise
        return None

    async def _receive(self, paths: Sequence[str], limit: float, answers: list[Answer]) -> None:
        """Append the answers about `paths`, which come together; what came stays, whatever happens then."""
        assert self._process is not None
        stdout = self._process.stdout
        assert stdout is not None
        try:
            async with asyncio.timeout(limit):
                for path in paths:
                    head_length, compiled_length = ANSWER.unpack(await stdout.readexactly(ANSWER.size))
                    body = await stdout.readexactly(head_length + compiled_length)
                    answers.append(_answer(path, body[:head_length], body[head_length:]))
        except TimeoutError as error:
            raise _Died(f"it was not done after {limit:g} s") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise _Died(f"the process ended ({await self._code()})") from error

    async def _code(self) -> str:
        assert self._process is not None
        try:
            async with asyncio.timeout(2):
                code = await self._process.wait()
        except TimeoutError:
            return "its pipe is closed"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


def _framed(group: Sequence[Question]) -> Iterator[bytes]:
    """Questions as they are sent; the answers wait for the last."""
    for question in group:
        path = question.path.encode("utf-8")
        yield QUESTION.pack(question.kind, len(path), len(question.text), question is group[-1])
        yield path
        yield question.text


def _answer(path: str, head: bytes, compiled: bytes) -> Answer:
    said = json.loads(head.decode("ascii"))
    problems = tuple(Problem(**each) for each in said.pop("problems", ()))
    return Answer(path=path, compiled=compiled, problems=problems, **said)


def _crashed(path: str, why: str) -> Answer:
    message = f"this file cannot be checked: {why}"
    return Answer(path=path, problems=(Problem(code=CHECK_CRASHED, message=message, file=path),))


def _skipped(path: str) -> Answer:
    message = "not looked at: too many other files of this commit cannot be checked"
    return Answer(path=path, problems=(Problem(code=CHECK_CRASHED, message=message, file=path),))
