"""The shape of a definition against the generated JSON Schema. What is wrong is put into words in `explaining`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import Any

from engine.dsl import words
from engine.dsl.json_schemas import Schema, compile_schema
from engine.dsl.loader import Document, Path
from engine.errors import Problem

SCHEMA_FILE = __file__.removesuffix("structure.py") + "workflow.schema.json"
"""The exported JSON Schema: package data beside this module."""
UNKNOWN_TYPE = "?"
"""Type of a task in checked data whose own type is not of the language."""


def check_structure(document: Document) -> tuple[list[Problem], Any]:
    """The problems of the document's shape, and its data without what is wrong in it.

    With more problems than are told the data is None: it is not known what else is wrong in it.
    """
    if _validator().is_valid(document.data):  # several times faster than to ask for errors
        return [], document.data
    from engine.dsl.explaining import explain  # what is right needs none of it

    # Some more errors than problems are told: several may come of one fault.
    errors = list(islice(_validator().iter_errors(document.data), 3 * words.MAX_PROBLEMS + 1))
    problems, bad = explain(document, errors, workflow_schema(), ())
    if len(errors) > 3 * words.MAX_PROBLEMS or len(problems) > words.MAX_PROBLEMS:
        return problems, None
    return problems, _without_unknown_tasks(pruned(document.data, bad), bad)


def _without_unknown_tasks(data: Any, bad: set[Path]) -> Any:
    """Of a task whose type is wrong nothing else was checked: only its id and its place in the order are kept."""
    for path in bad:
        if path[-1:] == ("type",) and is_task(path[:-1]):
            holder, index = value_at(data, path[:-2]), path[-2]
            task = holder[index] if isinstance(holder, list) and isinstance(index, int) else None
            if isinstance(task, dict):
                listed = task.get("depends_on")
                before = (
                    [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
                )
                holder[index] = {"id": task.get("id"), "type": UNKNOWN_TYPE, "depends_on": before}
    return data


def is_task(path: Path) -> bool:
    """Whether a task stands at the path: an item of a list of the workflow, or of the `tasks` of a task."""
    return (
        len(path) >= 2
        and len(path) % 2 == 0
        and path[0] in ("tasks", "on_failure", "finally")
        and all(key == "tasks" for key in path[2::2])
        and all(isinstance(index, int) for index in path[1::2])
    )


@cache
def workflow_schema() -> Schema:
    """The JSON Schema of a definition, as it is exported."""
    with open(SCHEMA_FILE, encoding="utf-8") as file:
        schema: Schema = json.load(file)
    return schema


@cache
def _validator() -> Any:
    return compile_schema(workflow_schema())


def pruned(data: Any, bad: set[Path]) -> Any:
    """A copy of `data` without the values at the paths `bad`; an item of a list becomes None, so that indices stay."""
    if () in bad:
        return {}
    by_first: dict[str | int, set[Path]] = {}
    for path in bad:
        by_first.setdefault(path[0], set()).add(path[1:])
    if isinstance(data, dict):
        return {
            key: pruned(value, by_first.get(key, set()))
            for key, value in data.items()
            if () not in by_first.get(key, ())
        }
    if isinstance(data, list):
        return [
            None if () in by_first.get(index, ()) else pruned(value, by_first.get(index, set()))
            for index, value in enumerate(data)
        ]
    return data


def closest(word: str, known: list[str]) -> str:
    """A hint that names the known word most like `word`; "" if none is."""
    import difflib  # only what is wrong needs it

    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word[:100].lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean `{by_lower[near[0]]}`?" if near else ""


def value_at(root: Any, path: Sequence[str | int]) -> Any:
    """What stands at a path, {} if nothing does."""
    found = root
    for part in path:
        if (isinstance(found, dict) and part in found) or (isinstance(found, list) and isinstance(part, int)):
            found = found[part]  # type: ignore[index]
        else:
            return {}
    return found
