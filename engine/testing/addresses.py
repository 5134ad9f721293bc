"""How a test names tasks: by path (`rollout.deploy`, every instance of it) or by address (`rollout[3].deploy`, one of them).

A path goes through groups, maps, loops and child workflows alike; `~undo` behind it is the task's compensation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

UNDO: Final = "~undo"
PHASES: Final = ("tasks", "on_failure", "finally")
_DEEPEST: Final = 20
"""Levels of tasks in tasks that are looked at; the language allows fewer."""

_STEP: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[(\d+)\])?")
_T = TypeVar("_T")

Definitions = Callable[[str], Mapping[str, Any] | None]
"""From a workflow's name to its compiled form; None if there is none."""


def path_of(address: str) -> str:
    """The address without its indices."""
    return re.sub(r"\[\d+\]", "", address)


def steps(address: str) -> list[tuple[str, str]] | None:
    """`rollout[3].deploy` as `[(rollout, 3), (deploy, "")]`; None if it is no address."""
    found = []
    for part in address.removesuffix(UNDO).split("."):
        step = _STEP.fullmatch(part)
        if step is None:
            return None
        found.append((step[1], step[2] or ""))
    return found


class Tasks:
    """The tasks that a test of `compiled` may name, those of its children included."""

    def __init__(self, compiled: Mapping[str, Any], definitions: Definitions) -> None:
        self._compiled = compiled
        self._definitions = definitions

    def find(self, address: str) -> Mapping[str, Any] | None:
        """The compiled task, or the compensation of one; None if there is no such task."""
        wanted = steps(address)
        if wanted is None:
            return None
        scope = _top(self._compiled)
        task: Mapping[str, Any] | None = None
        for at, (name, index) in enumerate(wanted):
            task = scope.get(name)
            if task is None or (index and task["type"] not in ("map", "loop")):
                return None
            if at < len(wanted) - 1:
                scope = self._inside(task)
        if address.endswith(UNDO):
            return None if task is None else task.get("compensate")
        return task

    def paths(self) -> list[str]:
        """Every path, in the order of the definition; tasks of children after the task that starts them."""
        return list(self._paths("", _top(self._compiled), 0))

    def _paths(self, prefix: str, scope: Mapping[str, Any], depth: int) -> Iterator[str]:
        for name, task in scope.items():
            yield prefix + name
            if task.get("compensate"):
                yield prefix + name + UNDO
            if depth < _DEEPEST:
                yield from self._paths(f"{prefix}{name}.", self._inside(task), depth + 1)

    def _inside(self, task: Mapping[str, Any]) -> dict[str, Any]:
        if task["type"] != "workflow":
            return {inner["id"]: inner for inner in task.get("tasks") or ()}
        found: dict[str, Any] = {}
        for name in children_of(task):
            child = self._definitions(name)
            for inner, value in _top(child).items() if child else ():
                found.setdefault(inner, value)
        return found


def children_of(task: Mapping[str, Any]) -> list[str]:
    """The workflows that a task of type `workflow` may start."""
    fixed = task["workflow"]
    return [fixed] if isinstance(fixed, str) else list(task.get("one_of") or ())


def _top(compiled: Mapping[str, Any]) -> dict[str, Any]:
    return {task["id"]: task for phase in PHASES for task in compiled[phase]}


class ByAddress(dict[str, _T]):
    """Values by path or address; of those that fit an address, the one that names most indices counts."""

    def of(self, address: str) -> _T | None:
        """The value for the task at `address`."""
        if address in self:
            return self[address]
        mine = steps(address)
        if mine is None:
            return None
        best: tuple[int, str] | None = None
        undo = address.endswith(UNDO)
        for key in self:
            said = steps(key)
            if said is None or key.endswith(UNDO) != undo or len(said) != len(mine):
                continue
            if all(
                name == other and index in ("", at)
                for (name, index), (other, at) in zip(said, mine, strict=True)
            ):
                named = sum(bool(index) for _, index in said)
                if best is None or named > best[0]:
                    best = (named, key)
        return None if best is None else self[best[1]]
