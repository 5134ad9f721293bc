"""What several definitions say of each other: children that are not there, inputs that cannot fit, calls without end.

Pure, and in proportion to the calls: a definition that starts no other is only looked up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.dsl import codes, loader
from engine.dsl.check_inputs import misfits
from engine.dsl.loader import Path, shown
from engine.dsl.structure import closest
from engine.dsl.templates import expressions_in
from engine.errors import Problem

_WHERE = {
    "same": "a child of `ref: same` stands in the same source, at the same commit",
    "latest": "a child of `ref: latest` is what is live in the same source",
}
_FOLLOWED = tuple(_WHERE)
"""Refs that lead to what is live together, and may lead back: a commit that is named by its SHA calls nothing newer."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One of the definitions that are checked together: its compiled form, and the file for the places of problems.

    Without `text` a problem names the file alone: for definitions that did not change.
    """

    compiled: Mapping[str, Any]
    file: str
    text: bytes = b""

    @property
    def name(self) -> str:
        """The workflow's name."""
        return str(self.compiled["name"])


@dataclass(frozen=True, slots=True)
class Misfit:
    """A problem, and the names of the workflows that it lies between: the caller first."""

    problem: Problem
    between: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """One task that starts a child: `targets` are the names, each with where it stands in the definition."""

    task: Mapping[str, Any]
    path: Path
    ref: str
    targets: tuple[tuple[str, Path], ...]


def check_calls(definitions: Iterable[Definition], wrong: Collection[str] = ()) -> list[Problem]:
    """The problems of definitions that belong together: those of one folder, or of one source at one commit.

    Each problem stands in the caller's file.  `wrong` are the names of those that have faults of their own: they are
    there, and nothing else is known of them.
    """
    return [each.problem for each in find_misfits(definitions, wrong)]


def find_misfits(definitions: Iterable[Definition], wrong: Collection[str] = ()) -> list[Misfit]:
    """The same, with the names that each problem is about."""
    by_name: dict[str, Definition] = {}
    for definition in definitions:
        by_name.setdefault(definition.name, definition)
    callers = {
        name: tuple(_calls(found.compiled)) for name, found in by_name.items() if "calls" in found.compiled
    }
    found: list[Misfit] = []
    for name in sorted(callers):
        place = _Place(by_name[name])
        for call in callers[name]:
            found += (
                Misfit(problem, (name, target)) for target, problem in _misfits(call, by_name, wrong, place)
            )
    for trail in _cycles(callers):
        place = _Place(by_name[trail[0]])
        at = next(path for call in callers[trail[0]] for target, path in call.targets if target == trail[1])
        message = f"workflows start each other, without end: {shown(' -> '.join(trail), 300)}"
        hint = "break the circle, or repeat with `type: loop`"
        found.append(Misfit(place.problem(codes.CALL_CYCLE, message, at, hint=hint), tuple(trail[:-1])))
    return sorted(dict.fromkeys(found), key=lambda m: (m.problem.file, m.problem.line, m.problem.column))


class _Place:
    """Where the problems of one definition stand; its text is read only if there is one."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._document: Any = None

    def problem(self, code: str, message: str, path: Path, *, hint: str = "", key: bool = False) -> Problem:
        """A problem at a path of the definition."""
        file = self._definition.file
        if self._document is None and self._definition.text:
            self._document = loader.load(self._definition.text, file)
        if not isinstance(self._document, loader.Document):
            return Problem(code, message, file, path=".".join(map(str, path)), hint=hint)
        return self._document.problem(code, message, path, hint=hint, key=key)


def _misfits(
    call: _Call, by_name: Mapping[str, Definition], wrong: Collection[str], place: _Place
) -> Iterator[tuple[str, Problem]]:
    if call.ref not in _FOLLOWED:
        return  # another commit has its own answer, when the root run starts
    for target, at in call.targets:
        child = by_name.get(target)
        if child is None and target in wrong:
            continue
        if child is None:
            hint = closest(target, sorted(by_name)) or _WHERE[call.ref]
            yield target, place.problem(codes.CALL, f"there is no workflow `{shown(target)}`", at, hint=hint)
            continue
        given = {name: _written(value) for name, value in call.task["inputs"].items()}
        for each in misfits(child.compiled["inputs"], given):
            where = (*call.path, "inputs", *each.path) if each.path else (*call.path, "workflow")
            message = f"`{target}`: {each.message}"
            yield target, place.problem(codes.CALL, message, where, hint=each.hint, key=each.key)


def _written(value: Any) -> Any:
    """A compiled value as `misfits` takes it: a constant as it is, and one text for what an expression will give."""
    if expressions_in(value):
        return "${{ }}"
    return value["$lit"] if isinstance(value, dict) and "$lit" in value else value


def _calls(compiled: Mapping[str, Any]) -> Iterator[_Call]:
    for key in ("tasks", "on_failure", "finally"):
        yield from _calls_in(compiled[key], (key,))


def _calls_in(tasks: Sequence[Mapping[str, Any]], at: Path) -> Iterator[_Call]:
    for index, task in enumerate(tasks):
        path = (*at, index)
        if task["type"] == "workflow":
            listed = task.get("one_of")
            targets = (
                tuple((name, (*path, "one_of", position)) for position, name in enumerate(listed))
                if listed
                else ((task["workflow"], (*path, "workflow")),)
            )
            yield _Call(task, path, task["ref"], targets)
        elif "tasks" in task:
            yield from _calls_in(task["tasks"], (*path, "tasks"))


def _cycles(callers: Mapping[str, tuple[_Call, ...]]) -> Iterator[list[str]]:
    """Each cycle once, as a trail that ends where it begins; the names in it are not looked at again."""
    after = {
        name: sorted({target for call in calls if call.ref in _FOLLOWED for target, _ in call.targets})
        for name, calls in callers.items()
    }
    done: set[str] = set()
    for start in sorted(after):
        trail: list[str] = []
        waiting = [iter([start])]
        while waiting:
            name = next(waiting[-1], None)
            if name is None:
                waiting.pop()
                if trail:
                    done.add(trail.pop())
            elif name in trail:
                cycle = trail[trail.index(name) :]
                first = cycle.index(min(cycle))
                yield [*cycle[first:], *cycle[:first], cycle[first]]
            elif name not in done:
                trail.append(name)
                waiting.append(iter(after.get(name, ())))
