"""A plan as data: what a range of commits does to each definition. Frozen, ordered, and the same as JSON everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from engine.core.contracts import Json
from engine.errors import Problem

FORMAT: Final = 1
"""Of the JSON: raised when a reader of it would have to change."""

Level = Literal["high", "medium", "low", "none"]
LEVELS: Final[tuple[Level, ...]] = ("high", "medium", "low", "none")
"""Worst first."""

NOT_THERE: Final = "not there"
"""What a recorded run says of a task that the definition does not have."""

Kind = Literal["added", "removed", "changed", "effect"]
DefinitionChange = Literal["added", "changed", "moved", "retired", "rewritten", "invalid"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of meaning. `path` has the ids of tasks: `tasks.gate.config.required_approvals`.

    `kind` is `effect` where nothing is written at `path` and it behaves otherwise all the same. `old` and `new` are
    as in the files, null for what was not there. `line` (from 1) is where to look in the new file, or in the old one
    where the definition retires.
    """

    path: str
    kind: Kind
    old: Json
    new: Json
    level: Level
    code: str
    why: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class RunsOfVersion:
    """Open runs of one version. They end as they began: each keeps the commit it is pinned to."""

    commit_sha: str
    count: int
    statuses: dict[str, int]
    oldest: str = ""
    """When the oldest of them was started."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recorded run whose path would be another under the new definition. `task` is where the paths part."""

    run: str
    commit_sha: str
    task: str
    was: str
    would: str
    status: str = ""
    """How the run ended."""
    would_end: str = ""
    """How it would end, as far as that is known."""


@dataclass(frozen=True, slots=True)
class NotReplayed:
    """A recorded run that says nothing, and why."""

    run: str
    why: str


@dataclass(frozen=True, slots=True)
class Live:
    """What a server knows of a definition that the plan changes."""

    source: str
    commit_sha: str = ""
    """Of the live version; empty if none is live."""
    is_base: bool = False
    """The live version is the one that the plan starts from."""
    runs: tuple[RunsOfVersion, ...] = ()
    parents: tuple[str, ...] = ()
    """Live workflows that start this one as a child."""
    triggers: tuple[str, ...] = ()
    """Schedules and webhooks of the version that is live."""
    replayed: int = 0
    """Recorded runs that were put through the new definition."""
    differ: tuple[Replayed, ...] = ()
    unknown: tuple[NotReplayed, ...] = ()


@dataclass(frozen=True, slots=True)
class DefinitionPlan:
    """What happens to one definition. `old_path` is set where the file has moved; `rewritten` is a change of text alone."""

    name: str
    change: DefinitionChange
    path: str
    old_path: str = ""
    changes: tuple[Change, ...] = ()
    live: tuple[Live, ...] = ()

    @property
    def level(self) -> Level:
        """The worst of its changes."""
        return worst(change.level for change in self.changes)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a range of commits would do. With `problems` it would be refused, and do nothing."""

    base: str
    head: str
    definitions: tuple[DefinitionPlan, ...] = ()
    problems: tuple[Problem, ...] = ()
    server: str = ""
    """The server whose live state was looked at; empty for a plan made offline."""
    notes: tuple[str, ...] = field(default=())

    @property
    def level(self) -> Level:
        """The worst of all changes."""
        return worst(definition.level for definition in self.definitions)

    def counted(self) -> dict[str, int]:
        """How many definitions there are of each kind of change."""
        found: dict[str, int] = {}
        for definition in self.definitions:
            found[definition.change] = found.get(definition.change, 0) + 1
        return found

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON. What only a server knows stands under `live`."""
        return {
            "format": FORMAT,
            "base": self.base,
            "head": self.head,
            "server": self.server,
            "valid": not self.problems,
            "level": self.level,
            "definitions": [_definition(each) for each in self.definitions],
            "problems": [problem.to_json() for problem in self.problems],
            "notes": list(self.notes),
        }


def worst(levels: Iterable[Level]) -> Level:
    """The worst of some levels; `none` of none."""
    return min(levels, key=LEVELS.index, default="none")


def _definition(plan: DefinitionPlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "change": plan.change,
        "path": plan.path,
        "old_path": plan.old_path,
        "level": plan.level,
        "changes": [asdict(change) for change in plan.changes],
        "live": [_tuples_as_lists(asdict(each)) for each in plan.live],
    }


def _tuples_as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples_as_lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tuples_as_lists(item) for item in value]
    return value


def from_json(form: dict[str, Any]) -> Plan:
    """The plan that `to_json` gave, as a client reads it from a server."""
    return Plan(
        base=form["base"],
        head=form["head"],
        definitions=tuple(_read_definition(each) for each in form["definitions"]),
        problems=tuple(Problem(**each) for each in form["problems"]),
        server=form["server"],
        notes=tuple(form["notes"]),
    )


def _read_definition(form: dict[str, Any]) -> DefinitionPlan:
    return DefinitionPlan(
        name=form["name"],
        change=form["change"],
        path=form["path"],
        old_path=form["old_path"],
        changes=tuple(Change(**each) for each in form["changes"]),
        live=tuple(_read_live(each) for each in form["live"]),
    )


def _read_live(form: dict[str, Any]) -> Live:
    return Live(
        source=form["source"],
        commit_sha=form["commit_sha"],
        is_base=form["is_base"],
        runs=tuple(RunsOfVersion(**each) for each in form["runs"]),
        parents=tuple(form["parents"]),
        triggers=tuple(form["triggers"]),
        replayed=form["replayed"],
        differ=tuple(Replayed(**each) for each in form["differ"]),
        unknown=tuple(NotReplayed(**each) for each in form["unknown"]),
    )
