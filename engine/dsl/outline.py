"""The tasks of a definition in their scopes: who is who, who awaits whom. Tolerates a definition that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.dsl import words
from engine.dsl.activity_types import ActivityTypeInfo, ActivityTypes
from engine.dsl.loader import Path
from engine.dsl.order import Node, Order

SCOPES = ("tasks", "on_failure", "finally")


@dataclass(frozen=True, slots=True, eq=False)
class OutlineTask:
    """One task: its data as written, where it stands, and what is known of its activity type."""

    id: str
    data: Mapping[str, Any]
    path: Path
    info: ActivityTypeInfo | None


@dataclass(frozen=True, slots=True)
class TaskSet:
    """Ids of tasks, as a mask over the positions of a scope, and some more."""

    positions: Mapping[str, int]
    mask: int
    more: frozenset[str] = frozenset()

    def __contains__(self, task: object) -> bool:
        position = self.positions.get(task)  # type: ignore[call-overload]
        return (position is not None and bool(self.mask >> position & 1)) or task in self.more

    def __or__(self, ids: frozenset[str]) -> TaskSet:
        return TaskSet(self.positions, self.mask, self.more | ids)


@dataclass(eq=False)
class Scope:
    """One DAG: `tasks`, `on_failure` or `finally`."""

    key: str
    tasks: list[OutlineTask]

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each id; the first one of those that share an id."""
        found: dict[str, int] = {}
        for position, task in enumerate(self.tasks):
            found.setdefault(task.id, position)
        return found

    @cached_property
    def order(self) -> Order:
        """The order of the tasks; a dependency that names nothing here is left out."""
        return Order([self._node(task) for task in self.tasks])

    def _node(self, task: OutlineTask) -> Node:
        data = task.data
        before = [d for d in data.get("depends_on", []) if isinstance(d, str)]
        return Node(
            task.id,
            tuple(dict.fromkeys(self.positions[d] for d in before if d in self.positions)),
            data.get("run_on", "success"),
            may_skip=data.get("when", True) is not True,
            may_fail=data.get("continue_on_failure", False),
        )


class Outline:
    """All tasks of a definition. A task without a usable id is left out."""

    def __init__(self, definition: Mapping[str, Any], types: ActivityTypes) -> None:
        self.types: dict[str, ActivityTypeInfo | None] = {}
        self._all_types = types
        self.scopes = [Scope(key, self._tasks(definition, key)) for key in SCOPES]
        self.tasks = [task for scope in self.scopes for task in scope.tasks]
        self.by_id: dict[str, OutlineTask] = {}
        for task in self.tasks:
            self.by_id.setdefault(task.id, task)

    @property
    def named(self) -> list[OutlineTask]:
        """One task for each id."""
        return list(self.by_id.values())

    def scope_of(self, task: OutlineTask) -> Scope:
        """The scope that holds the task."""
        return self.scopes[SCOPES.index(str(task.path[0]))]

    def visible_to(self, task: OutlineTask) -> TaskSet:
        """The tasks whose outcome the task may read: its ancestors, and at the end those of the whole run."""
        scope = self.scope_of(task)
        mask = -1 if scope.order.cycles else scope.order.ancestors(scope.positions[task.id])
        return TaskSet(scope.positions, mask, self._earlier[scope.key])

    def certain_for(self, task: OutlineTask) -> TaskSet:
        """The tasks that have completed whenever the task runs."""
        scope = self.scope_of(task)
        # In a cycle this cannot be told, and the cycle is told already.
        mask = -1 if scope.order.cycles else scope.order.certain(scope.positions[task.id])
        return TaskSet(scope.positions, mask)

    def visible_at_end(self) -> TaskSet:
        """The tasks that the run's `outputs` may read."""
        return TaskSet(self.scopes[0].positions, -1)

    def certain_at_end(self) -> TaskSet:
        """The tasks that are COMPLETED whenever the run is."""
        order = self.scopes[0].order
        return TaskSet(self.scopes[0].positions, -1 if order.cycles else order.certain_at_end())

    def needed_concurrency_limit(self) -> int | None:
        """The limit that keeps a run inside of Temporal's pending activities, if it could pass it."""
        return (
            words.MAX_IN_FLIGHT
            if any(len(scope.tasks) > words.MAX_IN_FLIGHT for scope in self.scopes)
            else None
        )

    @cached_property
    def _earlier(self) -> dict[str, frozenset[str]]:
        found, ids = {}, frozenset[str]()
        for scope in self.scopes:
            found[scope.key] = ids
            ids |= scope.positions.keys()
        return found

    def _tasks(self, definition: Mapping[str, Any], key: str) -> list[OutlineTask]:
        found = []
        listed = definition.get(key, [])
        for index, data in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(data, dict) and isinstance(data.get("id"), str):
                found.append(OutlineTask(data["id"], data, (key, index), self._info(data)))
        return found

    def _info(self, data: Mapping[str, Any]) -> ActivityTypeInfo | None:
        name = data.get("activity_type")
        if not isinstance(name, str) or data.get("type", "activity") != "activity":
            return None
        if name not in self.types:
            self.types[name] = self._all_types.get(name)
        return self.types[name]
