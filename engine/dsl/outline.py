"""The tasks of a definition in their scopes: who is who, who awaits whom. Tolerates a definition that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from engine.dsl import words
from engine.dsl.activity_types import ActivityTypeInfo, ActivityTypes
from engine.dsl.loader import Path
from engine.dsl.order import Node, Order

SCOPES = ("tasks", "on_failure", "finally")
COMPOSITES = frozenset({"map", "loop", "group"})
"""Kinds of tasks that hold tasks."""


@dataclass(frozen=True, slots=True, eq=False)
class OutlineTask:
    """One task: its data as written, where it stands, and what is known of its activity type; `body` holds its own tasks."""

    id: str
    data: Mapping[str, Any]
    path: Path
    info: ActivityTypeInfo | None
    scope: Scope
    body: Scope | None = None

    @property
    def kind(self) -> str:
        """Its type, `activity` if it says none."""
        kind = self.data.get("type", "activity")
        return kind if isinstance(kind, str) else ""


@dataclass(frozen=True, slots=True)
class TaskSet:
    """Ids of tasks, as a mask over the positions of a scope, some more, and those of the scopes around it."""

    positions: Mapping[str, int]
    mask: int
    more: frozenset[str] = frozenset()
    outer: TaskSet | None = None

    def __contains__(self, task: object) -> bool:
        position = self.positions.get(task)  # type: ignore[call-overload]
        if position is not None and self.mask >> position & 1:
            return True
        return task in self.more or (self.outer is not None and task in self.outer)

    def __or__(self, ids: frozenset[str]) -> TaskSet:
        return TaskSet(self.positions, self.mask, self.more | ids, self.outer)


@dataclass(eq=False)
class Scope:
    """One DAG: `tasks`, `on_failure` or `finally` of the workflow, or the tasks inside of a map, a loop or a group."""

    key: str
    """The list of the workflow that it is, or stands in."""
    path: Path
    owner: OutlineTask | None = None
    tasks: list[OutlineTask] = field(default_factory=list)

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

    def around(self) -> Iterator[Scope]:
        """This scope and those around it, the innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.owner.scope if scope.owner else None

    def find(self, task: str) -> OutlineTask | None:
        """The task that `task` means here: one of this scope, or of those around it."""
        for scope in self.around():
            if task in scope.positions:
                return scope.tasks[scope.positions[task]]
        return None

    def last(self) -> list[OutlineTask]:
        """The tasks behind which no other comes."""
        awaited = {name for task in self.tasks for name in task.data.get("depends_on", []) if name}
        return [task for task in self.tasks if task.id not in awaited]

    def all_at_end(self, outer: TaskSet | None = None) -> TaskSet:
        """All of its tasks, as what comes after the last of them may read them."""
        return TaskSet(self.positions, -1, outer=outer)

    def certain_at_end(self, outer: TaskSet | None = None) -> TaskSet:
        """The tasks that are COMPLETED whenever the whole scope ended well."""
        return TaskSet(self.positions, -1 if self.order.cycles else self.order.certain_at_end(), outer=outer)

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
        self.tasks: list[OutlineTask] = []
        """Every task, those inside of others right behind these."""
        self.bodies: list[Scope] = []
        """The scopes inside of tasks."""
        self.scopes = [Scope(key, (key,)) for key in SCOPES]
        for scope in self.scopes:
            self._fill(scope, definition.get(scope.key, []))
        self.by_id: dict[str, OutlineTask] = {}
        """The tasks of the workflow's own lists."""
        for scope in self.scopes:
            for task in scope.tasks:
                self.by_id.setdefault(task.id, task)

    @property
    def all_scopes(self) -> list[Scope]:
        """The workflow's own lists, and those inside of tasks."""
        return self.scopes + self.bodies

    def visible_to(self, task: OutlineTask, outer: TaskSet | None) -> TaskSet:
        """The tasks whose outcome the task may read: its ancestors, and what the task around it may read."""
        scope = task.scope
        mask = -1 if scope.order.cycles else scope.order.ancestors(scope.positions[task.id])
        more = frozenset() if scope.owner else self._earlier[scope.key]
        return TaskSet(scope.positions, mask, more, outer)

    def certain_for(self, task: OutlineTask, outer: TaskSet | None) -> TaskSet:
        """The tasks that have completed whenever the task runs."""
        scope = task.scope
        # In a cycle this cannot be told, and the cycle is told already.
        mask = -1 if scope.order.cycles else scope.order.certain(scope.positions[task.id])
        return TaskSet(scope.positions, mask, outer=outer)

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

    def _fill(self, scope: Scope, listed: Any) -> None:
        for index, data in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(data, dict) and isinstance(data.get("id"), str):
                self._add(scope, data, (*scope.path, index))

    def _add(self, scope: Scope, data: Mapping[str, Any], path: Path) -> None:
        info = self._info(data)
        if data.get("type") not in COMPOSITES:
            task = OutlineTask(data["id"], data, path, info, scope)
            scope.tasks.append(task)
            self.tasks.append(task)
            return
        body = Scope(scope.key, (*path, "tasks"))
        task = body.owner = OutlineTask(data["id"], data, path, info, scope, body)
        scope.tasks.append(task)
        self.tasks.append(task)
        self.bodies.append(body)
        self._fill(body, data.get("tasks", []))

    def _info(self, data: Mapping[str, Any]) -> ActivityTypeInfo | None:
        return self.info(data.get("activity_type")) if data.get("type", "activity") == "activity" else None

    def info(self, name: Any) -> ActivityTypeInfo | None:
        """What is known of an activity type; None if there is none of that name."""
        if not isinstance(name, str):
            return None
        if name not in self.types:
            self.types[name] = self._all_types.get(name)
        return self.types[name]
