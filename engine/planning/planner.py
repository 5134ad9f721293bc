"""From files before and after to a plan. No git, no server, no clock: the same files give the same plan everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.dsl import codes, loader
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.loader import Document
from engine.errors import Problem
from engine.planning.difference import Difference, differences, place_of
from engine.planning.effects import effects
from engine.planning.meaning import Meaning, meaning
from engine.planning.plans import LEVELS, Change, DefinitionPlan, Plan
from engine.planning.risks import RULES_BY_CODE, classify

_EMPTY = b"{}"
_Name: TypeAlias = tuple[str, str]
"""The folder of a source, and the name of a definition in it."""
_ORDER = ("invalid", "retired", "changed", "added", "moved", "rewritten")


@dataclass(frozen=True, slots=True)
class FileChange:
    """A definition file at the two ends of the range; None where it does not stand.

    `functions` are files below the source's `functions/` that differ: they change what the definition does, even
    where its own text is the same at both ends.  `folder` is that of the source: in two of them the same name may
    stand, as two workflows.
    """

    path: str
    old: bytes | None
    new: bytes | None
    functions: tuple[str, ...] = ()
    folder: str = ""


@dataclass(frozen=True, slots=True)
class _Side:
    path: str
    text: bytes
    meaning: Meaning


def make_plan(
    base: str,
    head: str,
    files: Sequence[FileChange],
    *,
    types: ActivityTypes,
    names: Mapping[tuple[str, str], str] | None = None,
    problems: Sequence[Problem] = (),
) -> Plan:
    """The plan of `files`, which may leave out what is the same at both ends.

    `names` are those of definitions that do not change (the source's folder and the name), with the path of each: a name
    stands once in a source. `problems` are those that were found on the way here.
    """
    found = list(problems)
    old: dict[_Name, _Side] = {}
    new: dict[_Name, _Side] = {}
    invalid: dict[_Name, DefinitionPlan] = {}
    for file in sorted(files, key=lambda each: each.path):
        before = _side(file.path, file.old)
        if before is not None and before.meaning.name:
            old.setdefault((file.folder, before.meaning.name), before)
        if file.new is None:
            continue
        checked = check(file.new, file.path, types)
        found += checked.problems
        if checked.problems:
            name = checked.name or (before.meaning.name if before else "")
            invalid[file.folder, name or file.path] = DefinitionPlan(name, "invalid", file.path)
            continue
        after = _side(file.path, file.new)
        assert after is not None
        known = (file.folder, after.meaning.name)
        if (
            twice := _twice(after, new[known].path if known in new else (names or {}).get(known))
        ) is not None:
            found.append(twice)
        new.setdefault(known, after)
    functions = {file.path: file.functions for file in files if file.functions}
    plans = [*invalid.values()]
    for known in sorted({*old, *new} - {*invalid}):
        planned = _definition(known[1], old.get(known), new.get(known), functions)
        plans += [planned] if planned else []
    plans.sort(key=lambda each: (LEVELS.index(each.level), _ORDER.index(each.change), each.name, each.path))
    return Plan(base, head, tuple(plans), tuple(found))


def plan_definition(name: str, path: str, old: bytes | None, new: bytes | None) -> DefinitionPlan | None:
    """The plan of one definition whose two texts are known to be valid."""
    before, after = _side(path, old), _side(path, new)
    return _definition(name, before, after, {})


def _side(path: str, text: bytes | None) -> _Side | None:
    document = loader.load(text, path) if text is not None else None
    found = meaning(document) if isinstance(document, Document) else None
    return None if found is None or text is None else _Side(path, text, found)


def _twice(after: _Side, first: str | None) -> Problem | None:
    if first is None or first == after.path:
        return None
    return after.meaning.document.problem(
        codes.DUPLICATE_NAME, f"the workflow `{loader.shown(after.meaning.name)}` stands already in {first}", ("name",),
        hint="names are unique in a source",
    )  # fmt: skip


def _definition(
    name: str, old: _Side | None, new: _Side | None, functions: Mapping[str, tuple[str, ...]]
) -> DefinitionPlan | None:
    if new is None:
        assert old is not None
        return DefinitionPlan(name, "retired", old.path, changes=(_whole("DEFINITION_RETIRED", name, None),))
    if old is None:
        return DefinitionPlan(name, "added", new.path, changes=_added(name, new))
    moved = old.path if old.path != new.path else ""
    changes = [
        _change(each) for each in (*effects(old.meaning, new.meaning), *differences(old.meaning, new.meaning))
    ]
    if (code := functions.get(new.path)) and _uses_functions(new.meaning):
        changes.append(_of_functions(old.meaning, new.meaning, code))
    if changes:
        return DefinitionPlan(name, "changed", new.path, moved, _sorted(changes))
    if moved:
        return DefinitionPlan(
            name, "moved", new.path, moved, (_whole("DEFINITION_MOVED", old.path, new.path),)
        )
    if old.text != new.text:
        return DefinitionPlan(name, "rewritten", new.path)
    return None


def _added(name: str, new: _Side) -> tuple[Change, ...]:
    """A new definition is one change; what deserves a look in it is told beside."""
    nothing = _side(new.path, _EMPTY)
    assert nothing is not None
    changes = [_change(each) for each in effects(nothing.meaning, new.meaning)]
    changes += [
        _change(each)
        for each in differences(nothing.meaning, new.meaning)
        if each.task is None and each.key[:1] in (("triggers",), ("concurrency",))
    ]
    return _sorted([_whole("DEFINITION_ADDED", None, name), *changes])


def _sorted(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Worst first; the same level in the order of the file."""
    return tuple(
        sorted(changes, key=lambda each: (LEVELS.index(each.level), each.line, each.path, each.code))
    )


def _change(difference: Difference) -> Change:
    rule = classify(difference)
    line, column = place_of(difference)
    return Change(
        path=difference.path,
        kind=difference.kind,
        old=difference.old,
        new=difference.new,
        level=rule.level,
        code=rule.code,
        why=rule.why,
        line=line,
        column=column,
    )


def _whole(code: str, old: str | None, new: str | None) -> Change:
    rule = RULES_BY_CODE[code]
    kind: Any = "added" if old is None else "removed" if new is None else "changed"
    return Change("", kind, old, new, rule.level, rule.code, rule.why, 1 if new is not None else 0, 0)


def _uses_functions(found: Meaning) -> bool:
    return any(task.data.get("activity_type") == "python_function" for task in found.tasks.values())


def _of_functions(before: Meaning, after: Meaning, files: tuple[str, ...]) -> Change:
    first = next(task for task in after.tasks.values() if task.data.get("activity_type") == "python_function")
    difference = Difference(
        "changed", "functions", ("functions",), None, list(files), before, after, place=first.place
    )
    return _change(difference)
