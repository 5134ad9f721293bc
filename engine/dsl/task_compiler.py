"""From the tasks of a definition to their compiled form, kind by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from engine.dsl import bounds, codes, words
from engine.dsl.durations import DurationError, parse_duration
from engine.dsl.environment import Shape
from engine.dsl.expression_table import ExpressionTable, Report, V
from engine.dsl.loader import Path
from engine.dsl.naming import RUN, RUN_AT_END, TRIGGER, Place
from engine.dsl.outline import Outline, OutlineTask
from engine.dsl.shapes import items_shape, state_shape

HUMAN_APPROVAL = "human_approval"
BODY = frozenset({"inputs", "env", "tasks"})

Compiled = dict[str, Any]


class TaskCompiler:
    """Compiles the tasks of one definition. Faults go to `report`."""

    def __init__(
        self,
        definition: Mapping[str, Any],
        outline: Outline,
        table: ExpressionTable,
        report: Report,
    ) -> None:
        self._definition = definition
        self._outline = outline
        self._table = table
        self._report = report
        self.calls: set[tuple[str, str]] = set()
        """Name and ref of every workflow that a task may start."""
        raw = definition.get("defaults") or {}
        self._default_timeout = self.seconds(raw, "timeout", ("defaults",))
        self._default_retry = self._retry_times(raw.get("retry"), ("defaults", "retry"))

    def task(self, task: OutlineTask, outer: Place | None = None) -> Compiled:
        """The compiled form of one task; `outer` is the place of the task around it."""
        data, path = task.data, task.path
        place = self._place(task, outer)
        when = self._table.condition(data, "when", path, place)
        place = place.with_certain(self._table.statuses_in(when))
        kind = task.kind
        compiled: Compiled = {
            "id": task.id,
            "name": data.get("name", ""),
            "type": kind,
            "activity_type": data.get("activity_type"),
            "depends_on": list(dict.fromkeys(data.get("depends_on", []))),
            "when": when,
            "run_on": data.get("run_on", "success"),
            "continue_on_failure": data.get("continue_on_failure", False),
            "config": {},
            "retry": None,
            "timeout": None,
            "total_timeout": None,
            "success_when": None,
            "execution": data.get("execution", "auto"),
            "task_queue": data.get("task_queue", ""),
            "outputs": None,
            "default_outputs": data.get("default_outputs"),
            "values": None,
            "duration": None,
            "until": None,
        }
        if kind in self._KINDS:  # another one is told already
            compiled.update(self._KINDS[kind](self, task, place))
        return compiled

    def check_default_retry_when(self) -> None:
        """`defaults.retry.when` is judged for each task that takes it; here if none does, so that a fault shows."""
        retry = (self._definition.get("defaults") or {}).get("retry")
        if isinstance(retry, dict) and not any(
            task.kind == "activity" and "retry" not in task.data for task in self._outline.tasks
        ):
            place = Place(BODY, RUN | TRIGGER | {"task.id", "task.attempt", "attempt", "error"})
            self._table.condition(retry, "when", ("defaults", "retry"), place)

    # --- one kind after the other

    def _activity(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data, task.path
        is_approval = data.get("activity_type") == HUMAN_APPROVAL
        config, at = data.get("config", {}), (*path, "config")
        made = {"config": self._table.value(config, at, place)} if is_approval else self._config(config, at, place)  # fmt: skip
        after = place.with_names("result", "task.attempt")
        made["outputs"] = self._table.value(data.get("outputs"), (*path, "outputs"), after, task.info)
        if is_approval:
            return made
        made |= self._times(data, path)
        made["success_when"] = self._table.condition(
            data, "success_when", path, after.with_names("attempt"), task.info
        )
        made["retry"] = self._retry(data, path, place)
        made |= self._extras(task, place)
        return made

    def _set(self, task: OutlineTask, place: Place) -> Compiled:
        return {"values": self._table.value(task.data.get("values", {}), (*task.path, "values"), place)}

    def _wait(self, task: OutlineTask, place: Place) -> Compiled:
        return {
            "duration": self._pause(task, "duration", place),
            "until": self._table.value(task.data.get("until"), (*task.path, "until"), place),
        }

    def _map(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data, task.path
        items = self._items(task, place)
        name = data.get("as", "item")
        found = self._table.checked(items)
        shapes: dict[str, Shape] = {
            name: items_shape(data.get("items"), found.shape if found else None),
            f"{name}_index": "dyn",
        }
        at_end, tasks = self._body(task, place, shapes)
        made: Compiled = {
            "items": items,
            "as": name,
            "tasks": tasks,
            "timeout": self.seconds(data, "timeout", path),
        }
        if data.get("results") is not None:
            made["results"] = self._table.value(data["results"], (*path, "results"), at_end)
        if "max_concurrency" in data:
            made["max_concurrency"] = data["max_concurrency"]
        if "tolerated_failures" in data:
            made["tolerated_failures"] = _tolerated(data["tolerated_failures"])
        made["reads"] = self._reads({"id": task.id, "type": "map", **made, "items": None})
        made["weight"] = bounds.weight(task.body.tasks if task.body else ())
        if bounds.is_whole(task):
            made["whole"] = True
        return made

    def _items(self, task: OutlineTask, place: Place) -> V:
        path = (*task.path, "items")
        items = self._table.value(task.data.get("items"), path, place)
        checked = self._table.checked(items)
        if isinstance(items, list):
            return items
        if checked is not None and not checked.may_be_list:
            hint = "`m.map(k, {'key': k, 'value': m[k]})` makes a list of the mapping `m`"
            self._report(
                codes.NOT_A_LIST, f"`items` must be a list, and this is {checked.result_type}", path,
                hint=hint if checked.result_type == "map" else "`[x]` makes a list of one",
            )  # fmt: skip
        elif items is not None and not (isinstance(items, dict) and "$expr" in items):
            self._report(
                codes.NOT_A_LIST, "`items` must be a list or one expression, with no text around it", path
            )
        return items

    def _loop(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data, task.path
        state = self._table.value(data.get("state", {}), (*path, "state"), place)
        shapes: dict[str, Shape] = {"state": state_shape(data), "iteration": "dyn"}
        at_end, tasks = self._body(task, place, shapes)
        made: Compiled = {
            "state": state,
            "tasks": tasks,
            "next": self._table.value(data.get("next", {}), (*path, "next"), at_end),
            "until": self._table.condition(data, "until", path, at_end),
            "max_iterations": data.get("max_iterations"),
            "timeout": self.seconds(data, "timeout", path),
            "outputs": self._table.value(
                data.get("outputs"), (*path, "outputs"), at_end.with_names("result")
            ),
        }
        if data.get("interval") is not None:
            made["interval"] = self._pause(task, "interval", at_end)
        return made

    def _group(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data, task.path
        at_end, tasks = self._body(task, place, {})
        made: Compiled = {
            "tasks": tasks,
            "timeout": self.seconds(data, "timeout", path),
            "outputs": self._table.value(
                data.get("outputs"), (*path, "outputs"), at_end.with_names("result")
            ),
        }
        if "max_concurrency" in data:
            made["max_concurrency"] = data["max_concurrency"]
        made |= self._extras(task, place)
        return made

    def _workflow(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data, task.path
        ref, named = data.get("ref", "same"), data.get("workflow")
        made: Compiled = {
            "workflow": self._table.value(named, (*path, "workflow"), place),
            "ref": ref,
            "inputs": self._table.value(data.get("inputs", {}), (*path, "inputs"), place),
            "timeout": self.seconds(data, "timeout", path),
            "outputs": self._table.value(data.get("outputs"), (*path, "outputs"), place.with_names("result")),
        }
        self.calls.update((name, ref) for name in called(data))
        if data.get("one_of"):
            made["one_of"] = list(dict.fromkeys(name for name in data["one_of"] if name))
        if "retry" in data:
            made["retry"] = self._retry(data, path, place)
        made |= self._extras(task, place)
        return made

    def _signal(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data, task.path
        made: Compiled = {
            "signal": data.get("signal"),
            "timeout": self.seconds(data, "timeout", path),
            "outputs": self._table.value(data.get("outputs"), (*path, "outputs"), place.with_names("result")),
        }
        if data.get("correlation") is not None:
            made["correlation"] = self._table.value(data["correlation"], (*path, "correlation"), place)
        if data.get("schema") is not None:
            made["schema"] = data["schema"]
        return made

    def _end(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data, task.path
        made: Compiled = {
            "status": data.get("status", "COMPLETED"),
            "outputs": self._table.value(data.get("outputs"), (*path, "outputs"), place),
        }
        if data.get("message") is not None:
            made["message"] = self._table.value(data["message"], (*path, "message"), place)
        return made

    # Of the class: bound methods would make a ring with their object, and keep the whole document until a collection.
    _KINDS: ClassVar[dict[str, Callable[[TaskCompiler, OutlineTask, Place], Compiled]]] = {
        "activity": _activity, "wait": _wait, "set": _set, "map": _map, "loop": _loop,
        "group": _group, "workflow": _workflow, "signal": _signal, "end": _end,
    }  # fmt: skip

    # --- what several kinds have

    def _body(
        self, task: OutlineTask, place: Place, names: Mapping[str, Shape]
    ) -> tuple[Place, list[Compiled]]:
        """The tasks inside, and the place that comes after the last of them."""
        body = task.body
        assert body is not None
        self._table.naming.enter(body, names)
        inside = Place(place.roots, place.names | names.keys(), place.visible, place.certain, body, place.why)
        tasks = [self.task(each, inside) for each in body.tasks]
        at_end = Place(
            inside.roots, inside.names, body.all_at_end(place.visible), body.certain_at_end(place.certain), body
        )  # fmt: skip
        return at_end, tasks

    def _reads(self, made: Compiled) -> list[str]:
        """The names that the body of a map reads from outside of it."""
        found: set[str] = set()
        for rows, inside in _rows_inside([made], _OF_AN_ATTEMPT):
            refs = {ref for row in rows if row >= 0 for ref in self._table.rows[row]["refs"]}
            # `tasks.a.outputs` is known where `tasks.a` is.
            found |= {ref for ref in refs if inside.isdisjoint((ref, ".".join(ref.split(".")[:2])))}
        return sorted(found)

    def _extras(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data, task.path
        made: Compiled = {}
        if isinstance(data.get("cache"), dict):
            made["cache"] = {
                "key": self._table.value(data["cache"].get("key"), (*path, "cache", "key"), place),
                "max_age": self.seconds(data["cache"], "max_age", (*path, "cache")),
            }
        if isinstance(data.get("concurrency"), dict):
            made["concurrency"] = self.concurrency(data["concurrency"], (*path, "concurrency"), place)
        if isinstance(data.get("compensate"), dict):
            made["compensate"] = self._compensate(task, place)
        return made

    def concurrency(self, data: Mapping[str, Any], path: Path, place: Place) -> Compiled:
        """A concurrency group, of a task or of the run."""
        return {
            "group": self._table.value(data.get("group"), (*path, "group"), place),
            "limit": data.get("limit", 1),
        }

    def _compensate(self, task: OutlineTask, place: Place) -> Compiled:
        data, path = task.data["compensate"], (*task.path, "compensate")
        on = data.get("on", "completed")
        after = self._afterwards(task, place, certain=on == "completed")
        return {
            "activity_type": data.get("activity_type"),
            **self._config(data.get("config", {}), (*path, "config"), after),
            "retry": self._retry(data, path, after),
            **self._times(data, path),
            "on": on,
            "task_queue": data.get("task_queue", ""),
            "execution": data.get("execution", "auto"),
        }

    def _afterwards(self, task: OutlineTask, place: Place, *, certain: bool) -> Place:
        """The place of a task's undoing: it sees what the task saw, the task itself, and all of the workflow's list."""
        more = frozenset(self._outline.scopes[0].positions) | {task.id}
        return Place(
            place.roots, place.names, place.visible | more,
            place.certain | frozenset({task.id} if certain else ()), place.scope, place.why,
        )  # fmt: skip

    def _config(self, config: Any, path: Path, place: Place) -> Compiled:
        """`config`, and `secrets` if it holds any."""
        # Few definitions have secrets: the others pay for nothing but this look.
        found: list[dict[str, Any]] = []
        if self._definition.get("secrets") or "secrets" in str(config):
            from engine.dsl.secrets import take_out

            declared = [name for name in self._definition.get("secrets") or () if isinstance(name, str)]
            config, found = take_out(
                config, path, declared,
                lambda src, at, offset: self._table.expression(src, at, offset, place, None), self._report,
            )  # fmt: skip
        made: Compiled = {"config": self._table.value(config, path, place)}
        return {**made, "secrets": found} if found else made

    def _times(self, data: Mapping[str, Any], path: Path) -> Compiled:
        return {
            "timeout": self.seconds(data, "timeout", path) or self._default_timeout or words.DEFAULT_TIMEOUT,
            "total_timeout": self.seconds(data, "total_timeout", path),
        }

    def _retry(self, data: Mapping[str, Any], path: Path, place: Place) -> Compiled | None:
        own = self._retry_times(data.get("retry"), (*path, "retry"))
        if own:
            chosen, source, at = own, data["retry"], (*path, "retry")
        elif self._default_retry is not None:
            chosen, source, at = self._default_retry, self._definition["defaults"]["retry"], ("defaults", "retry")  # fmt: skip
        else:
            return None
        judged = place.with_names("attempt", "error", "task.attempt")
        return {**chosen, "when": self._table.condition(source, "when", at, judged)}

    def _retry_times(self, retry: Any, path: Path) -> dict[str, Any] | None:
        if not isinstance(retry, dict):
            return None
        return {
            "max_attempts": retry.get("max_attempts", words.DEFAULT_MAX_ATTEMPTS),
            "initial_interval": self.seconds(retry, "initial_interval", path)
            or words.DEFAULT_INITIAL_INTERVAL,
            "backoff_coefficient": float(retry.get("backoff_coefficient", words.DEFAULT_BACKOFF)),
            "max_interval": self.seconds(retry, "max_interval", path) or words.DEFAULT_MAX_INTERVAL,
            "non_retryable_errors": retry.get("non_retryable_errors", []),
        }

    def seconds(self, holder: Mapping[str, Any], key: str, path: Path) -> float | None:
        """A literal duration; None if there is none."""
        text = holder.get(key)
        if text is None:
            return None
        try:
            return parse_duration(text)
        except DurationError as error:
            self._report(codes.DURATION, f"`{text}` {error}", (*path, key))
            return None

    def _pause(self, task: OutlineTask, key: str, place: Place) -> V:
        """A literal duration becomes seconds; an expression gives its own at run time."""
        text = task.data.get(key)
        if isinstance(text, str) and "${{" not in text:
            return self.seconds(task.data, key, task.path)
        return self._table.value(text, (*task.path, key), place)

    def _place(self, task: OutlineTask, outer: Place | None) -> Place:
        run = RUN if task.scope.key == "tasks" else RUN_AT_END
        return Place(
            BODY,
            (outer.names if outer else run | TRIGGER) | {"task.id"},
            visible=self._outline.visible_to(task, outer.visible if outer else None),
            certain=self._outline.certain_for(task, outer.certain if outer else None),
            scope=outer.scope if outer else None,
        )


def called(data: Mapping[str, Any]) -> list[str]:
    """The workflows that a `workflow` task may start."""
    if isinstance(data.get("one_of"), list) and data["one_of"]:
        return [name for name in data["one_of"] if isinstance(name, str)]
    named = data.get("workflow")
    return [named] if isinstance(named, str) and "${{" not in named else []


def _tolerated(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        percent = float(value.removesuffix("%"))
        return {"percent": int(percent) if percent.is_integer() else percent}
    return {"count": value}


_NESTED = ("tasks", "results", "next", "until", "interval", "outputs")
"""Keys of a composite whose expressions belong to its body."""
_CONSTANT = frozenset({"default_outputs", "schema"})
"""Keys of a task in which nothing is an expression, whatever it looks like."""
_OF_AN_ATTEMPT = frozenset({"task.id", "task.attempt", "result", "attempt", "error"})


def _rows_inside(tasks: list[Compiled], inside: frozenset[str]) -> Iterator[tuple[list[int], frozenset[str]]]:
    """The rows of the expressions in `tasks`, with the names that the bodies they stand in give them."""
    for task in tasks:
        own = {key: value for key, value in task.items() if key not in _CONSTANT}
        if "tasks" not in task:
            yield _expressions(own), inside
            continue
        body = inside | {f"tasks.{each['id']}" for each in task["tasks"]}
        if task["type"] == "map":
            body |= {task["as"], f"{task['as']}_index"}
        elif task["type"] == "loop":
            body |= {"state", "iteration"}
        yield _expressions({key: value for key, value in own.items() if key not in _NESTED}), inside
        yield _expressions({key: task[key] for key in _NESTED[1:] if key in task}), body
        yield from _rows_inside(task["tasks"], body)


def _expressions(value: V) -> list[int]:
    from engine.dsl.templates import expressions_in

    return expressions_in(value)
