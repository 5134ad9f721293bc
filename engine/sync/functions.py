"""Whether the functions that definitions call are in a commit's bundle, and whether its lock can be used.

In proportion to the change: looked at are the definitions that changed; and where the functions did, those that call any,
each of which gets a new version anyhow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.dsl import bundle as bundles
from engine.dsl import codes
from engine.dsl.check_functions import Functions, check_functions, functions_called
from engine.dsl.function_lock import check_lock
from engine.errors import Problem
from engine.registry.revisions import Bundle, LiveDefinition
from engine.registry.workflow_registry import WorkflowRegistry
from engine.sync.checker import Checker
from engine.sync.plan import CheckedFile, join

_AT_ONCE = 200
"""Compiled definitions that are in memory together."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The files with the problems of their calls, and what becomes of the definitions that the commit leaves alone.

    `users` take the commit's functions; `problems` are of those that cannot, and of the functions themselves.
    """

    files: list[CheckedFile]
    users: list[LiveDefinition]
    problems: tuple[Problem, ...] = ()


async def judge(
    checker: Checker,
    definitions: WorkflowRegistry,
    bundle: Bundle,
    place: str,
    files: Sequence[CheckedFile],
    users: Sequence[LiveDefinition],
    touched: Collection[str],
) -> Judged:
    """Judge the calls of the changed `files`, and of those `users` whose own file is not among the `touched` paths.

    `place` is how problems name the folder `functions/`. If the functions as a whole cannot be used, nobody takes them.
    """
    callers = [file for file in files if file.functions and not file.problems]
    if not callers and not users and bundle.content is None:
        return Judged([*files], [*users])
    contents = await _unpacked(definitions, bundle)
    called = await _called_by(definitions, [each for each in users if each.path not in touched])
    wanted = [name for file in callers for name in file.functions]
    wanted += [name for names in called.values() for name in names]
    functions, broken = await _read(checker, contents, wanted, place)
    broken = (*check_lock(contents, place), *broken)
    faulty = {name for name, names in called.items() if any(map(functions.fault, names))}
    problems = await _problems_of(definitions, [each for each in users if each.name in faulty], functions)
    judged = [_judged(file, functions, broken) if file.functions else file for file in files]
    takers = [] if broken else [each for each in users if each.name not in faulty]
    return Judged(judged, takers, (*broken, *problems))


async def _unpacked(definitions: WorkflowRegistry, bundle: Bundle) -> dict[str, bytes]:
    content = bundle.content
    if content is None:
        content = await definitions.content(bundle.digest) if bundle.digest else bundles.pack({})
    return await asyncio.to_thread(bundles.unpack, content)


async def _called_by(definitions: WorkflowRegistry, users: Sequence[LiveDefinition]) -> dict[str, list[str]]:
    """The functions that live definitions call, by their names."""
    called: dict[str, list[str]] = {}
    for start in range(0, len(users), _AT_ONCE):
        some = users[start : start + _AT_ONCE]
        forms = await definitions.contents([each.compiled_digest for each in some])
        called |= await asyncio.to_thread(_called_in, some, forms)
    return called


def _called_in(users: Iterable[LiveDefinition], forms: Mapping[str, bytes]) -> dict[str, list[str]]:
    return {each.name: functions_called(json.loads(forms[each.compiled_digest])) for each in users}


async def _read(
    checker: Checker, contents: Mapping[str, bytes], called: Iterable[str], place: str
) -> tuple[Functions, tuple[Problem, ...]]:
    """The folder as far as what is `called` asks for it, and what could not be read by a fault of its own."""
    paths = frozenset(contents)
    where = Functions(paths, lambda _: None, checker.packages)
    modules = {file for name in dict.fromkeys(called) if (file := where.module_of(name)) is not None}
    answers = await checker.names({join(place, file): contents[file] for file in modules})
    names = {file: answers[join(place, file)].names for file in modules}
    found = {file: None if known is None else frozenset(known) for file, known in names.items()}
    crashed = tuple(problem for answer in answers.values() for problem in answer.problems)
    return replace(where, names=found.get), crashed


async def _problems_of(
    definitions: WorkflowRegistry, users: Sequence[LiveDefinition], functions: Functions
) -> list[Problem]:
    """The problems of definitions that did not change, located in their texts."""
    problems: list[Problem] = []
    for start in range(0, len(users), _AT_ONCE):
        some = users[start : start + _AT_ONCE]
        texts = await definitions.contents(
            [digest for each in some for digest in (each.digest, each.compiled_digest)]
        )
        problems += await asyncio.to_thread(_located, some, texts, functions)
    return problems


def _located(
    users: Iterable[LiveDefinition], contents: Mapping[str, bytes], functions: Functions
) -> list[Problem]:
    found: list[Problem] = []
    for each in users:
        compiled = json.loads(contents[each.compiled_digest])
        found += check_functions(compiled, contents[each.digest], each.path, functions)
    return found


def _judged(file: CheckedFile, functions: Functions, broken: Sequence[Problem]) -> CheckedFile:
    content = file.content
    problems: list[Problem] = []
    if any(map(functions.fault, file.functions)):
        problems += check_functions(
            json.loads(content.compiled or b"{}"), content.text or b"", content.path, functions
        )
    if broken and not problems:
        first = broken[0]
        message = f"its functions cannot be used: {first.file}:{first.line}:{first.column} has a problem"
        problems.append(Problem(codes.FUNCTION_LOCK, message, content.path, hint=f"mend {first.file}"))
    return replace(file, problems=(*file.problems, *problems)) if problems else file
