"""From a definition to the compiled form: defaults applied, durations in seconds, expressions compiled.

The compiled form is all that a worker ever loads; its canonical bytes are what a run is pinned to.  What a definition
does not use leaves no trace in it, so that the bytes of older definitions stay what they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.dsl import words
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.expression_table import ExpressionTable, Report, TooManyExpressions
from engine.dsl.loader import Path
from engine.dsl.naming import RECEIVED, RUN, SCHEDULED, TRIGGER, Place
from engine.dsl.outline import Outline
from engine.dsl.task_compiler import BODY, HUMAN_APPROVAL, TaskCompiler
from engine.errors import InvalidDefinition, Problem

__all__ = ["HUMAN_APPROVAL", "Compiler", "TooManyExpressions", "canonical", "compile_definition", "digest"]

FORMAT = 1
FORMAT_WITH_COMPOSITES = 2
"""Of a definition that uses what the first format does not know."""
DSL = "1"

_HEAD = Place(
    frozenset({"inputs", "env"}), TRIGGER,
    why="the title and labels of a run know only `inputs`, `env` and `trigger`",
)  # fmt: skip
_GROUP = Place(
    frozenset({"inputs", "env"}), TRIGGER | RUN,
    why="the group of a run is known before its tasks: `inputs`, `env`, `trigger` and `run`",
)  # fmt: skip
_TRIGGERS = {
    kind: Place(
        frozenset({"env"}), names,
        why=f"a {kind} knows only `env` and " + ", ".join(f"`{name}`" for name in sorted(names)),
    )
    for kind, names in (("schedule", SCHEDULED), ("webhook", RECEIVED))
}  # fmt: skip
_NEW_KINDS = frozenset({"map", "loop", "group", "workflow", "signal", "end"})
_NEW_TASK_KEYS = frozenset({"cache", "concurrency", "compensate"})


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


class Compiler:
    """One definition on its way. Faults go to `report`; the result is of use only if there were none."""

    def __init__(self, definition: Mapping[str, Any], outline: Outline, report: Report) -> None:
        self._definition = definition
        self._outline = outline
        self._table = ExpressionTable(definition, outline, report)
        self._tasks = TaskCompiler(definition, outline, self._table, report)

    def compile(self) -> dict[str, Any]:
        """The compiled form."""
        get, value, seconds = self._definition.get, self._table.value, self._tasks.seconds
        result: dict[str, Any] = {
            "format": FORMAT,
            "dsl": DSL,
            "name": get("name", ""),
            "version": str(get("version", "")),
            "title": value(get("title"), ("title",), _HEAD),
            "description": get("description", ""),
            "labels": value(get("labels", {}), ("labels",), _HEAD),
            "inputs": _closed(get("inputs")),
            "env": get("env", {}),
            "timeout": seconds(self._definition, "timeout", ()),
            "cleanup_timeout": seconds(self._definition, "cleanup_timeout", ())
            or words.DEFAULT_CLEANUP_TIMEOUT,
            "max_concurrency": get("max_concurrency") or self._outline.needed_concurrency_limit(),
            "on_task_failure": get("on_task_failure", "finish"),
        }
        for scope in self._outline.scopes:
            result[scope.key] = [self._tasks.task(task) for task in scope.tasks]
        result["outputs"] = value(get("outputs"), ("outputs",), self._run_outputs())
        self._tasks.check_default_retry_when()
        result |= self._around_the_run()
        if self._is_of_the_new_format(result):
            result["format"] = FORMAT_WITH_COMPOSITES
        result["exprs"] = self._table.rows
        return result

    def _around_the_run(self) -> dict[str, Any]:
        """What says when runs start, how many at once, and what they may start and know."""
        data = self._definition
        made: dict[str, Any] = {}
        if data.get("secrets"):
            made["secrets"] = list(dict.fromkeys(data["secrets"]))
        if data.get("triggers"):
            made["triggers"] = [
                self._trigger(trigger, ("triggers", index))
                for index, trigger in enumerate(data["triggers"])
                if isinstance(trigger, dict)
            ]
        if isinstance(data.get("concurrency"), dict):
            group = data["concurrency"]
            made["concurrency"] = {
                **self._tasks.concurrency(group, ("concurrency",), _GROUP),
                "on_conflict": group.get("on_conflict", "queue"),
            }
        if self._tasks.calls:
            made["calls"] = [{"workflow": name, "ref": ref} for name, ref in sorted(self._tasks.calls)]
        return made

    def _trigger(self, data: Mapping[str, Any], path: Path) -> dict[str, Any]:
        kind = data.get("type")
        place = _TRIGGERS.get(str(kind), _TRIGGERS["schedule"])
        made: dict[str, Any] = {"id": data.get("id"), "type": kind}
        if kind == "schedule":
            cron = data.get("cron", [])
            made |= {
                "cron": [cron] if isinstance(cron, str) else cron,
                "timezone": data.get("timezone", "UTC"),
                "overlap": data.get("overlap", "skip"),
                "catchup_window": self._tasks.seconds(data, "catchup_window", path)
                or words.DEFAULT_CATCHUP_WINDOW,
                "jitter": self._tasks.seconds(data, "jitter", path),
            }
        else:
            made["secret"] = data.get("secret")
        made["when"] = self._table.condition(data, "when", path, place)
        made["inputs"] = self._table.value(data.get("inputs", {}), (*path, "inputs"), place)
        return made

    def _run_outputs(self) -> Place:
        tasks = self._outline.scopes[0]
        return Place(BODY, RUN | TRIGGER, visible=tasks.all_at_end(), certain=tasks.certain_at_end())

    def _is_of_the_new_format(self, result: Mapping[str, Any]) -> bool:
        return (
            any(key in result for key in ("secrets", "triggers", "concurrency", "calls"))
            or any(
                task.kind in _NEW_KINDS or not _NEW_TASK_KEYS.isdisjoint(task.data)
                for task in self._outline.tasks
            )
            or any(ref.startswith("trigger.") for row in self._table.rows for ref in row["refs"])
        )


def _closed(inputs: Any) -> Any:
    """The schema of the inputs: an object, and one that takes no input that it does not declare."""
    if not isinstance(inputs, dict):
        return None
    return {"type": "object", "additionalProperties": False, **inputs}
