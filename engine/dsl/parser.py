"""From YAML text to the types of the language, for whoever wants objects rather than data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.errors import InvalidDefinition

if TYPE_CHECKING:
    from engine.dsl.schema import WorkflowDefinition


class WorkflowParser:
    """Reads definitions; `types` are the activity types that they may use."""

    def __init__(self, types: ActivityTypes) -> None:
        self._types = types

    def parse_yaml(self, text: bytes, file: str = "") -> WorkflowDefinition:
        """The definition in `text`. Raises InvalidDefinition with every problem, located in `file`."""
        # Here, because checking alone needs no Pydantic and is far lighter without.
        from engine.dsl.schema import WorkflowDefinition

        checked = check(text, file, self._types)
        if checked.problems:
            raise InvalidDefinition(checked.problems)
        return WorkflowDefinition.model_validate(checked.definition)
