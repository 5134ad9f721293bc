"""Whether the functions that a definition calls are there: modules are read as syntax, nothing is imported.

A module stands in `functions/`, or it belongs to an installed package that the operator allows.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.dsl import codes, loader
from engine.dsl.bundle import has_module
from engine.dsl.loader import Path, shown
from engine.dsl.structure import closest
from engine.errors import Misconfigured, Problem

ACTIVITY = "python_function"
PACKAGES = "PINFLOW_FUNCTION_PACKAGES"
"""The setting that names the installed packages whose functions may be called."""
_MAX_MODULE = 1024 * 1024
"""Bytes of a module that is read; of a larger one nothing is said."""

Names = Callable[[str], "frozenset[str] | None"]
"""From a module's file to the names that it has once it is imported; None if syntax alone does not tell."""


@dataclass(frozen=True, slots=True)
class Functions:
    """The folder `functions/` as definitions see it: its files, and the names of the modules that they ask for.

    `packages` are installed ones that may be called as well.
    """

    paths: frozenset[str]
    names: Names
    packages: frozenset[str] = frozenset()

    def module_of(self, function: str) -> str | None:
        """The file of the module that `function` is in; None if it is not in the folder."""
        module = function.partition(":")[0]
        if not has_module(self.paths, module):
            return None
        # As Python does, a package goes before a module of the same name.
        path = module.replace(".", "/")
        package = f"{path}/__init__.py"
        return package if package in self.paths else f"{path}.py"

    def fault(self, function: str) -> tuple[str, str] | None:
        """What is wrong with a call of `function`: a message and a hint, None if there is nothing to say."""
        module, _, name = function.partition(":")
        file = self.module_of(function)
        if file is None:
            top = module.partition(".")[0]
            if top in self.packages:
                return None
            hint = closest(top, self._tops()) or f"{PACKAGES} names installed packages that may be called"
            return f"there is no module `{shown(module)}` in `functions/`", hint
        names = self.names(file)
        if names is None or name in names:
            return None
        return f"module `{shown(module)}` has no function `{shown(name)}`", closest(name, sorted(names))

    def _tops(self) -> list[str]:
        return sorted(
            {each.partition("/")[0].removesuffix(".py") for each in self.paths if each.endswith(".py")}
        )


def check_functions(
    compiled: Mapping[str, Any], text: bytes, file: str, functions: Functions
) -> list[Problem]:
    """The problems of a definition's calls."""
    faults = [
        (fault, path) for called, path in _called(compiled) if (fault := functions.fault(called)) is not None
    ]
    document = loader.load(text, file) if faults else None
    if not isinstance(document, loader.Document):
        return []
    return [document.problem(codes.FUNCTION, message, path, hint=hint) for (message, hint), path in faults]


def functions_called(compiled: Mapping[str, Any]) -> list[str]:
    """The functions that a definition calls, each once, at any depth and to undo."""
    return list(dict.fromkeys(called for called, _ in _called(compiled)))


def names_of(source: bytes) -> frozenset[str] | None:
    """The names that a module has once it is imported, None if syntax alone does not tell."""
    if len(source) > _MAX_MODULE:
        return None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the attempt's own error says it better
    return _names(tree)


def allowed_packages(environment: Mapping[str, str]) -> frozenset[str]:
    """The packages of the setting, for those who read no other. Raises `Misconfigured` if it is no list of names."""
    try:
        found = json.loads(environment.get(PACKAGES) or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Misconfigured(f"{PACKAGES} is no list of names, as JSON", hint='such as ["acme"]')
    return frozenset(found)


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


def _names(tree: ast.Module) -> frozenset[str] | None:
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
