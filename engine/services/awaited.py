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
    for phase in _PHASES:
        for task in compiled[phase]:
            yield from _inside(task, "")


def static_path(address: str) -> str:
    """An address without the indices of items and iterations."""
    return _INDEX.sub("", address)


def _inside(task: dict[str, Any], scope: str) -> Iterator[Awaited]:
    path = f"{scope}{task['id']}"
    if task["type"] == "signal":
        yield Awaited(path, task["signal"], task.get("schema"))
    for inner in task.get("tasks") or ():
        yield from _inside(inner, f"{path}.")
