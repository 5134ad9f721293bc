"""Whether the functions that a definition calls stand in `functions/`: read as syntax, nothing is imported.

What belongs to no module of the folder may be an installed package's, which only the worker knows; it is passed over
unless it looks like a slip of the pen.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from engine.dsl import codes, loader
from engine.dsl.bundle import has_module
from engine.dsl.loader import Path, shown
from engine.dsl.structure import closest
from engine.errors import Problem

ACTIVITY = "python_function"

Read = Callable[[str], bytes]
"""The content of a file of the folder, by its path in it."""


def check_functions(
    compiled: Mapping[str, Any], text: bytes, file: str, paths: Collection[str], read: Read
) -> list[Problem]:
    """The problems of a definition's calls, given the `paths` of the files in its folder `functions/`."""
    faults = [
        (fault, path)
        for called, path in _called(compiled)
        if (fault := _fault(called, paths, read)) is not None
    ]
    document = loader.load(text, file) if faults else None
    if not isinstance(document, loader.Document):
        return []
    return [document.problem(codes.FUNCTION, message, path, hint=hint) for (message, hint), path in faults]


def _called(compiled: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for key in ("tasks", "on_failure", "finally"):
        yield from _called_in(compiled.get(key) or (), (key,))


def _called_in(tasks: Sequence[Mapping[str, Any]], at: Path) -> Iterator[tuple[str, Path]]:
    for index, task in enumerate(tasks):
        path = (*at, index)
        if "tasks" in task:
            yield from _called_in(task["tasks"], (*path, "tasks"))
        for call, place in ((task, path), (task.get("compensate") or {}, (*path, "compensate"))):
            config = call.get("config")
            if call.get("activity_type") == ACTIVITY and isinstance(config, dict):
                called = config.get("function")
                if isinstance(called, str) and ":" in called:
                    yield called, (*place, "config", "function")


def _fault(called: str, paths: Collection[str], read: Read) -> tuple[str, str] | None:
    """A message and a hint, None if there is nothing to say."""
    module, _, name = called.partition(":")
    tops = sorted({path.partition("/")[0].removesuffix(".py") for path in paths if path.endswith(".py")})
    if not has_module(paths, module):
        hint = closest(module.partition(".")[0], tops)
        if module.partition(".")[0] in tops or hint:
            return f"there is no module `{shown(module)}` in `functions/`", hint
        return None
    names = _names(read(_file_of(module, paths)))
    if names is None or name in names:
        return None
    return f"module `{shown(module)}` has no function `{shown(name)}`", closest(name, sorted(names))


def _file_of(module: str, paths: Collection[str]) -> str:
    # As Python does, a package goes before a module of the same name.
    path = module.replace(".", "/")
    package = f"{path}/__init__.py"
    return package if package in paths else f"{path}.py"


def _names(source: bytes) -> frozenset[str] | None:
    """The names that a module has once it is imported, None if syntax alone does not tell."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the attempt's own error says it better
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any(each.name == "*" for each in node.names):
                return None
            found.update((each.asname or each.name).partition(".")[0] for each in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DYNAMIC:
            return None
    return None if "__getattr__" in found else frozenset(found)


_DYNAMIC = frozenset({"globals", "exec", "setattr", "vars", "locals"})
