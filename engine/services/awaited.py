"""The signals that a definition's tasks wait for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.core.contracts import Json

_PHASES = ("tasks", "on_failure", "finally")
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class Awaited:
    """A task that waits for a signal. `path` is its static path: its address without the indices."""

    path: str
    name: str
    schema: Json


def awaited_in(compiled: Json) -> Iterator[Awaited]:
    """Every task of type signal, at any depth, in the order of the file."""
    for path, task in walk(compiled):
        if task["type"] == "signal":
            yield Awaited(path, task["signal"], task.get("schema"))


def walk(compiled: Json) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every task with its static path, outer ones first."""
    for phase in _PHASES:
        for task in compiled[phase]:
            yield from _inside(task, "")


def static_path(address: str) -> str:
    """An address without the indices of items and iterations."""
    return _INDEX.sub("", address)


def _inside(task: dict[str, Any], scope: str) -> Iterator[tuple[str, dict[str, Any]]]:
    path = f"{scope}{task['id']}"
    yield path, task
    for inner in task.get("tasks") or ():
        yield from _inside(inner, f"{path}.")
