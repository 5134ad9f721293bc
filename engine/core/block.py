"""A DAG of the definition: a phase of the run, or the body of a map, a loop or a group."""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.task_plan import TaskPlan, Value


class Block:
    """A DAG of the definition: a phase of the run, or the body of a map, a loop or a group.

    `base` is how many tasks stand in the blocks before it on its level, so that a run's own tasks have an order over
    its phases. `undoable`: some task in it, at any depth, has a compensation. `last` are those that nobody waits for.
    `undo_reads` are the ids of its tasks whose outputs a compensation may want.
    """

    def __init__(self, path: str, phase: int, base: int, tasks: Sequence[TaskPlan]) -> None:
        self.path = path
        self.phase = phase
        self.base = base
        self.tasks = list(tasks)
        self.positions = {task.id: task.position for task in tasks}
        self.undoable: bool = any(task.undo or (task.body and task.body.undoable) for task in tasks)
        self.last = [task for task in tasks if not task.successors]
        self.free = [task for task in tasks if not task.predecessors]
        self.undo_reads = frozenset(_tasks_read_by_undo(tasks))

    def __len__(self) -> int:
        return len(self.tasks)


def _tasks_read_by_undo(tasks: Sequence[TaskPlan]) -> list[str]:
    """Of a block's tasks, those whose outputs its compensations may ask for (more than that at worst)."""
    refs: list[str] = []
    for task in tasks:
        refs += _undo_refs(task)
    return [ref.split(".")[1] for ref in refs if ref.startswith("tasks.")]


def _undo_refs(task: TaskPlan) -> list[str]:
    refs: list[str] = []
    if task.undo is not None:
        refs += task.undo.config.refs
        refs += [
            ref
            for text in task.undo.secrets
            for part in text.parts
            if isinstance(part, Value)
            for ref in part.refs
        ]
        for judged in (task.undo.success_when, task.undo.retry_when):
            refs += judged.refs if judged else ()
    if task.body is not None:
        for inner in task.body.tasks:
            refs += _undo_refs(inner)
    return refs
