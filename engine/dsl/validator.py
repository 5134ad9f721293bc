"""The meaning of a definition, where its shape is right: ids, order, activity types, approvals, inputs, bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.dsl import bounds, codes, json_schemas, words
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.compiler import HUMAN_APPROVAL, Compiler, TooManyExpressions
from engine.dsl.durations import DurationError, parse_duration
from engine.dsl.loader import Document, Path, shown
from engine.dsl.outline import Outline, OutlineTask, Scope
from engine.dsl.structure import check_structure, closest, explain
from engine.errors import Misconfigured, Problem

_ID = re.compile(words.ID_PATTERN)
_NOT_FOR_APPROVALS = ("retry", "timeout", "total_timeout", "success_when", "execution", "task_queue")


class WorkflowValidator:
    """Finds every problem of a loaded document, and compiles it if there is none."""

    def __init__(self, types: ActivityTypes) -> None:
        self._types = types

    def validate(self, document: Document) -> tuple[list[Problem], dict[str, Any] | None]:
        """All problems, in the order of the text, and the compiled form if there are none."""
        _keep_version_as_written(document)
        problems, data = check_structure(document)
        if not isinstance(document.data, dict):
            return problems, None
        if data is None:
            return _told(document, problems), None
        compiled = None
        try:
            compiled = _Check(document, data, self._types, problems).run()
        except (_TooMany, TooManyExpressions):
            pass  # what was found until then is told
        told = _told(document, problems)
        return told, None if told else compiled


def _told(document: Document, problems: list[Problem]) -> list[Problem]:
    """The problems in the order of the text, each once, and no more than somebody reads."""
    ordered = sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column))
    if len(ordered) > words.MAX_PROBLEMS:
        ordered = ordered[: words.MAX_PROBLEMS]
        ordered.append(
            document.problem(codes.TOO_MANY, f"only the first {words.MAX_PROBLEMS} problems are told")
        )
    return ordered


class _TooMany(Exception):
    """More problems than are told: the search ends."""


def _keep_version_as_written(document: Document) -> None:
    """`version: 1.10` is the label "1.10", not the number 1.1."""
    data = document.data
    if isinstance(data, dict) and type(data.get("version")) in (int, float):
        data["version"] = document.raw(("version",))


class _Check:
    """One document; `problems` grows."""

    def __init__(
        self, document: Document, data: dict[str, Any], types: ActivityTypes, problems: list[Problem]
    ) -> None:
        self._document = document
        self._data = data
        self._types = types
        self._problems = problems
        self._broken_types: dict[str, str] = {}
        self._outline = Outline(data, _Forgiving(types, self._broken_types))

    def run(self) -> dict[str, Any]:
        self._names("env", self._data.get("env"), ("env",))
        self._no_expressions(self._data.get("env"), ("env",))
        self._inputs()
        self._ids()
        for scope in self._outline.scopes:
            self._order(scope)
        for task in self._outline.tasks:
            self._task(task)
        self._limits()
        return Compiler(self._data, self._outline, self._report).compile()

    def _report(
        self,
        code: str,
        message: str,
        path: Path,
        *,
        hint: str = "",
        key: bool = False,
        offset: int | None = None,
    ) -> None:
        self._add([self._document.problem(code, message, path, hint=hint, key=key, offset=offset)])

    def _add(self, problems: list[Problem]) -> None:
        self._problems.extend(problems)
        if len(self._problems) > 2 * words.MAX_PROBLEMS:
            raise _TooMany

    # --- names and order

    def _names(self, what: str, holder: Any, path: Path) -> None:
        for name in holder if isinstance(holder, dict) else ():
            if not _ID.match(name) or name in words.RESERVED_IDS or len(name) > words.MAX_NAME:
                self._report(
                    codes.NAME,
                    f"`{shown(name)}` cannot be a name in `{what}`",
                    (*path, name),
                    hint=_name_hint(name),
                    key=True,
                )

    def _ids(self) -> None:
        first: dict[str, OutlineTask] = {}
        for task in self._outline.tasks:
            path = (*task.path, "id")
            if task.id in words.RESERVED_IDS:
                self._report(codes.NAME, f"`{task.id}` cannot be an id", path, hint=_name_hint(task.id))
            if task.id in first:
                line, _ = self._document.at_value((*first[task.id].path, "id"))
                self._report(
                    codes.DUPLICATE_ID, f"a task `{task.id}` stands already in line {line}", path,
                    hint="ids are unique over `tasks`, `on_failure` and `finally`",
                )  # fmt: skip
            first.setdefault(task.id, task)

    def _order(self, scope: Scope) -> None:
        broken = self._unusable_ids(scope.key)
        for task in scope.tasks:
            listed = task.data.get("depends_on", [])
            for index, name in enumerate(listed):
                if isinstance(name, str) and name not in scope.positions and name not in broken:
                    self._unknown_dependency(scope, name, (*task.path, "depends_on", index))
            if task.data.get("run_on") == "failure" and not listed:
                self._report(
                    codes.UNREACHABLE, f"task `{task.id}` can never run: it waits for a failure of nothing",
                    (*task.path, "run_on"), hint="say in `depends_on` whose failure it is for",
                )  # fmt: skip
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
            self._report(codes.CYCLE, message, (*task.path, "depends_on"), key=True)

    def _unusable_ids(self, key: str) -> set[str]:
        """Ids that are told to be wrong already: what depends on them is not told again."""
        listed = self._document.data.get(key)
        found = set()
        for task in listed if isinstance(listed, list) else ():
            if isinstance(task, dict) and isinstance(task.get("id"), str):
                found.add(task["id"])
        return found

    def _unknown_dependency(self, scope: Scope, name: str, path: Path) -> None:
        if "${{" in name:
            self._report(
                codes.EXPRESSION_HERE, "an expression may not stand here", path, hint="write the id out"
            )
        elif name in self._outline.by_id:
            other = self._outline.by_id[name].path[0]
            self._report(
                codes.OUT_OF_SCOPE, f"task `{name}` stands in `{other}`, and this one in `{scope.key}`", path,
                hint="`depends_on` stays in its own list; the other list has ended before, or never starts",
            )  # fmt: skip
        else:
            hint = closest(name, list(scope.positions))
            self._report(codes.UNKNOWN_TASK, f"there is no task `{shown(name)}`", path, hint=hint)

    # --- tasks

    def _task(self, task: OutlineTask) -> None:
        data, path = task.data, task.path
        for key in ("name", "default_outputs"):
            self._no_expressions(data.get(key), (*path, key))
        kind = data.get("type", "activity")
        if kind == "wait":
            self._wait(data, path)
        elif kind == "activity" and isinstance(data.get("activity_type"), str):
            self._activity(task)

    def _wait(self, data: Mapping[str, Any], path: Path) -> None:
        written = self._document.data[path[0]][path[1]].keys() & {"duration", "until"}
        if len(written) != 1:
            fault = "takes `duration` or `until`, not both" if written else "needs `duration` or `until`"
            self._report(codes.WAIT, f"a `wait` {fault}", path)
        until = data.get("until")
        if isinstance(until, str) and "${{" not in until and not _is_moment(until):
            self._report(
                codes.WAIT, f"`{shown(until)}` is not a moment in time", (*path, "until"),
                hint="write it in RFC 3339, with the zone: 2030-01-01T06:00:00Z",
            )  # fmt: skip

    def _activity(self, task: OutlineTask) -> None:
        data, path = task.data, task.path
        name = data["activity_type"]
        if task.info is None:
            self._unknown_activity_type(name, (*path, "activity_type"))
        elif not task.info.builtin:
            self._config(task)
        if name == HUMAN_APPROVAL:
            self._approval(data, path)
        elif name == "python_function":
            self._no_expressions(data.get("config", {}).get("function"), (*path, "config", "function"))
        self._times(data, path)

    def _unknown_activity_type(self, name: str, path: Path) -> None:
        if name in self._broken_types:
            self._report(codes.UNKNOWN_ACTIVITY_TYPE, self._broken_types[name], path)
            return
        names = self._types.names()
        hint = closest(name, names) or "there are " + ", ".join(f"`{n}`" for n in names)
        self._report(
            codes.UNKNOWN_ACTIVITY_TYPE, f"there is no activity type `{shown(name)}`", path, hint=hint
        )

    def _config(self, task: OutlineTask) -> None:
        """The config of a type that an installed package offers; those of built-in types are in the schema."""
        assert task.info is not None
        try:
            validator = task.info.config_validator
        except json_schemas.SchemaFault as fault:
            self._report(
                codes.UNKNOWN_ACTIVITY_TYPE,
                f"the config schema of `{task.info.name}` cannot be used: {fault.message}",
                (*task.path, "activity_type"), hint="tell those who wrote the package that offers it",
            )  # fmt: skip
            return
        errors = list(validator.iter_errors(task.data.get("config", {})))
        if errors and "config" not in self._document.data[task.path[0]][task.path[1]]:
            self._report(codes.MISSING_KEY, "the task needs `config`", task.path)
            return
        found, _ = explain(self._document, errors, task.info.open_config_schema, (*task.path, "config"))
        self._add(found)

    def _times(self, data: Mapping[str, Any], path: Path) -> None:
        one, all_ = _seconds(data.get("timeout")), _seconds(data.get("total_timeout"))
        if one and all_ and one > all_:
            self._report(
                codes.BOUNDS,
                "`timeout`, the limit of one attempt, is longer than `total_timeout`",
                (*path, "timeout"),
            )

    def _approval(self, data: Mapping[str, Any], path: Path) -> None:
        for key in _NOT_FOR_APPROVALS:
            if key in data:
                hint = "`deadline` in its `config` limits it" if "timeout" in key else ""
                self._report(
                    codes.NOT_ALLOWED,
                    f"`{key}` cannot stand on a `human_approval`",
                    (*path, key),
                    hint=hint,
                    key=True,
                )
        config, at = data.get("config", {}), (*path, "config")
        for key in ("deadline", "remind_every"):
            self._duration(config.get(key), (*at, key))
        for key in ("approvers", "escalate_to"):
            people = config.get(key)
            if isinstance(people, dict) and people.get("groups", []) == [] and people.get("users", []) == []:
                self._report(codes.APPROVAL, f"`{key}` names nobody", (*at, key), key=True)
        self._quorum(config, at)
        if isinstance(config.get("form"), dict):
            self._json_schema(config["form"], (*at, "form"))

    def _quorum(self, config: Mapping[str, Any], at: Path) -> None:
        people, needed = config.get("approvers"), config.get("required_approvals", 1)
        if not isinstance(people, dict) or not isinstance(needed, int) or people.get("groups"):
            return
        users = people.get("users")
        if (
            not isinstance(users, list)
            or any(not isinstance(user, str) or "${{" in user for user in users)
            or not users
        ):
            return
        escalated = config.get("escalate_to") if config.get("on_timeout") == "escalate" else None
        if isinstance(escalated, dict):
            return
        if len(set(users)) < needed:
            self._report(
                codes.APPROVAL, f"{needed} approvals can never come from {len(set(users))} approvers",
                (*at, "required_approvals"), hint="name more `users`, or `groups`",
            )  # fmt: skip

    def _duration(self, value: Any, path: Path) -> None:
        if isinstance(value, str) and "${{" not in value:
            try:
                parse_duration(value)
            except DurationError as error:
                self._report(codes.DURATION, f"`{shown(value)}` {error}", path)

    # --- inputs, constants, limits

    def _inputs(self) -> None:
        inputs = self._data.get("inputs")
        if not isinstance(inputs, dict):
            return
        if inputs.get("type", "object") != "object":
            self._report(
                codes.JSON_SCHEMA, "inputs are an object", ("inputs", "type"), hint="write `type: object`"
            )
            return
        self._no_expressions(inputs, ("inputs",))
        if not self._json_schema(inputs, ("inputs",)):
            return
        properties = inputs.get("properties", {})
        self._names("inputs", properties, ("inputs", "properties"))
        for name in inputs.get("required", []):
            if name not in properties:
                self._report(
                    codes.JSON_SCHEMA, f"input `{shown(name)}` is required and not declared",
                    ("inputs", "required", inputs["required"].index(name)), hint="add it to `properties`",
                )  # fmt: skip
        defaults = {n: p["default"] for n, p in properties.items() if isinstance(p, dict) and "default" in p}
        if defaults:
            self._input_defaults(inputs, defaults)

    def _input_defaults(self, inputs: dict[str, Any], defaults: dict[str, Any]) -> None:
        # Without the words that judge the inputs as a whole, which the defaults alone need not satisfy.
        each: json_schemas.Schema = {
            key: inputs[key] for key in ("$defs", "definitions", "properties") if key in inputs
        }
        for error in json_schemas.compile_schema(each).iter_errors(defaults):
            name, *inside = error.instance_path
            path = ("inputs", "properties", name, "default", *inside)
            self._report(codes.JSON_SCHEMA, f"the default does not fit: {shown(error.message, 200)}", path)

    def _json_schema(self, schema: dict[str, Any], path: Path) -> bool:
        faults = json_schemas.check_user_schema(schema)
        for fault in faults:
            self._report(
                codes.JSON_SCHEMA,
                f"not a usable JSON Schema: {fault.message}",
                (*path, *fault.path),
                hint=fault.hint,
            )
        return not faults

    def _no_expressions(self, value: Any, path: Path) -> None:
        for at, text in _texts(value, path):
            self._report(
                codes.EXPRESSION_HERE, "an expression may not stand here", at,
                hint="write the value out, or `$${{` for a literal `${{`", offset=text.find("${{"),
            )  # fmt: skip

    def _limits(self) -> None:
        found = bounds.excess([task.data for task in self._outline.tasks])
        if found:
            self._report(
                codes.BOUNDS, found[0], self._outline.tasks[found[1]].path, hint="split the workflow"
            )


class _Forgiving(ActivityTypes):
    """Activity types where one that cannot be loaded is a fault of the definition's line, not the end of the check."""

    def __init__(self, types: ActivityTypes, broken: dict[str, str]) -> None:
        self._types = types
        self._broken = broken

    def get(self, name: str) -> Any:
        try:
            return self._types.get(name)
        except Misconfigured as error:
            self._broken[name] = str(error)
            return None


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The texts inside of `value` that hold an expression, not an escaped one."""
    if isinstance(value, str):
        if "${{" in value.replace("$${{", ""):
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def _name_hint(name: str) -> str:
    if name in words.RESERVED_IDS:
        return "expressions read it as a word of their own"
    if "-" in name:
        return f"a dash would be a minus in expressions: `{shown(name.replace('-', '_'))}`"
    return "use letters, digits and `_`, no digit first, 63 at most"


def _seconds(text: Any) -> float | None:
    try:
        return parse_duration(text) if isinstance(text, str) else None
    except DurationError:
        return None


def _is_moment(text: str) -> bool:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
