"""What compiled tasks are known by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.dsl.compiler import canonical, digest

_LABELS = frozenset({"name", "description"})
"""Keys of a task that people read and nothing else."""
_UNREAD = frozenset({"weight"})
"""Keys that say how a task is run, and follow from the others."""


def task_digest(task: Mapping[str, Any], exprs: Sequence[Mapping[str, Any]]) -> str:
    """The sha256 of what a compiled task means, those inside of it included: the same wherever it stands.

    Expressions count by their source text and not by their place in the table `exprs`; labels, and the order in
    which `depends_on` is written, do not count.
    """
    return digest(canonical(_meaning(task, exprs)))


def _meaning(task: Mapping[str, Any], exprs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in task.items():
        if key in _LABELS or key in _UNREAD:
            continue
        if key == "tasks":
            made[key] = [_meaning(inner, exprs) for inner in value]
        elif key in ("default_outputs", "schema"):
            made[key] = value
        elif key == "depends_on":
            made[key] = sorted(value)
        else:
            made[key] = _with_sources(value, exprs)
    return made


def _with_sources(value: Any, exprs: Sequence[Mapping[str, Any]]) -> Any:
    """The value with each expression's text in the place of its number."""
    if isinstance(value, list):
        return [_with_sources(item, exprs) for item in value]
    if not isinstance(value, dict):
        return value
    if "$expr" in value:
        return {"$expr": exprs[value["$expr"]]["src"]}
    if "$text" in value:
        parts = [part if isinstance(part, str) else {"$expr": exprs[part]["src"]} for part in value["$text"]]
        return {"$text": parts}
    if "$lit" in value:
        return {"$lit": {key: _with_sources(item, exprs) for key, item in value["$lit"].items()}}
    return {key: _with_sources(item, exprs) for key, item in value.items()}
