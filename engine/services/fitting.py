"""Whether a definition fits to what is live in a source: what the sync daemon will ask of the commit that brings it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engine.dsl.check_functions import functions_called
from engine.dsl.compiler import canonical, digest
from engine.dsl.definition_files import FUNCTIONS
from engine.errors import InvalidDefinition, Problem
from engine.registry.revisions import Bundle, VersionContent
from engine.registry.workflow_registry import WorkflowRegistry
from engine.storage.database import Database
from engine.storage.rows import Record
from engine.sync import calls, functions
from engine.sync.checker import Checker
from engine.sync.plan import CheckedFile, join


class Fitting:
    """The checks of a commit, of one definition before there is a commit. `packages` are those that may be called."""

    def __init__(self, database: Database, definitions: WorkflowRegistry, packages: Collection[str]) -> None:
        self._database = database
        self._registry = definitions
        self._packages = packages

    async def require(
        self, target: Record, path: str, text: bytes, compiled: dict[str, Any], *, with_functions: bool = True
    ) -> None:
        """Raises `InvalidDefinition`, each problem located, if the source would refuse the definition at `path`.

        Without `with_functions`, those that it calls are not looked for.
        """
        file = _file(path, text, compiled)
        misfits = await calls.misfits(self._database, self._registry, target["id"], [file], [])
        found = [each.problem for each in misfits]
        if with_functions and file.functions:
            found += await self._of_functions(target, file)
        if found:
            raise InvalidDefinition(found)

    async def _of_functions(self, target: Record, file: CheckedFile) -> list[Problem]:
        """Against the functions that are live; a module is read in a process of its own, as everywhere."""
        cursor = await self._registry.cursor(target["id"])
        place = join(target["folder"], FUNCTIONS)
        checker = Checker(processes=1, packages=self._packages)
        try:
            judged = await functions.judge(
                checker, self._registry, Bundle(cursor.live_bundle), place, [file], [], [file.content.path]
            )
        finally:
            await checker.aclose()
        return [*judged.files[0].problems]


def _file(path: str, text: bytes, compiled: dict[str, Any]) -> CheckedFile:
    form = canonical(compiled)
    content = VersionContent(
        name=compiled["name"],
        path=path,
        git_blob="",
        digest=digest(text),
        compiled_digest=digest(form),
        bundle_digest="",
        dsl="",
        version="",
        title="",
        description="",
        labels={},
        uses_functions=False,
        calls=compiled.get("calls", []),
        text=text,
        compiled=form,
    )
    return CheckedFile(content, functions=tuple(functions_called(compiled)))
