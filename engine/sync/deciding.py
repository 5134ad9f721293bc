"""What a commit would make live: its definitions read, checked, and held against what is live and stays.

Nothing is written here.  In a source of mode `atomic` one problem decides for the whole commit; in an isolated one, what
is bad or does not fit is held back, and the rest is judged again without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from engine.dsl import codes as dsl_codes
from engine.dsl.calls import Misfit
from engine.errors import Problem
from engine.registry.revisions import Cursor, LiveDefinition, VersionContent
from engine.registry.workflow_registry import WorkflowRegistry
from engine.settings import SourceSettings
from engine.storage import blobs, registry
from engine.storage.database import Database
from engine.sync import calls, functions, plan, problems, reading
from engine.sync.checker import Answer, Checker, Question
from engine.sync.git_reader import Reader

_Result = TypeVar("_Result")
# Carried problems whose paths may not be looked up by name: everything is compared anew.
_OF_ODD_ENTRIES = frozenset({problems.SYMLINK, problems.SUBMODULE, problems.FILE_NAME})


class InThread(Protocol):
    """Does the work in the thread that git is read in."""

    def __call__(self, work: Callable[[], _Result], /) -> Awaitable[_Result]: ...


class Decider:
    """Decides about the commits of one source. `folder` is where its definitions stand in the repository."""

    def __init__(
        self,
        source: SourceSettings,
        source_id: int,
        folder: str,
        database: Database,
        checker: Checker,
        in_thread: InThread,
    ) -> None:
        self._source = source
        self._source_id = source_id
        self._folder = folder
        self._database = database
        self._registry = WorkflowRegistry(database)
        self._checker = checker
        self._in_thread = in_thread

    async def decide(
        self, reader: Reader, sha: str, cursor: Cursor
    ) -> tuple[reading.CommitReading, plan.Decision]:
        """What the commit holds, and what becomes of it beside what is live at `cursor`."""
        live: list[LiveDefinition] | None = None
        carried = await self._carried(cursor)
        whole = any(code in _OF_ODD_ENTRIES for _, code in carried)
        if whole or await self._in_thread(lambda: reading.needs_listing(reader, cursor, self._folder)):
            live = await self._live(registry.live_all)
        again = {path for path, _ in carried if self._is_of_functions(path)}
        paths = {path for path, _ in carried if path} - again
        found = await self._in_thread(
            lambda: reading.read_commit(
                reader,
                sha,
                cursor,
                self._folder,
                live,
                paths,
                functions=bool(again),
                isolated=self._isolated,
            )
        )
        files = await self._check(found)
        blocking = (*found.problems, *self._blocking(found))
        if blocking:
            others = tuple(problem for file in files for problem in file.problems)
            return found, plan.Decision(problems=blocking + others)
        return found, await self._judge_files(reader, found, files, cursor)

    @property
    def _isolated(self) -> bool:
        return self._source.mode == "isolated"

    async def _carried(self, cursor: Cursor) -> list[tuple[str, str]]:
        """(path, code) of the live revision's problems: what they concern is looked at again until it is mended."""
        if not cursor.live_faulty:
            return []
        async with self._database.read() as connection:
            rows = await registry.problems_of(connection, self._source_id, cursor.live_seq)
        return [(row["file"], row["code"]) for row in rows]

    def _blocking(self, found: reading.CommitReading) -> tuple[Problem, ...]:
        """What is wrong with the tree beyond single definitions; the functions are one thing, and never half of it."""
        if not self._isolated:
            return found.changes.problems
        return tuple(each for each in found.changes.problems if self._is_of_functions(each.file))

    def _is_of_functions(self, path: str) -> bool:
        return path.startswith(plan.join(self._folder, f"{plan.FUNCTIONS}/"))

    async def _check(self, found: reading.CommitReading) -> list[plan.CheckedFile]:
        questions = [Question(path, text) for path, text in found.texts.items() if text is not None]
        answers = await self._checker.check(questions) if questions else []
        files = [_checked(answer, found) for answer in answers]
        return files + [_too_large(path, found) for path, text in found.texts.items() if text is None]

    async def _judge_files(
        self, reader: Reader, found: reading.CommitReading, files: Sequence[plan.CheckedFile], cursor: Cursor
    ) -> plan.Decision:
        paths = [*found.changes.files, *found.changes.removed]
        names = [file.content.name for file in files if file.content.name]
        users: list[LiveDefinition] = []
        live: list[LiveDefinition] = []
        count = 0
        if paths:
            async with self._database.read() as connection:
                rows = await registry.live_touched(connection, self._source_id, paths=paths, names=names)
                count = await registry.live_count(connection, self._source_id) if rows else 0
            live = await self._with_name_lines(reader, [_live(row) for row in rows], set(paths))
        if found.changes.functions:
            users = await self._live(registry.live_function_users)
        judged = await functions.judge(
            self._checker,
            self._registry,
            found.bundle,
            plan.join(self._folder, plan.FUNCTIONS),
            files,
            [each for each in users if each.bundle_digest != found.bundle.digest],
            {*paths, *(each.file for each in found.changes.problems)},
        )
        guard = plan.Guard(
            live=count,
            max_deletions=self._source.max_deletions,
            max_percent=self._source.max_deletions_percent,
            confirmed=found.confirmed or cursor.confirmed_sha == found.commit.sha,
        )
        decide = partial(
            plan.decide,
            removed=found.changes.removed,
            live=live,
            guard=guard,
            bundle_digest=found.bundle.digest,
            function_users=judged.users,
            isolated=self._isolated,
            others=found.changes.problems,
        )
        return await self._decide_together(judged.files, judged.problems, decide)

    async def _decide_together(
        self,
        files: Sequence[plan.CheckedFile],
        problems: Sequence[Problem],
        decide: Callable[..., plan.Decision],
    ) -> plan.Decision:
        """Decide, and see whether what would then be live fits together.

        Where bad files stand alone, what does not fit is held back: the caller if the commit changes it, otherwise what
        it calls. The rest is judged again without it, until all that would be live fits.
        """
        kept = [*problems]
        while True:
            decision = decide(files, kept=kept)
            if decision.problems and not decision.partial:
                return decision
            bad = {problem.file for problem in decision.problems}
            good = [file for file in files if file.content.path not in bad]
            found = await calls.misfits(
                self._database, self._registry, self._source_id, good, decision.retires
            )
            unfit = [each for each in found if each.problem not in kept]
            if not unfit:
                return decision
            if not self._isolated:
                return plan.Decision(problems=tuple(each.problem for each in unfit))
            held = await self._held_back(unfit, good, decision.retires)
            paths = {file.content.path for file in good}
            files = [_with_problems(file, held) for file in files]
            kept += [problem for problem in held if problem.file not in paths]

    async def _held_back(
        self, unfit: Sequence[Misfit], good: Sequence[plan.CheckedFile], retires: Sequence[str]
    ) -> list[Problem]:
        """The problems of what is held back so that the others fit; of what the commit changes nothing of, as it is."""
        paths = {file.content.path for file in good}
        changed = {file.content.name: file.content for file in good}
        async with self._database.read() as connection:
            rows = await registry.live_touched(connection, self._source_id, paths=[], names=retires)
        gone = {row["name"]: row["path"] for row in rows}
        held: list[Problem] = []
        for each in unfit:
            if each.problem.file in paths:
                held.append(each.problem)
                continue
            blamed = [_needed_as_it_was(each, changed[name]) for name in each.between if name in changed]
            blamed += [_needed(each, name, gone[name]) for name in each.between if name in gone]
            held += blamed or [each.problem]
        return list(dict.fromkeys(held))

    async def _with_name_lines(
        self, reader: Reader, live: list[LiveDefinition], changed: set[str]
    ) -> list[LiveDefinition]:
        """Live definitions outside of the change have a name that is defined anew: a problem will point at them."""
        result = []
        for each in live:
            if each.path not in changed:
                text = await self._registry.content(each.digest)
                each = replace(each, name_line=plan.name_line(text))
            result.append(each)
        return result

    async def _live(self, query: Callable[..., Any]) -> list[LiveDefinition]:
        async with self._database.read() as connection:
            return [_live(row) for row in await query(connection, self._source_id)]


def _checked(answer: Answer, found: reading.CommitReading) -> plan.CheckedFile:
    text = found.texts[answer.path]
    assert text is not None
    content = VersionContent(
        name=answer.name,
        path=answer.path,
        git_blob=found.changes.files[answer.path],
        digest=blobs.digest_of(text),
        compiled_digest=blobs.digest_of(answer.compiled),
        bundle_digest="",
        dsl=answer.dsl,
        version=answer.version,
        title=answer.title,
        description=answer.description,
        labels=answer.labels or {},
        uses_functions=answer.uses_functions,
        calls=answer.calls,
        triggers=answer.triggers,
        text=text,
        compiled=answer.compiled,
    )
    return plan.CheckedFile(content, answer.problems, tuple(answer.functions))


def _needed_as_it_was(misfit: Misfit, content: VersionContent) -> Problem:
    """A changed definition is held back for a caller that stays as it is."""
    return Problem(
        code=misfit.problem.code,
        message=f"{content.name} keeps its last good version: {_as_told(misfit)}",
        file=content.path,
        line=plan.name_line(content.text),
        column=1,
        path="name",
        hint="change both in one commit",
    )


def _needed(misfit: Misfit, name: str, path: str) -> Problem:
    """A definition whose file is gone stays for a caller that stays."""
    return Problem(
        code=problems.NOT_RETIRED,
        message=f"workflow {name} stays live: {_as_told(misfit)}",
        file=path,
        hint="change what calls it in the same commit",
    )


def _as_told(misfit: Misfit) -> str:
    found = misfit.problem
    return (
        f"{misfit.between[0]} calls it as it was ({found.file}:{found.line}:{found.column}: {found.message})"
    )


def _with_problems(file: plan.CheckedFile, found: Sequence[Problem]) -> plan.CheckedFile:
    own = tuple(problem for problem in found if problem.file == file.content.path)
    return replace(file, problems=file.problems + own)


def _too_large(path: str, found: reading.CommitReading) -> plan.CheckedFile:
    message = f"the file is larger than {reading.MAX_TEXT} bytes"
    answer = Answer(
        path=path, problems=(Problem(code=dsl_codes.TOO_LARGE, message=message, file=path, line=1),)
    )
    return _checked(answer, replace(found, texts={path: b""}))


_LIVE_FIELDS = tuple(name for name in LiveDefinition.__dataclass_fields__ if name != "name_line")


def _live(row: dict[str, Any]) -> LiveDefinition:
    return LiveDefinition(**{name: row[name] for name in _LIVE_FIELDS})
