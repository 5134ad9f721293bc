"""What stands at the head of a source beside the files that differ, and what the two say of each other.

The same checks as of `pinflow validate` and of the sync daemon: children that are called, functions, and their lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.calls import Definition, check_calls
from engine.dsl.check_functions import Functions, check_functions, functions_called
from engine.dsl.checking import check
from engine.dsl.function_lock import check_lock
from engine.errors import Problem

_STARTS = b"workflow"
"""What the text of a definition has that starts others."""
_NAME = re.compile(rb"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One source at the head. `names` are the paths of definitions that do not change, `others` their texts by path.

    `functions` is None where nothing that changes calls any. `lock` are the files that name packages.  Of a name without
    a text it is known that it is there, and nothing else.
    """

    folder: str = ""
    others: Mapping[str, bytes] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    functions: Functions | None = None
    functions_folder: str = "functions"
    lock: Mapping[str, bytes] = field(default_factory=dict)


def problems_around(
    changed: Sequence[Definition],
    wrong: Iterable[str],
    gone: Iterable[str],
    around: Surroundings,
    types: ActivityTypes,
) -> list[Problem]:
    """What does not fit at the head: between the `changed` definitions, and with those that stay.

    `wrong` are the names of changed ones with faults of their own, `gone` those that retire.
    """
    found: list[Problem] = []
    if around.functions is not None:
        found += check_lock(around.lock, around.functions_folder)
        for each in changed:
            found += check_functions(each.compiled, each.text, each.file, around.functions)
    together, unreadable = _together(changed, gone, around, types)
    return found + check_calls(together, {*wrong, *unreadable})


def narrowed(
    changed: Sequence[Definition], gone: Iterable[str], around: Surroundings, types: ActivityTypes
) -> Surroundings:
    """The same without what the changed definitions have nothing to do with: it gives the same problems."""
    together, _ = _together(changed, gone, around, types)
    files = {each.file for each in together}
    others = {path: text for path, text in around.others.items() if path in files}
    if around.functions is None:
        return replace(around, others=others)
    called = {name for each in changed for name in functions_called(each.compiled)}
    wanted = {around.functions.module_of(name) for name in called}
    names = {path: around.functions.names(path) for path in around.functions.paths if path in wanted}
    return replace(around, others=others, functions=replace(around.functions, names=names.get))


def _together(
    changed: Sequence[Definition], gone: Iterable[str], around: Surroundings, types: ActivityTypes
) -> tuple[list[Definition], set[str]]:
    """The changed definitions, who starts them, and all that these start; and the names of those that cannot be read."""
    names = {each.name.encode() for each in changed} | {name.encode() for name in gone}
    callers = [
        path
        for path, text in around.others.items()
        if _STARTS in text and not names.isdisjoint(_NAME.findall(text))
    ]
    found = {each.name: each for each in changed}
    by_path = {path: name for name, path in around.names.items()}
    unreadable: set[str] = set()
    wanted = [by_path[path] for path in callers if path in by_path]
    wanted += _started(changed)
    while wanted:
        known = {*found, *unreadable}
        new = [name for name in dict.fromkeys(wanted) if name in around.names and name not in known]
        wanted = []
        for name in new:
            path = around.names[name]
            text = around.others.get(path)
            compiled = None if text is None else check(text, path, types).compiled
            if text is None or compiled is None:
                unreadable.add(name)
            else:
                found[name] = Definition(compiled, path, text)
                wanted += _started([found[name]])
    return list(found.values()), unreadable


def _started(definitions: Iterable[Definition]) -> list[str]:
    return [call["workflow"] for each in definitions for call in each.compiled.get("calls", ())]
