"""What the validator knows of activity types, without importing a single one of the built-in ones.

The built-in types' schemas are generated into `builtin_activity_types.json` beside this module (a test
holds it equal to the types themselves).  Other names are looked up, at first use, through the
entry-point group `pinflow.activities`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from engine.dsl import json_schemas
from engine.dsl.opening import opened
from engine.errors import Misconfigured

GROUP = "pinflow.activities"
BUILTIN_FILE = __file__.removesuffix("activity_types.py") + "builtin_activity_types.json"


@dataclass(frozen=True)
class ActivityTypeInfo:
    """Name, schemas and errors of one activity type.

    `config_schema` is what the type's config model says; `result_schema` describes what the task gives.
    """

    name: str
    config_schema: dict[str, Any]
    result_schema: Any
    errors: tuple[str, ...] = ()
    builtin: bool = False
    description: str = ""

    @cached_property
    def open_config_schema(self) -> dict[str, Any]:
        """`config_schema` with an expression admitted wherever a value stands."""
        return opened(self.config_schema)

    @cached_property
    def config_validator(self) -> Any:
        """A JSON Schema validator for a config that may hold expressions."""
        return json_schemas.compile_schema(self.open_config_schema)

    @property
    def result_fields(self) -> tuple[str, ...] | None:
        """Names of the result's fields if they are all known."""
        schema = self.result_schema
        if isinstance(schema, dict) and schema.get("type") == "object" and schema.get("properties"):
            return tuple(schema["properties"]) if not schema.get("additionalProperties") else None
        return None


class ActivityTypes:
    """Activity types by name: the given ones, and those that installed packages offer."""

    def __init__(self, known: Iterable[ActivityTypeInfo], *, entry_points: bool = True) -> None:
        self._known: dict[str, ActivityTypeInfo | None] = {info.name: info for info in known}
        self._entry_points = entry_points

    @classmethod
    def default(cls) -> ActivityTypes:
        """The built-in types and whatever is installed here."""
        return cls(builtin_types())

    def get(self, name: str) -> ActivityTypeInfo | None:
        """The type of that name, or None.

        Raises Misconfigured if the package that offers it cannot be loaded.
        """
        if name not in self._known:
            self._known[name] = _from_entry_point(name) if self._entry_points else None
        return self._known[name]

    def names(self) -> list[str]:
        """All names there are, sorted; for hints."""
        names = {name for name, info in self._known.items() if info}
        if self._entry_points:
            from importlib.metadata import entry_points

            names.update(point.name for point in entry_points(group=GROUP))
        return sorted(names)


@cache
def builtin_types() -> tuple[ActivityTypeInfo, ...]:
    """The activity types that come with Pinflow."""
    with open(BUILTIN_FILE, encoding="utf-8") as file:
        return tuple(from_json(each) for each in json.load(file))


def from_json(info: Mapping[str, Any]) -> ActivityTypeInfo:
    """From the JSON form, which is `ActivityType.info()` of the activities' own registry."""
    return ActivityTypeInfo(
        name=info["name"],
        config_schema=info["config_schema"],
        result_schema=info["result_schema"],
        errors=tuple(info["errors"]),
        builtin=info["builtin"],
        description=info["description"],
    )


def _from_entry_point(name: str) -> ActivityTypeInfo | None:
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        if point.name == name:
            try:
                return from_json(point.load().info())
            except Exception as error:  # a third party's import can fail in any way
                raise Misconfigured(
                    f"activity type `{name}` ({point.value}) cannot be loaded: {type(error).__name__}: {error}",
                    hint="repair or uninstall the package that offers it",
                ) from error
    return None
