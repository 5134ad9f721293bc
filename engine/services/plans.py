"""What a plan would meet on this server: what is live, what runs, and what recorded runs would have done instead."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from engine.core.contracts import Json
from engine.dsl import loader
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.compiler import digest
from engine.planning.history import replay_all
from engine.planning.planner import FileChange, make_plan
from engine.planning.plans import DefinitionPlan, Live, Plan, RunsOfVersion
from engine.planning.recorded import (
    RecordedAttempt,
    RecordedCancel,
    RecordedRun,
    RecordedSignal,
    RecordedTask,
    RecordedVote,
)
from engine.planning.surroundings import Surroundings
from engine.registry.refs import unknown_source
from engine.registry.workflow_registry import WorkflowRegistry
from engine.storage import impact, registry
from engine.storage.database import Database
from engine.storage.rows import Record

RUNS = 20
"""Recorded runs of each definition that are looked at, unless the caller says otherwise."""
MAX_RUNS = 400
"""Recorded runs that one plan looks at in all: the work of some seconds."""
_AT_ONCE = 2
"""Plans that are worked out at once; others wait, so that they take no more than that from those who start runs."""
_SHOWN = 50
_REPLAYED = ("changed", "moved")
"""What is done to a definition that its recorded runs can say something of."""


class PlanService:
    """Plans against what is live. Reads only, and calls nothing."""

    def __init__(
        self, database: Database, definitions: WorkflowRegistry, packages: Collection[str] = ()
    ) -> None:
        self.packages = frozenset(packages)
        """Installed packages whose functions the operator allows."""
        self._database = database
        self._registry = definitions
        self._types = ActivityTypes.default()
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def plan(
        self,
        base: str,
        head: str,
        files: Sequence[FileChange],
        *,
        names: Mapping[tuple[str, str], str],
        surroundings: Sequence[Surroundings] = (),
        server: str = "",
        source: str = "",
        runs: int = RUNS,
    ) -> Plan:
        """The plan of `files`, the same as offline, with what it would meet here. `surroundings` as of `make_plan`.

        A `head` with problems meets nothing: it would be refused.  `source` keeps other sources out of the answer.
        Raises `NotFound` if there is no such source.
        """
        async with self._gate:
            if source and source not in (there := [row["name"] for row in await self._registry.sources()]):
                raise unknown_source(source, there)
            made = await asyncio.to_thread(
                make_plan, base, head, files, types=self._types, names=names, surroundings=surroundings
            )
            if made.problems:
                return replace(made, server=server)
            return replace(await self._with_live(made, files, source, runs), server=server)

    async def _with_live(self, made: Plan, files: Sequence[FileChange], source: str, runs: int) -> Plan:
        by_path = {file.path: file for file in files}
        definitions = []
        left, cut = MAX_RUNS, 0
        for each in made.definitions:
            old = by_path.get(each.old_path or each.path)
            new = by_path.get(each.path) if each.change != "retired" else None
            asked = min(runs, left)
            cut += asked < runs and each.change in _REPLAYED
            met = await self._met(each, old.old if old else None, new.new if new else None, source, asked)
            left = max(0, left - sum(live.replayed + len(live.unknown) for live in met))
            definitions.append(replace(each, live=met))
        notes = (
            (f"of {cut} definitions not all recorded runs were looked at: name some as PATH",) if cut else ()
        )
        return replace(made, definitions=tuple(definitions), notes=(*made.notes, *notes))

    async def _met(
        self, plan: DefinitionPlan, old: bytes | None, new: bytes | None, source: str, runs: int
    ) -> tuple[Live, ...]:
        async with self._database.read() as connection:
            known = await registry.definitions(connection, plan.name, source)
            live = {row["source"]: row for row in await registry.live_by_name(connection, plan.name, source)}
        # With folders as environments the name stands in several sources, and the file belongs to one of them.
        theirs = [row for row in known if _lies_in(plan.path, row["folder"])] or known
        return tuple(
            [await self._of_source(plan, row, live.get(row["source"]), old, new, runs) for row in theirs]
        )

    async def _of_source(
        self,
        plan: DefinitionPlan,
        known: Record,
        live: Record | None,
        old: bytes | None,
        new: bytes | None,
        runs: int,
    ) -> Live:
        async with self._database.read() as connection:
            open_runs = await impact.open_runs(connection, known["source_id"], plan.name)
            parents = await impact.parents(connection, known["source_id"], plan.name)
            recorded = []
            if plan.change in _REPLAYED and new is not None and runs:
                recorded = await impact.recorded_runs(connection, known["source_id"], plan.name, count=runs)
        replayed = await self._replayed(recorded, new) if recorded and new is not None else Live("")
        return replace(
            replayed,
            source=known["source"],
            commit_sha=live["commit_sha"] if live else "",
            is_base=live is not None and old is not None and digest(old) == live["digest"],
            runs=tuple(_by_version(open_runs)),
            parents=tuple(parents),
            triggers=tuple(await self._triggers(live)) if live else (),
        )

    async def _replayed(self, rows: Sequence[Record], new: bytes) -> Live:
        played = [(_recorded(row), await self._registry.compiled(row["compiled_digest"])) for row in rows]

        def work() -> Live:
            form = check(new, "", self._types).compiled
            assert form is not None  # it was checked before
            differ, unknown = replay_all(played, form, self._types)
            return Live(
                "",
                replayed=len(played) - len(unknown),
                differ=tuple(differ[:_SHOWN]),
                unknown=tuple(unknown[:_SHOWN]),
            )

        return await asyncio.to_thread(work)

    async def _triggers(self, live: Record) -> list[str]:
        document = loader.load(await self._registry.content(live["digest"]), live["path"])
        data = document.data if isinstance(document, loader.Document) else {}
        listed = data.get("triggers") if isinstance(data, dict) else None
        return [_trigger(each) for each in listed or () if isinstance(each, dict)]


def _lies_in(path: str, folder: str) -> bool:
    inside = folder.strip("/.")
    return not inside or path.startswith(f"{inside}/")


def _trigger(trigger: Mapping[str, Json]) -> str:
    when = f" ({trigger['cron']})" if isinstance(trigger.get("cron"), str) else ""
    return f"{trigger.get('type')} {trigger.get('id')}{when}"


def _by_version(rows: Sequence[Record]) -> list[RunsOfVersion]:
    grouped: dict[str, list[Record]] = defaultdict(list)
    for row in rows:
        grouped[row["commit_sha"]].append(row)
    return [
        RunsOfVersion(
            commit_sha=sha,
            count=sum(row["count"] for row in of_version),
            statuses={row["status"]: row["count"] for row in of_version},
            oldest=min(row["oldest"] for row in of_version).isoformat(),
        )
        for sha, of_version in grouped.items()
    ]


def _recorded(row: Record) -> RecordedRun:
    attempts: dict[str, list[RecordedAttempt]] = defaultdict(list)
    for each in row["attempts"]:
        attempts[each["task"]].append(
            RecordedAttempt(each["attempt"], each["status"], each["seconds"] or 0.0, each["error"])
        )
    votes: dict[str, list[RecordedVote]] = defaultdict(list)
    for each in row["votes"]:
        votes[each["task"]].append(
            RecordedVote(each["by"], each["decision"], each["after"], each["comment"], each["form"])
        )
    return RecordedRun(
        id=row["id"],
        commit_sha=row["commit_sha"],
        status=row["status"],
        inputs=row["inputs"],
        started_by=row["started_by"],
        started_at=row["started_at"],
        tasks=tuple(
            RecordedTask(
                each["task"],
                each["status"],
                each["attempts"],
                each["started_at"],
                each["finished_at"],
                each["outputs"],
                each["error"],
                each["cached"],
                each["compensation"],
            )
            for each in row["tasks"]
        ),
        attempts={task: tuple(each) for task, each in attempts.items()},
        votes={task: tuple(each) for task, each in votes.items()},
        signals=tuple(
            RecordedSignal(
                each["name"],
                each["after"],
                each["payload"],
                each["task"],
                each["correlation"],
                each["by"],
            )
            for each in row["signals"]
        ),
        cancel=next(
            (RecordedCancel(each["by"], each["after"], each["reason"]) for each in row["cancels"]), None
        ),
        commit_author=row["commit_author"],
        trigger=row["trigger"],
        targets=tuple(row["targets"]),
    )
