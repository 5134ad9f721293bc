"""`check`: the one door to the language. `pinflow validate`, the hooks and the sync daemon all go through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.dsl import loader
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.validator import WorkflowValidator
from engine.errors import Problem


@dataclass(frozen=True, slots=True)
class Checked:
    """What there is to say of one file.

    `definition` is its data if it could be read at all; `compiled` stands only if there are no problems.
    """

    definition: dict[str, Any] | None
    compiled: dict[str, Any] | None
    problems: list[Problem]

    @property
    def name(self) -> str:
        """The workflow's name, "" if it has no usable one."""
        name = self.definition.get("name") if self.definition else None
        return name if isinstance(name, str) else ""


def check(text: bytes, file: str, types: ActivityTypes) -> Checked:
    """Everything that can be known of a definition from its text. Never raises for what the text says.

    `file` is how problems name the file.
    """
    document = loader.load(text, file)
    if isinstance(document, list):
        return Checked(None, None, document)
    problems, compiled = WorkflowValidator(types).validate(document)
    definition = document.data if isinstance(document.data, dict) else None
    return Checked(definition, compiled, problems)
