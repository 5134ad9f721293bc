"""From a definition to the compiled form: defaults applied, durations in seconds, expressions compiled.

The compiled form is all that a worker ever loads; its canonical bytes are what a run is pinned to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from engine.dsl import codes, words
from engine.dsl.activity_types import ActivityTypeInfo, ActivityTypes
from engine.dsl.durations import DurationError, parse_duration
from engine.dsl.loader import Path
from engine.dsl.naming import RUN, RUN_AT_END, Naming, Place, naming_of
from engine.dsl.outline import Outline, OutlineTask
from engine.errors import InvalidDefinition, Problem

FORMAT = 1
DSL = "1"
HUMAN_APPROVAL = "human_approval"

V: TypeAlias = Any
Report: TypeAlias = Callable[..., None]
"""`report(code, message, path, hint=…, offset=…)`; `offset` is a character of the text at `path`."""

_HEAD = Place(frozenset({"inputs", "env"}), why="the title and labels of a run know only `inputs` and `env`")
_BODY = frozenset({"inputs", "env", "tasks"})


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no blanks, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(content: bytes) -> str:
    """What content is known by: its sha256, in lower-case hex."""
    import hashlib  # not needed to validate

    return hashlib.sha256(content).hexdigest()


def compile_definition(definition: dict[str, Any], types: ActivityTypes | None = None) -> dict[str, Any]:
    """The compiled form of a definition that has been checked. Raises InvalidDefinition if it has faults."""
    problems: list[Problem] = []

    def report(code: str, message: str, path: Path, *, hint: str = "", offset: int | None = None) -> None:
        problems.append(Problem(code, message, path=".".join(map(str, path)), hint=hint))

    outline = Outline(definition, types or ActivityTypes.default())
    try:
        compiled = Compiler(definition, outline, report).compile()
    except TooManyExpressions:
        compiled = {}
    if problems:
        raise InvalidDefinition(problems)
    return compiled


class TooManyExpressions(Exception):
    """The definition is refused, and the rest of it is not looked at."""


class Compiler:
    """One definition on its way. Faults go to `report`; the result is of use only if there were none."""

    def __init__(self, definition: Mapping[str, Any], outline: Outline, report: Report) -> None:
        self._definition = definition
        self._outline = outline
        self._report = report
        self._exprs: list[dict[str, Any]] = []
        self._known: dict[tuple[str, str], tuple[int, Any]] = {}
        self._naming: Naming | None = None

    def compile(self) -> dict[str, Any]:
        """The compiled form."""
        get = self._definition.get
        defaults = get("defaults") or {}
        result: dict[str, Any] = {
            "format": FORMAT,
            "dsl": DSL,
            "name": get("name", ""),
            "version": str(get("version", "")),
            "title": self._value(get("title"), ("title",), _HEAD),
            "description": get("description", ""),
            "labels": self._value(get("labels", {}), ("labels",), _HEAD),
            "inputs": _closed(get("inputs")),
            "env": get("env", {}),
            "timeout": self._seconds(self._definition, "timeout", ()),
            "cleanup_timeout": self._seconds(self._definition, "cleanup_timeout", ())
            or words.DEFAULT_CLEANUP_TIMEOUT,
            "max_concurrency": get("max_concurrency") or self._outline.needed_concurrency_limit(),
            "on_task_failure": get("on_task_failure", "finish"),
        }
        default_timeout = self._seconds(defaults, "timeout", ("defaults",))
        default_retry = self._retry_times(defaults.get("retry"), ("defaults", "retry"))
        for scope in self._outline.scopes:
            result[scope.key] = [self._task(task, default_timeout, default_retry) for task in scope.tasks]
        result["outputs"] = self._value(get("outputs"), ("outputs",), self._run_outputs())
        self._check_default_retry_when(defaults)
        result["exprs"] = self._exprs
        return result

    def _task(self, task: OutlineTask, timeout: float | None, retry: dict[str, Any] | None) -> dict[str, Any]:
        data, path = task.data, task.path
        place = self._place(task)
        when = self._condition(data, "when", path, place)
        place = place.with_certain(self._tested_in(when))
        kind = data.get("type", "activity")
        compiled: dict[str, Any] = {
            "id": task.id,
            "name": data.get("name", ""),
            "type": kind,
            "activity_type": data.get("activity_type"),
            "depends_on": list(dict.fromkeys(data.get("depends_on", []))),
            "when": when,
            "run_on": data.get("run_on", "success"),
            "continue_on_failure": data.get("continue_on_failure", False),
            "config": self._value(data.get("config", {}), (*path, "config"), place),
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
        if kind == "activity":
            self._activity(compiled, task, place, timeout, retry)
        elif kind == "set":
            compiled["values"] = self._value(data.get("values", {}), (*path, "values"), place)
        elif kind == "wait":
            compiled["duration"] = self._pause(data, path, place)
            compiled["until"] = self._value(data.get("until"), (*path, "until"), place)
        return compiled

    def _activity(
        self,
        compiled: dict[str, Any],
        task: OutlineTask,
        place: Place,
        timeout: float | None,
        retry: dict[str, Any] | None,
    ) -> None:
        data, path = task.data, task.path
        after = place.with_names("result", "task.attempt")
        compiled["outputs"] = self._value(data.get("outputs"), (*path, "outputs"), after, task.info)
        if data.get("activity_type") == HUMAN_APPROVAL:
            return
        compiled["timeout"] = self._seconds(data, "timeout", path) or timeout or words.DEFAULT_TIMEOUT
        compiled["total_timeout"] = self._seconds(data, "total_timeout", path)
        compiled["success_when"] = self._condition(
            data, "success_when", path, after.with_names("attempt"), task.info
        )
        own = self._retry_times(data.get("retry"), (*path, "retry"))
        source, at = (
            (data["retry"], (*path, "retry"))
            if own
            else ((self._definition.get("defaults") or {}).get("retry"), ("defaults", "retry"))
        )
        chosen = own or retry
        if chosen is not None:
            judged = place.with_names("attempt", "error", "task.attempt")
            compiled["retry"] = {**chosen, "when": self._condition(source, "when", at, judged)}

    def _retry_times(self, retry: Any, path: Path) -> dict[str, Any] | None:
        if not isinstance(retry, dict):
            return None
        return {
            "max_attempts": retry.get("max_attempts", words.DEFAULT_MAX_ATTEMPTS),
            "initial_interval": self._seconds(retry, "initial_interval", path)
            or words.DEFAULT_INITIAL_INTERVAL,
            "backoff_coefficient": float(retry.get("backoff_coefficient", words.DEFAULT_BACKOFF)),
            "max_interval": self._seconds(retry, "max_interval", path) or words.DEFAULT_MAX_INTERVAL,
            "non_retryable_errors": retry.get("non_retryable_errors", []),
        }

    def _check_default_retry_when(self, defaults: Mapping[str, Any]) -> None:
        """`defaults.retry.when` is judged for each task that takes it; here if none does, so that a fault shows."""
        retry = defaults.get("retry")
        if isinstance(retry, dict) and not any(
            task.data.get("type", "activity") == "activity" and "retry" not in task.data
            for task in self._outline.tasks
        ):
            place = Place(_BODY, RUN | {"task.id", "task.attempt", "attempt", "error"})
            self._condition(retry, "when", ("defaults", "retry"), place)

    # --- values

    def _seconds(self, holder: Mapping[str, Any], key: str, path: Path) -> float | None:
        text = holder.get(key)
        if text is None:
            return None
        try:
            return parse_duration(text)
        except DurationError as error:
            self._report(codes.DURATION, f"`{text}` {error}", (*path, key))
            return None

    def _pause(self, data: Mapping[str, Any], path: Path, place: Place) -> V:
        """A literal duration becomes seconds; an expression gives its own at run time."""
        text = data.get("duration")
        if isinstance(text, str) and "${{" not in text:
            return self._seconds(data, "duration", path)
        return self._value(text, (*path, "duration"), place)

    def _condition(
        self, holder: Any, key: str, path: Path, place: Place, info: ActivityTypeInfo | None = None
    ) -> V:
        value = holder.get(key) if isinstance(holder, dict) else None
        compiled = self._value(value, (*path, key), place, info)
        if isinstance(compiled, dict) and "$expr" in compiled:
            checked = self._checked(compiled["$expr"])
            if checked is not None and not checked.may_be_bool:
                self._report(
                    codes.NOT_BOOLEAN, f"`{key}` must be true or false, and this is {checked.result_type}", (*path, key),
                    hint="compare it with something",
                )  # fmt: skip
        elif compiled is not None and not isinstance(compiled, bool):
            self._report(
                codes.NOT_BOOLEAN, f"`{key}` must be one expression, with no text around it", (*path, key),
                hint='write the whole condition inside: "${{ a && b }}"',
            )  # fmt: skip
        return compiled

    def _value(self, value: Any, path: Path, place: Place, info: ActivityTypeInfo | None = None) -> V:
        """`value` with its expressions replaced by their places in the table."""
        if value is None or isinstance(value, bool) or (isinstance(value, str) and "${{" not in value):
            return value
        from engine.dsl.templates import Place as Spot
        from engine.dsl.templates import TemplateSyntaxError, compile_value

        def add(src: str, spot: Spot) -> int:
            return self._expression(src, spot.path, spot.offset, place, info)

        def fault(error: TemplateSyntaxError, at: Path) -> None:
            self._report(codes.EXPRESSION, error.message, at, hint=error.hint, offset=error.offset)

        return compile_value(value, add, path, fault)

    def _expression(
        self, src: str, path: Path, offset: int, place: Place, info: ActivityTypeInfo | None
    ) -> int:
        from engine.dsl.cel_values import ExpressionSyntaxError
        from engine.dsl.expressions import compile_expression

        if self._naming is None:
            self._naming = naming_of(
                self._definition, [t.data for t in self._outline.named], self._outline.types
            )
        key, environment = self._naming.beside(info)
        known = self._known.get((src, key))
        if known is None and len(self._known) >= words.MAX_EXPRESSIONS:
            self._report(
                codes.BOUNDS, f"more than {words.MAX_EXPRESSIONS} different expressions", path,
                hint="split the workflow", offset=offset,
            )  # fmt: skip
            raise TooManyExpressions
        if known is None:
            try:
                checked = compile_expression(src, environment)
            except ExpressionSyntaxError as error:
                self._report(
                    codes.EXPRESSION, error.message, path, hint=error.hint, offset=offset + error.offset
                )
                self._known[src, key] = known = (-1, None)
            else:
                self._known[src, key] = known = (len(self._exprs), checked)
                self._exprs.append(checked.entry())
        elif known[1] is None:
            # Told where it stood first.
            return known[0]
        if known[1] is not None:
            self._check_place(known[1], path, offset, place)
        return known[0]

    def _checked(self, index: int) -> Any:
        return (
            next((checked for at, checked in self._known.values() if at == index), None)
            if index >= 0
            else None
        )

    # --- who may read what

    def _check_place(self, checked: Any, path: Path, offset: int, place: Place) -> None:
        for ref in checked.refs:
            root, _, rest = ref.partition(".")
            if root == "tasks":
                self._check_task(rest.partition(".")[0], ref, checked.src, path, offset, place)
            elif root not in place.roots and ref not in place.names and not _inside(ref, place.names):
                self._report(
                    codes.NOT_IN_SCOPE, f"`{ref}` cannot be read here", path,
                    hint=place.why or _where(ref), offset=offset + max(checked.src.find(ref), 0),
                )  # fmt: skip
        if "tasks" in place.roots:
            for task in sorted(checked.unguarded):
                if task in place.visible and task not in place.certain and not self._has_default(task):
                    self._report(
                        codes.MAY_BE_MISSING, f"task `{task}` may not have completed, and then has no such output", path,
                        hint=f"read it with `.?`, ask `has(…)` or `tasks.{task}.status`, or give it `default_outputs`",
                        offset=offset + max(checked.src.find(f"tasks.{task}"), 0),
                    )  # fmt: skip

    def _check_task(self, task: str, ref: str, src: str, path: Path, offset: int, place: Place) -> None:
        at = offset + max(src.find(f"tasks.{task}"), 0)
        if "tasks" not in place.roots:
            self._report(codes.NOT_IN_SCOPE, f"`{ref}` cannot be read here", path, hint=place.why, offset=at)
        elif task not in place.visible:
            self._report(
                codes.NOT_UPSTREAM, f"task `{task}` is not awaited here", path,
                hint=self._how_to_await(task, path), offset=at,
            )  # fmt: skip

    def _how_to_await(self, task: str, path: Path) -> str:
        found = self._outline.by_id[task].path
        if found == path[:2]:
            return "a task cannot read its own outcome"
        if found[0] != path[0]:
            return f"it stands in `{found[0]}`, which starts later"
        return f"add `{task}` to `depends_on`"

    def _has_default(self, task: str) -> bool:
        found = self._outline.by_id.get(task)
        return found is not None and found.data.get("default_outputs") is not None

    def _place(self, task: OutlineTask) -> Place:
        scope = self._outline.scope_of(task)
        return Place(
            _BODY,
            (RUN if scope.key == "tasks" else RUN_AT_END) | {"task.id"},
            visible=self._outline.visible_to(task),
            certain=self._outline.certain_for(task),
        )

    def _run_outputs(self) -> Place:
        return Place(
            _BODY, RUN, visible=self._outline.visible_at_end(), certain=self._outline.certain_at_end()
        )

    def _tested_in(self, when: V) -> frozenset[str]:
        """Tasks whose status the task's own `when` looks at: what stands behind it may take them as looked at."""
        if not isinstance(when, dict) or when.get("$expr", -1) < 0:
            return frozenset()
        refs = self._exprs[when["$expr"]]["refs"]
        return frozenset(
            ref.split(".")[1] for ref in refs if ref.startswith("tasks.") and ref.endswith(".status")
        )


def _closed(inputs: Any) -> Any:
    """The schema of the inputs: an object, and one that takes no input that it does not declare."""
    if not isinstance(inputs, dict):
        return None
    return {"type": "object", "additionalProperties": False, **inputs}


def _inside(ref: str, names: frozenset[str]) -> bool:
    return any(ref.startswith(name + ".") for name in names)


def _where(ref: str) -> str:
    root = ref.partition(".")[0]
    return {
        "result": "`result` is known in `success_when` and `outputs` of an activity",
        "attempt": "`attempt` is known in `success_when` and `retry.when`",
        "error": "`error` is known in `retry.when`; elsewhere there is `tasks.<id>.error`",
        "run": f"`{ref}` is known in `on_failure` and `finally`",
        "task": f"`{ref}` is known inside of a task",
    }.get(root, "")
