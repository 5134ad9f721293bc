"""The one pass over a loaded definition: its shape, then its meaning where the shape is right, then its compiled form.

What is looked at stands in the `check_…` modules, expressions in the compiler.
"""

from __future__ import annotations

from typing import Any

from engine.dsl import bounds, codes, words
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.check_inputs import check_inputs
from engine.dsl.check_order import check_ids, check_order
from engine.dsl.check_tasks import TaskChecks
from engine.dsl.compiler import Compiler, TooManyExpressions
from engine.dsl.faults import Faults, TooMany, name_hint
from engine.dsl.loader import Document
from engine.dsl.outline import Outline
from engine.dsl.structure import check_structure
from engine.errors import Misconfigured, Problem


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
            compiled = _check_meaning(data, self._types, Faults(document, problems))
        except (TooMany, TooManyExpressions):
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


def _keep_version_as_written(document: Document) -> None:
    """`version: 1.10` is the label "1.10", not the number 1.1."""
    data = document.data
    if isinstance(data, dict) and type(data.get("version")) in (int, float):
        data["version"] = document.raw(("version",))


def _check_meaning(data: dict[str, Any], types: ActivityTypes, faults: Faults) -> dict[str, Any]:
    """Report what is wrong; the compiled form, of use only if nothing is."""
    broken_types: dict[str, str] = {}
    outline = Outline(data, _Forgiving(types, broken_types))
    env = data.get("env")
    faults.names("env", env if isinstance(env, dict) else (), ("env",))
    faults.no_expressions(env, ("env",))
    inputs_are_usable = check_inputs(data.get("inputs"), faults)
    if "secrets" in data:
        _check_secrets(data["secrets"], faults)
    if "triggers" in data:
        # Here, since few definitions have any.
        from engine.dsl.check_triggers import check_triggers

        check_triggers(data["triggers"], data.get("inputs"), inputs_are_usable, faults)
    check_ids(outline, faults)
    for scope in outline.all_scopes:
        check_order(scope, outline, faults)
    name = data.get("name")
    checks = TaskChecks(name if isinstance(name, str) else "", outline, types, broken_types, faults)
    for task in outline.tasks:
        checks.check(task)
    top = [task for scope in outline.scopes for task in scope.tasks]
    for message, task, hint in bounds.excess(outline.tasks, top):
        faults.report(codes.BOUNDS, message, task.path, hint=hint)
    return Compiler(data, outline, faults.report).compile()


def _check_secrets(names: Any, faults: Faults) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if not isinstance(name, str):
            continue
        path = ("secrets", index)
        if name in words.RESERVED_IDS:
            faults.report(codes.NAME, f"`{name}` cannot be the name of a secret", path, hint=name_hint(name))
        elif name in seen:
            faults.report(codes.SECRET, f"`{name}` is named twice", path)
        seen.add(name)


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
