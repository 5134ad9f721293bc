"""The meaning of each task by itself: its kind, its activity type and config, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.dsl import codes, json_schemas, words
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.faults import Faults, name_hint, seconds
from engine.dsl.loader import Path, shown
from engine.dsl.outline import Outline, OutlineTask
from engine.dsl.structure import closest
from engine.dsl.task_compiler import HUMAN_APPROVAL

_NOT_FOR_APPROVALS = (
    "retry", "timeout", "total_timeout", "success_when", "execution", "task_queue", "cache", "concurrency", "compensate",
)  # fmt: skip


class TaskChecks:
    """Looks at one task after the other."""

    def __init__(
        self,
        name: str,
        outline: Outline,
        types: ActivityTypes,
        broken_types: Mapping[str, str],
        faults: Faults,
    ) -> None:
        self._name = name
        self._outline = outline
        self._types = types
        self._broken_types = broken_types
        self._faults = faults

    def check(self, task: OutlineTask) -> None:
        """Everything but its id, its order and its expressions."""
        data, path = task.data, task.path
        for key in ("name", "default_outputs"):
            self._faults.no_expressions(data.get(key), (*path, key))
        kind = task.kind
        if kind == "activity":
            if isinstance(data.get("activity_type"), str):
                self._activity(task)
        elif kind == "wait":
            self._wait(data, path)
        elif kind == "map":
            self._map(task)
        elif kind == "loop":
            self._loop(data, path)
        elif kind == "workflow":
            self._workflow(data, path)
        elif kind == "signal":
            self._signal(data, path)
        elif kind == "end":
            self._end(task)
        if isinstance(data.get("compensate"), dict):
            self._compensate(task)

    # --- one kind after the other

    def _wait(self, data: Mapping[str, Any], path: Path) -> None:
        written = self._faults.written(path).keys() & {"duration", "until"}
        if len(written) != 1:
            fault = "takes `duration` or `until`, not both" if written else "needs `duration` or `until`"
            self._faults.report(codes.WAIT, f"a `wait` {fault}", path)
        until = data.get("until")
        if isinstance(until, str) and "${{" not in until and not _is_moment(until):
            self._faults.report(
                codes.WAIT, f"`{shown(until)}` is not a moment in time", (*path, "until"),
                hint="write it in RFC 3339, with the zone: 2030-01-01T06:00:00Z",
            )  # fmt: skip

    def _map(self, task: OutlineTask) -> None:
        name, path = task.data.get("as", "item"), (*task.path, "as")
        own = {name, f"{name}_index"}
        if name in words.RESERVED_IDS:
            self._faults.report(codes.NAME, f"`{name}` cannot be a name", path, hint=name_hint(name))
        elif own & words.TAKEN_NAMES:
            self._faults.report(
                codes.NAME, f"`{name}` means something else in expressions", path,
                hint="name the item after what it is: `as: region`",
            )  # fmt: skip
        for scope in task.scope.around():
            outer = scope.owner
            if outer is None or outer.kind != "map":
                continue
            other = outer.data.get("as", "item")
            if own & {other, f"{other}_index"}:
                at, is_key = (path, False) if "as" in task.data else (task.path, False)
                self._faults.report(
                    codes.NAME, f"inside of `{outer.id}`, `{name}` is the item of that map already", at, key=is_key,
                    hint="a map in a map names its own item: `as: region`",
                )  # fmt: skip
                return

    def _loop(self, data: Mapping[str, Any], path: Path) -> None:
        state, following = data.get("state", {}), data.get("next", {})
        if not isinstance(state, dict) or not isinstance(following, dict):
            return
        self._faults.names("state", state, (*path, "state"))
        for name in following:
            if name not in state:
                hint = (
                    closest(name, list(state)) or f"say what it begins with: `state: {{{shown(name)}: null}}`"
                )
                self._faults.report(
                    codes.STATE, f"`next` sets `{shown(name)}`, which is not in `state`", (*path, "next", name),
                    hint=hint, key=True,
                )  # fmt: skip
        if following == {} and state != {} and "next" not in self._faults.written(path):
            self._faults.report(
                codes.STATE, "the state never changes: the loop has no `next`", (*path, "state"), key=True,
                hint="constants stand in `env`, or in a `set` task before",
            )  # fmt: skip

    def _workflow(self, data: Mapping[str, Any], path: Path) -> None:
        named, listed = data.get("workflow"), data.get("one_of")
        if isinstance(named, str) and "${{" in named:
            if not self._faults.written(path).get("one_of"):
                self._faults.report(
                    codes.CALL, "a workflow that is chosen by an expression needs `one_of`", (*path, "workflow"),
                    hint="list the workflows among which it chooses: they are all pinned when the run starts",
                )  # fmt: skip
        elif isinstance(named, str) and listed:
            self._faults.report(
                codes.CALL, "`one_of` stands beside a `workflow` that is an expression", (*path, "one_of"), key=True,
                hint='choose by `workflow: "${{ … }}"`, or leave `one_of` out',
            )  # fmt: skip
        for at, name in _named(data):
            if name == self._name and data.get("ref", "same") in ("same", "latest"):
                self._faults.report(
                    codes.CALL_CYCLE, f"workflow `{name}` would start itself, without end", (*path, *at),
                    hint="repeat with `type: loop`",
                )  # fmt: skip

    def _signal(self, data: Mapping[str, Any], path: Path) -> None:
        if isinstance(data.get("schema"), dict):
            self._faults.no_expressions(data["schema"], (*path, "schema"))
            self._faults.json_schema(data["schema"], (*path, "schema"))

    def _end(self, task: OutlineTask) -> None:
        if task.scope.key != "tasks":
            self._faults.report(
                codes.NOT_ALLOWED, f"an `end` cannot stand in `{task.scope.key}`: the run has ended by then",
                (*task.path, "type"),
            )  # fmt: skip

    def _compensate(self, task: OutlineTask) -> None:
        data, path = task.data["compensate"], (*task.path, "compensate")
        if task.scope.key != "tasks":
            self._faults.report(
                codes.NOT_ALLOWED, f"`compensate` cannot stand in `{task.scope.key}`: undoing is over by then",
                path, key=True,
            )  # fmt: skip
        if data.get("activity_type") == HUMAN_APPROVAL:
            self._faults.report(
                codes.NOT_ALLOWED, "a `human_approval` cannot undo anything", (*path, "activity_type"),
                hint="ask before, with a task of its own",
            )  # fmt: skip
        elif isinstance(data.get("activity_type"), str):
            self._of_type(data, path)
        self._times(data, path)

    def _activity(self, task: OutlineTask) -> None:
        data, path = task.data, task.path
        self._of_type(data, path)
        if data["activity_type"] == HUMAN_APPROVAL:
            self._approval(data, path)
        self._times(data, path)

    # --- activity types

    def _of_type(self, data: Mapping[str, Any], path: Path) -> None:
        """The activity type of a task, or of its undoing, and the config for it."""
        name = data["activity_type"]
        info = self._outline.info(name)
        if info is None:
            self._unknown_activity_type(name, (*path, "activity_type"))
        elif not info.builtin:
            self._config(info, data, path)
        if name == "python_function":
            self._faults.no_expressions(data.get("config", {}).get("function"), (*path, "config", "function"))

    def _unknown_activity_type(self, name: str, path: Path) -> None:
        if name in self._broken_types:
            self._faults.report(codes.UNKNOWN_ACTIVITY_TYPE, self._broken_types[name], path)
            return
        names = self._types.names()
        hint = closest(name, names) or "there are " + ", ".join(f"`{n}`" for n in names)
        self._faults.report(
            codes.UNKNOWN_ACTIVITY_TYPE, f"there is no activity type `{shown(name)}`", path, hint=hint
        )

    def _config(self, info: Any, data: Mapping[str, Any], path: Path) -> None:
        """The config of a type that an installed package offers; those of built-in types are in the schema."""
        try:
            validator = info.config_validator
        except json_schemas.SchemaFault as fault:
            self._faults.report(
                codes.UNKNOWN_ACTIVITY_TYPE, f"the config schema of `{info.name}` cannot be used: {fault.message}",
                (*path, "activity_type"), hint="tell those who wrote the package that offers it",
            )  # fmt: skip
            return
        errors = list(validator.iter_errors(data.get("config", {})))
        if errors and "config" not in self._faults.written(path):
            self._faults.report(codes.MISSING_KEY, "the task needs `config`", path)
            return
        if not errors:
            return
        from engine.dsl.explaining import explain  # what is right needs none of it

        found, _ = explain(self._faults.document, errors, info.open_config_schema, (*path, "config"))
        self._faults.add(found)

    def _times(self, data: Mapping[str, Any], path: Path) -> None:
        one, all_ = seconds(data.get("timeout")), seconds(data.get("total_timeout"))
        if one and all_ and one > all_:
            self._faults.report(
                codes.BOUNDS, "`timeout`, the limit of one attempt, is longer than `total_timeout`", (*path, "timeout")
            )  # fmt: skip

    # --- approvals

    def _approval(self, data: Mapping[str, Any], path: Path) -> None:
        for key in _NOT_FOR_APPROVALS:
            if key in data:
                hint = "`deadline` in its `config` limits it" if "timeout" in key else ""
                self._faults.report(
                    codes.NOT_ALLOWED, f"`{key}` cannot stand on a `human_approval`", (*path, key), hint=hint, key=True
                )  # fmt: skip
        config, at = data.get("config", {}), (*path, "config")
        for key in ("deadline", "remind_every"):
            self._faults.duration(config.get(key), (*at, key))
        for key in ("approvers", "escalate_to"):
            people = config.get(key)
            if isinstance(people, dict) and people.get("groups", []) == [] and people.get("users", []) == []:
                self._faults.report(codes.APPROVAL, f"`{key}` names nobody", (*at, key), key=True)
        self._quorum(config, at)
        if isinstance(config.get("form"), dict):
            self._faults.json_schema(config["form"], (*at, "form"))

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
            self._faults.report(
                codes.APPROVAL, f"{needed} approvals can never come from {len(set(users))} approvers",
                (*at, "required_approvals"), hint="name more `users`, or `groups`",
            )  # fmt: skip


def _named(data: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """The workflows that a task may start, each with where it is named."""
    listed = data.get("one_of")
    if isinstance(listed, list) and listed:
        return [(("one_of", index), name) for index, name in enumerate(listed) if isinstance(name, str)]
    named = data.get("workflow")
    return [(("workflow",), named)] if isinstance(named, str) and "${{" not in named else []


def _is_moment(text: str) -> bool:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
