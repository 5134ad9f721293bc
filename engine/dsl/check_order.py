"""Ids and order: who is called what in which scope, who waits for whom, and what can never run."""

from __future__ import annotations

from typing import Any

from engine.dsl import codes, words
from engine.dsl.faults import Faults, name_hint
from engine.dsl.loader import Path, shown
from engine.dsl.outline import Outline, OutlineTask, Scope
from engine.dsl.structure import closest


def check_ids(outline: Outline, faults: Faults) -> None:
    """An id is unique in its list and in those around it; the lists of the workflow count as one."""
    first: dict[tuple[Scope | None, str], OutlineTask] = {}
    for task in outline.tasks:
        path = (*task.path, "id")
        if task.id in words.RESERVED_IDS:
            faults.report(codes.NAME, f"`{task.id}` cannot be an id", path, hint=name_hint(task.id))
        own = task.scope if task.scope.owner else None
        twin = first.setdefault((own, task.id), task)
        hint = "ids are unique over `tasks`, `on_failure` and `finally`"
        if twin is task and own is not None:
            twin, hint = (
                _shadowed(task, outline) or task,
                "an id may not stand again inside of a task: one name, one task",
            )
        elif own is not None:
            hint = "ids are unique in their list"
        if twin is not task:
            line, _ = faults.document.at_value((*twin.path, "id"))
            faults.report(
                codes.DUPLICATE_ID, f"a task `{task.id}` stands already in line {line}", path, hint=hint
            )


def _shadowed(task: OutlineTask, outline: Outline) -> OutlineTask | None:
    assert task.scope.owner is not None
    return task.scope.owner.scope.find(task.id) or outline.by_id.get(task.id)


def check_order(scope: Scope, outline: Outline, faults: Faults) -> None:
    """Dependencies that lead nowhere, cycles, and tasks that can never run."""
    broken = _unusable_ids(scope, faults)
    for task in scope.tasks:
        listed = task.data.get("depends_on", [])
        for index, name in enumerate(listed):
            if isinstance(name, str) and name not in scope.positions and name not in broken:
                _unknown_dependency(task, name, (*task.path, "depends_on", index), outline, faults)
        if task.data.get("run_on") == "failure" and not listed:
            faults.report(
                codes.UNREACHABLE, f"task `{task.id}` can never run: it waits for a failure of nothing",
                (*task.path, "run_on"), hint="say in `depends_on` whose failure it is for",
            )  # fmt: skip
        _behind_the_end(task, listed, scope, faults)
    for cycle in scope.order.cycles:
        ids = [scope.tasks[position].id for position in cycle]
        # A -> B reads "A depends on B", so the cycle is shown in the direction of depends_on.
        trail = " -> ".join([*ids, ids[0]])
        task = scope.tasks[cycle[0]]
        message = (
            f"task `{ids[0]}` depends on itself"
            if len(ids) == 1
            else f"tasks depend on each other: {shown(trail, 300)}"
        )
        faults.report(codes.CYCLE, message, (*task.path, "depends_on"), key=True)


def _behind_the_end(task: OutlineTask, listed: Any, scope: Scope, faults: Faults) -> None:
    """Behind an `end` without a condition nothing comes but what runs if the `end` was never reached."""
    if task.data.get("run_on", "success") not in ("success", "any_success"):
        return
    for index, name in enumerate(listed):
        before = (
            scope.tasks[scope.positions[name]] if isinstance(name, str) and name in scope.positions else None
        )
        if before is None or before.kind != "end" or before.data.get("when", True) is not True:
            continue
        if task.data.get("run_on", "success") == "success" or len(listed) == 1:
            faults.report(
                codes.UNREACHABLE, f"task `{task.id}` can never run: `{name}` ends the run before",
                (*task.path, "depends_on", index), hint=f"give `{name}` a `when`",
            )  # fmt: skip


def _unusable_ids(scope: Scope, faults: Faults) -> set[str]:
    """Ids that are told to be wrong already: what depends on them is not told again."""
    listed = faults.written(scope.path)
    found = set()
    for task in listed if isinstance(listed, list) else ():
        if isinstance(task, dict) and isinstance(task.get("id"), str):
            found.add(task["id"])
    return found


def _unknown_dependency(task: OutlineTask, name: str, path: Path, outline: Outline, faults: Faults) -> None:
    scope = task.scope
    if "${{" in name:
        faults.report(
            codes.EXPRESSION_HERE, "an expression may not stand here", path, hint="write the id out"
        )
        return
    if scope.owner is not None and scope.owner.scope.find(name) is not None:
        faults.report(
            codes.OUT_OF_SCOPE, f"task `{name}` stands around `{scope.owner.id}`, and this one inside of it", path,
            hint=_wait_outside(scope, name),
        )  # fmt: skip
    elif scope.owner is None and name in outline.by_id:
        other = outline.by_id[name].path[0]
        faults.report(
            codes.OUT_OF_SCOPE, f"task `{name}` stands in `{other}`, and this one in `{scope.key}`", path,
            hint="`depends_on` stays in its own list; the other list has ended before, or never starts",
        )  # fmt: skip
    elif (inside := _inside_of(name, outline)) is not None:
        hint = "`depends_on` stays in its own list"
        if inside in scope.positions:
            hint = "it starts with this one" if inside == task.id else f"wait for `{inside}`"
        faults.report(
            codes.OUT_OF_SCOPE, f"task `{name}` stands inside of `{inside}`, and this one outside", path, hint=hint
        )  # fmt: skip
    else:
        hint = closest(name, list(scope.positions))
        faults.report(codes.UNKNOWN_TASK, f"there is no task `{shown(name)}`", path, hint=hint)


def _wait_outside(scope: Scope, name: str) -> str:
    for each in scope.around():
        if each.owner is not None and name in each.owner.scope.positions:
            if each.owner.id == name:
                return "a task inside of another starts with it; it waits for nobody outside"
            return f"add `{name}` to `depends_on` of `{each.owner.id}`"
    return "`depends_on` stays in its own list"


def _inside_of(name: str, outline: Outline) -> str | None:
    return next((body.owner.id for body in outline.bodies if body.owner and name in body.positions), None)
