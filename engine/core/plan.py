"""The immutable index of a compiled definition: blocks of tasks, positions instead of ids, values ready to render.

Built once per definition and process; a run keeps nothing of it in its state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from engine.core.block import Block
from engine.core.contracts import Json
from engine.core.plan_reading import HUMAN_APPROVAL, Reader, outside_reads
from engine.core.task_plan import JudgedExpression, Kind, Lookup, TaskPlan, Value
from engine.dsl.digests import task_digest
from engine.dsl.templates import Renderer

__all__ = [
    "FINALLY",
    "HUMAN_APPROVAL",
    "ON_FAILURE",
    "PHASES",
    "TASKS",
    "Block",
    "JudgedExpression",
    "Kind",
    "Lookup",
    "Plan",
    "TaskPlan",
    "Value",
]

FORMATS: Final = (1, 2)

TASKS: Final = 0
ON_FAILURE: Final = 1
FINALLY: Final = 2
PHASES: Final = ("tasks", "on_failure", "finally")


class Plan:
    """A compiled definition, indexed. Raises ValueError for a format that this engine does not know.

    `blocks` are the three phases; `tasks` all that stand in them, in their order.
    """

    def __init__(self, compiled: Mapping[str, Any]) -> None:
        if compiled["format"] not in FORMATS:
            raise ValueError(
                f"compiled form {compiled['format']} is newer than this engine (it knows {FORMATS[-1]})"
            )
        self.name: str = compiled["name"]
        self.exprs: list[Json] = compiled["exprs"]
        self.renderer = Renderer(self.exprs)
        reader = Reader(self.exprs, self.renderer)
        self.title = Value(compiled["title"], self.renderer)
        self.env: dict[str, Json] = compiled["env"] or {}
        self.input_defaults = _input_defaults(compiled["inputs"])
        self.timeout: float | None = compiled["timeout"]
        self.cleanup_timeout: float | None = compiled["cleanup_timeout"]
        self.max_concurrency: int | None = compiled["max_concurrency"]
        self.on_task_failure: str = compiled["on_task_failure"]
        self.outputs = None if compiled["outputs"] is None else Value(compiled["outputs"], self.renderer)
        self.slot = reader.slot(compiled.get("concurrency"))
        self.blocks: list[Block] = []
        self.tasks: list[TaskPlan] = []
        self.positions: dict[str, int] = {}
        for phase, key in enumerate(PHASES):
            base = len(self.tasks)
            block = Block("", phase, base, reader.tasks(compiled[key], phase, ""))
            self.blocks.append(block)
            self.tasks += block.tasks
            self.positions |= {task.id: base + task.position for task in block.tasks}
        self.signals = frozenset(reader.signals)
        self.slice_block = lru_cache(maxsize=16)(self._slice_block)
        self.reads_of = lru_cache(maxsize=None)(self._reads_of)
        self.digest_of = lru_cache(maxsize=None)(self._digest_of)

    def task_at(self, path: str) -> TaskPlan:
        """The task of a static path. Raises KeyError."""
        first, *rest = path.split(".")
        task = self.tasks[self.positions[first]]
        for name in rest:
            if task.body is None:
                raise KeyError(path)
            task = task.body.tasks[task.body.positions[name]]
        return task

    def _reads_of(self, path: str) -> list[str]:
        """What a composite reads from outside of it."""
        return outside_reads(self.task_at(path).source, self.exprs)

    def _slice_block(self, path: str) -> Block:
        """A block of one task, the map of that static path: what a slice of it runs."""
        task = self.task_at(path)
        alone = replace(task, position=0, predecessors=(), successors=(), when=None)
        return Block(path.rpartition(".")[0], task.phase, 0, [alone])

    def _digest_of(self, path: str) -> str:
        """The digest of a task's meaning, by its static path."""
        return task_digest(self.task_at(path).source, self.exprs)


def _input_defaults(schema: Json) -> dict[str, Json]:
    properties = (schema or {}).get("properties") or {}
    return {
        name: prop["default"]
        for name, prop in properties.items()
        if isinstance(prop, dict) and "default" in prop
    }
