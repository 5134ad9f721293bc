"""What a definition means, whatever way it is written: the form in which two of them are compared.

It walks the data as loaded, generically, so that a new kind of task needs no word here.  What the language's JSON
Schema says is used for what is the same: a value that is the default is left out, durations are seconds, and the
blanks of expressions do not count.  `defaults` are put where they take effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from engine.core.contracts import Json
from engine.dsl import durations, words
from engine.dsl.json_schemas import resolve
from engine.dsl.loader import Document, Path
from engine.dsl.structure import workflow_schema
from engine.dsl.templates import Slot, TemplateSyntaxError, split

HUMAN_APPROVAL: Final = "human_approval"
TASK_LISTS: Final = ("tasks", "on_failure", "finally")
NESTED: Final = "tasks"
"""The key of a task that holds tasks of its own."""
_SETS: Final = frozenset(
    {"depends_on", "secrets", "non_retryable_errors", "required", "users", "groups", "prevent_self_approval", "one_of"}
)  # fmt: skip
"""Lists whose order means nothing."""
_INHERITED: Final = ("timeout", "retry")
# A string of CEL as it is; blanks between words and signs are what does not count.
_TOKENS: Final = re.compile(
    r"""("{3}(?:\\.|[^\\])*?"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(//[^\n]*|\s+)""",
    re.DOTALL,
)
_RAW_STRING: Final = re.compile(r"(?<![A-Za-z0-9_])[bB]?[rR][bB]?[\"']")
_LOOSE: Final = re.compile(r"(?<!\w) | (?!\w)")
_DURATION: Final = re.compile(durations.PATTERN)


@dataclass(slots=True)
class TaskMeaning:
    """One task. `data` is its canonical data without the tasks inside of it; `place` is where it stands in the document."""

    path: str
    id: str
    scope: str
    """The path of the list that it stands in: `tasks`, or `tasks.rollout.tasks`."""
    parent: str
    """The path of the task around it, "" without one."""
    place: Path
    data: dict[str, Json]
    inherited: dict[str, Path] = field(default_factory=dict)
    """Keys whose value `defaults` gives, and where that stands."""

    @property
    def kind(self) -> str:
        """Its type; an activity that asks people is an `approval`."""
        if self.data.get("activity_type") == HUMAN_APPROVAL:
            return "approval"
        kind = self.data.get("type", "activity")
        return kind if isinstance(kind, str) else ""


@dataclass(slots=True)
class Meaning:
    """A definition: what is said of it as a whole, and its tasks by path, in the order of the file."""

    document: Document
    top: dict[str, Json]
    tasks: dict[str, TaskMeaning]

    @property
    def name(self) -> str:
        """The workflow's name, "" if it has no usable one."""
        found = self.document.data.get("name")
        return found if isinstance(found, str) else ""

    @property
    def env(self) -> dict[str, Json]:
        """Its constants."""
        found = self.top.get("env")
        return found if isinstance(found, dict) else {}


def meaning(document: Document) -> Meaning | None:
    """What a loaded document means; None if it is no mapping at all."""
    data = document.data
    if not isinstance(data, dict):
        return None
    schema = workflow_schema()
    whole = {key: value for key, value in data.items() if key not in (*TASK_LISTS, "defaults")}
    top = _canonical(whole, schema, "")
    if "version" in top:
        # As written: 1.10 is another label than 1.1.
        top["version"] = document.raw(("version",)) or str(data["version"])
    tasks: dict[str, TaskMeaning] = {}
    for key in TASK_LISTS:
        for task in _tasks(data.get(key), key, "", (key,), data):
            tasks[task.path] = task
    return Meaning(document, top, tasks)


def _tasks(
    listed: Json, scope: str, parent: str, place: Path, definition: Mapping[str, Json]
) -> Iterator[TaskMeaning]:
    if not isinstance(listed, list):
        return
    for index, raw in enumerate(listed):
        if not isinstance(raw, dict):
            continue
        name = raw.get("id")
        known = name if isinstance(name, str) else f"#{index}"
        task = _task(raw, known, scope, parent, (*place, index), definition)
        yield task
        yield from _tasks(
            raw.get(NESTED), f"{task.path}.{NESTED}", task.path, (*task.place, NESTED), definition
        )


def _task(
    raw: dict[str, Json], name: str, scope: str, parent: str, place: Path, definition: Mapping[str, Json]
) -> TaskMeaning:
    own = {key: value for key, value in raw.items() if key != NESTED and key != "id"}
    inherited: dict[str, Path] = {}
    defaults = definition.get("defaults")
    if isinstance(defaults, dict) and _takes_defaults(own):
        for key in _INHERITED:
            if key not in own and defaults.get(key) is not None:
                own[key] = defaults[key]
                inherited[key] = ("defaults", key)
    data = _canonical(own, _task_schema(), "")
    if _takes_defaults(own) and data.get("timeout") == _seconds(words.DEFAULT_TIMEOUT):
        del data["timeout"]
    return TaskMeaning(f"{scope}.{name}", name, scope, parent, place, data, inherited)


def _takes_defaults(task: Mapping[str, Json]) -> bool:
    return task.get("type", "activity") == "activity" and task.get("activity_type") != HUMAN_APPROVAL


def _task_schema() -> Any:
    return workflow_schema()["properties"]["tasks"]["items"]


# --- canonical values -------------------------------------------------------------------------------------------------


def _canonical(value: Json, schema: Any, key: str) -> Any:
    nodes = list(_nodes(schema, value))
    if isinstance(value, dict):
        return {
            name: made
            for name, item in value.items()
            if not _is_default(made := _canonical(item, _inside(nodes, name), name), nodes, name)
        }
    if isinstance(value, list):
        made = [
            _canonical(item, {"allOf": [node["items"] for node in nodes if "items" in node]}, "")
            for item in value
        ]
        if key in _SETS and all(isinstance(item, str) for item in made):
            return sorted(set(made))
        return made
    if isinstance(value, str):
        return _text(value, nodes)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_default(value: Json, nodes: list[Any], name: str) -> bool:
    for node in nodes:
        prop = node.get("properties", {}).get(name)
        if isinstance(prop, dict) and "default" in prop:
            default = _canonical(prop["default"], prop, name)
            if type(default) is type(value) and default == value:
                return True
    return False


def _nodes(schema: Any, value: Json) -> Iterator[Any]:
    """The parts of a schema that speak of this value: references followed, conditions asked."""
    if not isinstance(schema, dict):
        return
    yield schema
    if "$ref" in schema:
        yield from _nodes(resolve(workflow_schema(), schema["$ref"]), value)
    for keyword in ("allOf", "anyOf", "oneOf"):
        for each in schema.get(keyword, ()):
            yield from _nodes(each, value)
    if "if" in schema:
        yield from _nodes(schema.get("then" if _holds(schema["if"], value) else "else"), value)


def _holds(condition: Any, value: Json) -> bool:
    """Whether a condition of our own schema holds: of constants, of required keys, of expressions."""
    if condition.get("type") == "string" or "pattern" in condition:
        return isinstance(value, str) and re.search(condition.get("pattern", ""), value) is not None
    if not isinstance(value, dict) or any(name not in value for name in condition.get("required", ())):
        return False
    return all(
        "const" not in prop or name not in value or value[name] == prop["const"]
        for name, prop in condition.get("properties", {}).items()
    )


def _inside(nodes: list[Any], name: str) -> Any:
    found = [node["properties"][name] for node in nodes if name in node.get("properties", {})]
    if not found:
        found = [
            node["additionalProperties"]
            for node in nodes
            if isinstance(node.get("additionalProperties"), dict)
        ]
    return {"allOf": found}


def _text(value: str, nodes: list[Any]) -> str:
    if "${{" in value:
        return normal_template(value)
    if any(durations.PATTERN in str(node.get("pattern", "")) for node in nodes) and _DURATION.search(value):
        try:
            return _seconds(durations.parse_duration(value))
        except durations.DurationError:
            return value
    return value


def _seconds(number: float) -> str:
    return f"{number:.15g}s"


def in_seconds(value: Json) -> float | None:
    """A canonical duration as a number; None for what is none."""
    try:
        return durations.parse_duration(value) if isinstance(value, str) and "${{" not in value else None
    except durations.DurationError:
        return None


def normal_template(text: str) -> str:
    """A text with expressions, each without the blanks and comments that mean nothing."""
    try:
        parts = split(text)
    except TemplateSyntaxError:
        return text
    return "".join(
        f"${{{{ {_normal_expression(part.src)} }}}}"
        if isinstance(part, Slot)
        else part.replace("${{", "$${{")
        for part in parts
    )


def _normal_expression(src: str) -> str:
    if _RAW_STRING.search(src):  # its backslashes are letters: not worth a second way of reading strings
        return src
    pieces = _TOKENS.split(src)
    # Texts stand apart, so that no blank inside of them is touched.
    joined, texts = [], []
    for between, quoted, _ in zip(pieces[0::3], [*pieces[1::3], None], [*pieces[2::3], None], strict=True):
        joined.append(between)
        joined.append("\0" if quoted is not None else " ")
        if quoted is not None:
            texts.append(quoted)
    bare = _LOOSE.sub("", re.sub(" +", " ", "".join(joined)).strip())
    for each in texts:
        bare = bare.replace("\0", each.replace("\0", ""), 1)
    return bare


def expressions_of(value: Json) -> Iterator[str]:
    """The source of every expression inside of a value."""
    if isinstance(value, str):
        if "${{" in value:
            try:
                yield from (part.src for part in split(value) if isinstance(part, Slot))
            except TemplateSyntaxError:
                return
    elif isinstance(value, dict):
        for item in value.values():
            yield from expressions_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from expressions_of(item)
