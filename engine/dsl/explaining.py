"""Faults of a shape, in the author's words: located, with what is allowed, and with our words for those of others.

Loaded only when there is something to explain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from engine.dsl import codes, neighbours, words
from engine.dsl.json_schemas import Schema
from engine.dsl.loader import Document, Path, shown
from engine.dsl.structure import closest, is_task, value_at, workflow_schema
from engine.errors import Problem

_KINDS = {
    "string": "text", "object": "a mapping", "array": "a list", "integer": "a whole number",
    "number": "a number", "boolean": "true or false", "null": "empty",
}  # fmt: skip


def explain(
    document: Document, errors: Sequence[Any], schema: Schema, base: Path
) -> tuple[list[Problem], set[Path]]:
    """Errors of a JSON Schema validator as problems of the document, and the paths of the values that are wrong.

    `base` is where the validated value stands in the document.
    """
    problems: dict[Problem, None] = {}
    bad: set[Path] = set()
    # Of a value that is none of the allowed ones it does not help to say that its type is wrong as well.
    listed = {tuple(error.instance_path) for error in errors if error.kind.name in ("enum", "const")}
    for error in errors:
        if error.kind.name == "type" and tuple(error.instance_path) in listed:
            continue
        path = (*base, *error.instance_path)
        for problem in _Explanation(document, error, schema, path).problems(bad):
            problems[problem] = None
            if len(problems) > words.MAX_PROBLEMS:
                return list(problems), bad
    return list(problems), bad


class _Explanation:
    """One error of the JSON Schema validator, put into words."""

    def __init__(self, document: Document, error: Any, root: Schema, path: Path) -> None:
        self._document = document
        self._error = error
        self._path = path
        self._holder = value_at(root, error.schema_path[:-1])
        self._around = value_at(root, error.schema_path[:-2])
        self._value = value_at(document.data, path)
        # A config is the activity type's own business: its faults have one code.
        self._in_config = "config" in path and path[0] in ("tasks", "on_failure", "finally")

    def problems(self, bad: set[Path]) -> Iterator[Problem]:
        keyword = self._error.kind.name
        if keyword in ("additionalProperties", "unevaluatedProperties"):
            for key in self._error.kind.unexpected:
                bad.add((*self._path, key))
                yield self._unknown_key(key)
        elif keyword in ("required", "dependentRequired"):
            yield self._missing(self._error.kind.property)
        else:
            if keyword not in ("not", "minProperties", "maxProperties"):
                bad.add(self._path)
            yield self._wrong(keyword)

    def _problem(self, code: str, message: str, path: Path, hint: str = "", *, key: bool = False) -> Problem:
        return self._document.problem(
            codes.CONFIG if self._in_config else code, message, path, hint=hint, key=key
        )

    def _unknown_key(self, key: str) -> Problem:
        path = (*self._path, key)
        known = self._holder.get("properties", {}) if isinstance(self._holder, dict) else {}
        hint = (
            _of_another_type(key, self._holder.get("title"))
            or did_you_mean(key, known)
            or self._elsewhere(key)
        )
        return self._problem(codes.UNKNOWN_KEY, f"unknown key `{shown(key)}`", path, hint, key=True)

    def _elsewhere(self, key: str) -> str:
        """A hint for a key that is right in another place."""
        ours = neighbours.WORDS.get(key, key)
        if self._in_config:
            return ""
        if self._path and ours in workflow_schema()["properties"]:
            return f"`{ours}` stands at the top of the workflow"
        if not self._path and ours in workflow_schema()["$defs"]["ActivityTask"]["properties"]:
            return f"`{ours}` stands on a task"
        return ""

    def _missing(self, key: str) -> Problem:
        where = "the workflow" if not self._path else f"`{self._path[-1]}`"
        if self._path and isinstance(self._path[-1], int):
            where = (
                "the task"
                if is_task(self._path)
                else "the trigger"
                if self._path[0] == "triggers"
                else "the item"
            )
        hint = ""
        if key == "activity_type" and isinstance(self._value, dict):
            hint = _missing_activity_type_hint(self._value)
        elif key == "deadline":
            hint = "without a deadline nothing can time out"
        else:
            hint = _MISSING.get(key, "")
        return self._problem(codes.MISSING_KEY, f"{where} needs `{key}`", self._path, hint)

    def _wrong(self, keyword: str) -> Problem:
        value, path = self._value, self._path
        if keyword == "type":
            return self._wrong_type(value)
        if keyword == "enum" or keyword == "const":
            return self._not_one_of(value)
        if keyword == "pattern":
            what, hint = words.PATTERNS.get(
                self._error.kind.pattern, (f"does not match `{self._error.kind.pattern}`", self._example())
            )
            if "${{" in value and self._error.kind.pattern != words.EXPRESSION_PATTERN:
                return self._problem(
                    codes.EXPRESSION_HERE, "an expression may not stand here", path, "write the value out"
                )
            code = (
                codes.DURATION
                if "duration" in what
                else codes.NAME
                if "an id" in what or "name" in what
                else codes.VALUE
            )
            if self._error.kind.pattern == words.ID_PATTERN and "-" in value:
                hint = f"a dash would be a minus in expressions: `{value.replace('-', '_')}`"
            return self._problem(code, f"`{shown(value)}` {what}", path, hint)
        if keyword == "not":
            return self._problem(codes.VALUE, self._excluded(), path)
        if keyword in ("anyOf", "oneOf"):
            return self._problem(
                codes.VALUE,
                f"`{shown(_json(value))}` fits none of the allowed forms: {self._branches()}",
                path,
            )
        return self._problem(codes.VALUE, _limit_message(keyword, self._error), path)

    def _example(self) -> str:
        examples = self._holder.get("examples") or self._around.get("examples")
        return f"such as `{examples[0]}`" if isinstance(examples, list) and examples else ""

    def _wrong_type(self, value: Any) -> Problem:
        wanted = self._holder["type"]
        kinds = [wanted] if isinstance(wanted, str) else list(wanted)
        found = _kind_of(value)
        if value is None:
            return self._problem(
                codes.TYPE, f"`{self._path[-1] if self._path else 'the file'}` is empty", self._path,
                "leave the key out or give it a value", key=bool(self._path) and isinstance(self._path[-1], str),
            )  # fmt: skip
        named = [_KINDS[kind] for kind in kinds if kind != "integer" or "number" not in kinds]
        message = f"must be {' or '.join(named)}, not {found}"
        hint = ""
        if "boolean" in kinds:
            hint = 'write true, false or "${{ … }}"' if "string" in kinds else ""
        elif "string" in kinds and isinstance(value, (bool, int, float)):
            written = self._document.raw(self._path) or str(value)
            hint = f'quote it: "{written}"'
            if "duration" in words.PATTERNS.get(self._holder.get("pattern", ""), ("",))[0]:
                hint = f"write a unit: {written}s or {written}m"
        elif kinds == ["array"] and isinstance(value, str):
            hint = f"write a list: [{shown(value)}]"
        elif isinstance(value, str) and "${{" in value:
            hint = "an expression may not stand here"
        elif (
            kinds == ["array"]
            and isinstance(value, dict)
            and self._path[-1:] in (("tasks",), ("on_failure",), ("finally",))
        ):
            hint = "tasks are a list: `- id: …`"
        return self._problem(codes.TYPE, message, self._path, hint)

    def _not_one_of(self, value: Any) -> Problem:
        options = self._holder["enum"] if "enum" in self._holder else [self._holder["const"]]
        allowed = ", ".join(f"`{_plain_json(option)}`" for option in options)
        message = (
            f"`{shown(_plain_json(value))}` is not one of {allowed}"
            if len(options) > 1
            else f"must be {allowed}"
        )
        texts = [option for option in options if isinstance(option, str)]
        hint = ""
        if self._path[-1] == "dsl" and not isinstance(value, str):
            hint = 'quote it: "1"'
        elif isinstance(value, str):
            is_type = self._path[-1] == "type" and is_task(self._path[:-1])
            hint = (neighbours.TYPES.get(value, "") if is_type else "") or closest(value, texts)
            if not hint and is_type and value.isidentifier():
                hint = f"`type: activity` with `activity_type: {shown(value)}`"
        return self._problem(codes.VALUE, message, self._path, hint)

    def _excluded(self) -> str:
        excluded = self._holder.get("not")
        if isinstance(excluded, dict) and set(excluded) == {"required"}:
            return " and ".join(f"`{key}`" for key in excluded["required"]) + " exclude each other"
        return "is not allowed here"

    def _branches(self) -> str:
        texts = [branch[0].message.split("\n", 1)[0] for branch in self._error.kind.context if branch]
        return "; ".join(dict.fromkeys(shown(text, 120) for text in texts))


_KINDS_BY_TITLE = {
    "ActivityTask": "activity", "WorkflowTask": "workflow", "MapTask": "map", "LoopTask": "loop", "GroupTask": "group",
    "WaitTask": "wait", "SignalTask": "signal", "SetTask": "set", "EndTask": "end",
}  # fmt: skip
_MISSING = {
    "until": "a loop ends when its `until` is true",
    "max_iterations": "the loop fails when `until` does not hold by then",
    "items": 'a list, or an expression that gives one: "${{ inputs.regions }}"',
    "workflow": "the name of the workflow to run",
    "signal": "a name by which the signal is sent",
    "cron": 'such as "0 6 * * 1-5"',
    "secret": "the name of the secret that signs the requests",
    "group": "a name that all who share the limit say",
    "key": "what the result depends on",
}
"""What to say of keys that are missing."""


def _of_another_type(key: str, title: Any) -> str:
    """A hint for a key that tasks of other types have."""
    if title not in _KINDS_BY_TITLE:
        return ""
    defs = workflow_schema()["$defs"]
    kinds = [kind for owner, kind in _KINDS_BY_TITLE.items() if key in defs[owner]["properties"]]
    if not kinds:
        return ""
    if key == "retry" and title in ("MapTask", "LoopTask", "GroupTask"):
        return "`retry` stands on the tasks inside"
    return f"`{key}` stands on tasks of " + _or([f"`type: {kind}`" for kind in kinds])


def _or(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " or " + texts[-1]


def did_you_mean(key: str, known: Any) -> str:
    """A hint for an unknown key: our word for a neighbour's, or the known key that looks most alike."""
    if key in neighbours.LEFT_OUT:
        return neighbours.LEFT_OUT[key]
    ours = neighbours.WORDS.get(key, "")
    if ours and (ours in known or ours.startswith("`") or ours.split(":")[0] in known):
        return f"did you mean {ours}?" if ours.startswith("`") else f"did you mean `{ours}`?"
    return closest(key, list(known)) or (_listed(list(known)) if 0 < len(known) <= 8 else "")


def _listed(known: list[str]) -> str:
    return "there are " + ", ".join(f"`{key}`" for key in known)


_TOLD_BY = {
    "items": "map", "max_iterations": "loop", "next": "loop", "workflow": "workflow", "signal": "signal",
    "tasks": "group", "status": "end",
}  # fmt: skip
"""Keys that tell which type was meant."""


def _missing_activity_type_hint(task: dict[str, Any]) -> str:
    if "duration" in task or "until" in task:
        return "`type: wait` pauses"
    if "values" in task:
        return "`type: set` works out values"
    for key, kind in _TOLD_BY.items():
        if key in task:
            return f"say `type: {kind}`"
    return "such as `http_request`, `python_function` or `human_approval`"


def _limit_message(keyword: str, error: Any) -> str:
    limit = getattr(error.kind, "limit", None)
    text = {
        "minimum": f"must be at least {limit}",
        "maximum": f"must be at most {limit}",
        "exclusiveMinimum": f"must be more than {limit}",
        "exclusiveMaximum": f"must be less than {limit}",
        "minLength": "must not be empty" if limit == 1 else f"must have at least {limit} characters",
        "maxLength": f"must have at most {limit} characters",
        "minItems": "must not be empty" if limit == 1 else f"must have at least {limit} items",
        "maxItems": f"must have at most {limit} items",
        "minProperties": f"must have at least {limit} keys",
        "maxProperties": f"must have at most {limit} keys",
        "falseSchema": "nothing may stand here",
        "uniqueItems": "names something twice",
    }.get(keyword)
    return text or shown(error.message.split("\n", 1)[0], 200)


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping"}.get(
        type(value), "that"
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain_json(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)
