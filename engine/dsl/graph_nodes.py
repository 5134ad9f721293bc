"""What a picture shows of a definition's tasks and triggers, from the definition or from its compiled form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CLUSTERS = (
    ("triggers", "triggers: what starts it by itself"),
    ("tasks", ""),
    ("on_failure", "on_failure: if the run failed or timed out"),
    ("finally", "finally: at the end, always"),
)
STATUSES = ("PENDING", "RUNNING", "WAITING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED")
MAX_LABEL = 34
# What XML 1.0 cannot hold, however it is escaped.
NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Node:
    """One box: a task, with those inside of it, or a trigger. `path` is its static path, such as `rollout.deploy`."""

    path: str
    id: str
    name: str
    kind: str
    """The type as it is said to people: `map`, `http_request`, `workflow smoke-tests`."""
    shape: str
    """The type alone, which decides how it is drawn."""
    status: str
    badges: tuple[tuple[str, str], ...]
    """Short words, and what they stand for."""
    run_on: str
    depends_on: tuple[str, ...]
    """Paths of tasks of the same list."""
    inside: tuple[Node, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The text in the box."""
        second = self.kind if self.name == self.id else f"{self.id} · {self.kind}"
        return (cut(self.name), cut(second), *([self.status] if self.status else []))


def nodes_of(definition: Mapping[str, Any], key: str, statuses: Mapping[str, str] | None) -> list[Node]:
    """The nodes of one list of the definition; `statuses` by static path."""
    if key == "triggers":
        return [_trigger(each, definition) for each in _with_ids(definition.get("triggers"))]
    return _nodes(definition.get(key), "", definition, statuses)


def _nodes(
    tasks: Any, prefix: str, definition: Mapping[str, Any], statuses: Mapping[str, str] | None
) -> list[Node]:
    known = {task["id"] for task in _with_ids(tasks)}
    return [_task(task, prefix, known, definition, statuses) for task in _with_ids(tasks)]


def _with_ids(listed: Any) -> list[Mapping[str, Any]]:
    return [t for t in listed if isinstance(t, Mapping) and t.get("id")] if isinstance(listed, list) else []


def _task(
    task: Mapping[str, Any],
    prefix: str,
    known: set[str],
    definition: Mapping[str, Any],
    statuses: Mapping[str, str] | None,
) -> Node:
    kind = str(task.get("type") or "activity")
    run_on = str(task.get("run_on") or "success")
    path = f"{prefix}{task['id']}"
    composite = kind in ("map", "loop", "group")
    return Node(
        path=path,
        id=str(task["id"]),
        name=str(task.get("name") or task["id"]),
        kind=_kind(task, kind, definition),
        shape=kind,
        status="" if statuses is None else statuses.get(path, "PENDING"),
        badges=tuple(_badges(task, kind, run_on, definition)),
        run_on=run_on if run_on in ("any_success", "failure", "always") else "success",
        depends_on=tuple(f"{prefix}{d}" for d in task.get("depends_on") or () if d in known),
        inside=tuple(_nodes(task.get("tasks"), f"{path}.", definition, statuses)) if composite else (),
    )


def _kind(task: Mapping[str, Any], kind: str, definition: Mapping[str, Any]) -> str:
    if kind == "activity":
        return str(task.get("activity_type") or kind)
    if kind == "workflow":
        listed = task.get("one_of")
        named = " or ".join(map(str, listed)) if listed else written(task.get("workflow"), definition)
        return f"workflow {named}"
    if kind == "signal":
        return f"signal {task.get('signal') or ''}".strip()
    if kind == "end":
        return f"end: {task.get('status') or 'COMPLETED'}"
    return kind


def _badges(
    task: Mapping[str, Any], kind: str, run_on: str, definition: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    if run_on != "success":
        words = {"failure": "on failure", "always": "on any end", "any_success": "on any success"}
        yield words.get(run_on, run_on), f"run_on: {run_on}"
    if task.get("when") is not None:
        yield "when", f"when: {written(task['when'], definition)}"
    attempts = (task.get("retry") or {}).get("max_attempts")
    if isinstance(attempts, int) and attempts > 1:
        yield f"{attempts} attempts", f"at most {attempts} attempts"
    if task.get("continue_on_failure"):
        yield "may fail", "continue_on_failure: the run goes on if this fails"
    if kind == "map":
        yield from _of_a_map(task, definition)
    elif kind == "loop":
        yield "until", f"until: {written(task.get('until'), definition)}"
        yield f"{task.get('max_iterations')} times at most", f"max_iterations: {task.get('max_iterations')}"
    elif kind == "workflow" and (task.get("ref") or "same") != "same":
        yield cut(f"at {task['ref']}"), f"ref: {task['ref']}"
    if isinstance(task.get("cache"), Mapping):
        yield "cached", f"cache: {written(task['cache'].get('key'), definition)}"
    if isinstance(task.get("concurrency"), Mapping):
        group, limit = (
            written(task["concurrency"].get("group"), definition),
            task["concurrency"].get("limit") or 1,
        )
        yield f"{limit} of a group", f"concurrency: {limit} at once of the group {group}"
    if isinstance(task.get("compensate"), Mapping):
        yield "undone", f"compensate: {task['compensate'].get('activity_type')}"


def _of_a_map(task: Mapping[str, Any], definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    name = task.get("as") or "item"
    items = task.get("items")
    listed = f"{len(items)} items" if isinstance(items, list) else written(items, definition)
    yield cut(f"each {name}"), f"for each {name} of {listed}"
    if task.get("max_concurrency"):
        yield f"{task['max_concurrency']} at once", f"max_concurrency: {task['max_concurrency']}"
    tolerated = task.get("tolerated_failures")
    if isinstance(tolerated, Mapping):
        tolerated = f"{tolerated['percent']}%" if "percent" in tolerated else tolerated.get("count")
    if tolerated:
        yield f"{tolerated} may fail", f"tolerated_failures: {tolerated}"


def _trigger(trigger: Mapping[str, Any], definition: Mapping[str, Any]) -> Node:
    kind = str(trigger.get("type") or "")
    badges = []
    if trigger.get("when") is not None:
        badges.append(("when", f"when: {written(trigger['when'], definition)}"))
    if kind == "schedule":
        cron = trigger.get("cron") or []
        said = ", ".join(map(str, cron)) if isinstance(cron, list) else str(cron)
        said = f"{said} {trigger.get('timezone') or 'UTC'}"
        badges.append((cut(said), f"schedule: {said}"))
    name = str(trigger["id"])
    return Node(f"trigger.{name}", name, name, kind, "trigger", "", tuple(badges), "success", ())


def written(value: Any, definition: Mapping[str, Any]) -> str:
    """A value's text as the author wrote it, without the braces; from the definition or the compiled form."""
    rows = definition.get("exprs") or []
    if isinstance(value, Mapping) and "$expr" in value:
        return _source(value["$expr"], rows)
    if isinstance(value, Mapping) and "$text" in value:
        return "".join(p if isinstance(p, str) else "${{ " + _source(p, rows) + " }}" for p in value["$text"])
    text = str(value).strip()
    if isinstance(value, bool):
        return text.lower()
    return text[3:-2].strip() if text.startswith("${{") and text.endswith("}}") else text


def _source(row: Any, rows: Any) -> str:
    return str(rows[row]["src"]) if isinstance(row, int) and 0 <= row < len(rows) else ""


def tooltip(node: Node) -> str:
    """All that is known of a node, line by line."""
    return "\n".join(
        [
            node.name,
            f"{node.path} ({node.kind})",
            *([node.status] if node.status else []),
            *(b for _, b in node.badges),
        ]
    )


def cut(text: str) -> str:
    """One line that fits into a box."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_LABEL else line[: MAX_LABEL - 1] + "…"


def all_of(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes and those inside of them."""
    for node in nodes:
        yield node
        yield from all_of(node.inside)
