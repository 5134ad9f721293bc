"""Activity types and the one registry of them that worker, validator and docs share.

This module is what a package with activity types of its own imports, so it needs nothing but Pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import cleandoc, getdoc
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from engine.activities.context import ActivityContext
from engine.activities.failures import ActivityFailure
from engine.errors import Misconfigured

__all__ = [
    "ActivityConfig",
    "ActivityContext",
    "ActivityFailure",
    "ActivityRegistry",
    "ActivityType",
    "activity_type",
]

GROUP = "pinflow.activities"
_BUILT_IN = "pinflow"
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")

# What every activity type can fail with, because the door raises it.
COMMON_ERRORS = (
    "INVALID_CONFIG",
    "TIMEOUT",
    "NOT_SUCCESSFUL",
    "INVALID_RESULT",
    "SECRET_MISSING",
    "SECRETS_UNAVAILABLE",
)

Run = Callable[[Any, ActivityContext], Awaitable[Any]]
_C = TypeVar("_C", bound=BaseModel)


class ActivityConfig(BaseModel):
    """Base of the built-in config models; a good one for your own: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class ActivityType:
    """A name, a config model, a result type, the errors it can raise, and the function that does it.

    `run` is None for a type that the engine performs itself (`human_approval`).
    """

    name: str
    config: type[BaseModel]
    result: Any
    errors: tuple[str, ...]
    run: Run | None
    description: str = ""
    builtin: bool = False

    def info(self) -> dict[str, Any]:
        """What the validator and the docs need to know, as JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "builtin": self.builtin,
            "config_schema": self.config.model_json_schema(mode="validation"),
            "result_schema": TypeAdapter(self.result).json_schema(mode="serialization"),
            "errors": [*self.errors, *(e for e in COMMON_ERRORS if e not in self.errors)],
        }


def activity_type(
    *,
    name: str,
    config: type[_C],
    result: Any = Any,
    errors: Iterable[str] = (),
    description: str = "",
    builtin: bool = False,
) -> Callable[[Callable[[_C, ActivityContext], Awaitable[Any]]], ActivityType]:
    """Turn `async def run(config, context) -> result` into an activity type.

    `name` is lower-case words joined by `_`, with a prefix and a dot if it is yours (`acme.deploy`). The
    description is the function's docstring if none is given. Point an entry point of the group
    `pinflow.activities` at the result.
    """
    if not _NAME.match(name):
        raise ValueError(f"activity type name {name!r} must match {_NAME.pattern}")

    def wrap(run: Callable[[_C, ActivityContext], Awaitable[Any]]) -> ActivityType:
        return ActivityType(
            name=name,
            config=config,
            result=result,
            errors=tuple(errors),
            run=run,
            description=cleandoc(description) or getdoc(run) or "",
            builtin=builtin,
        )

    return wrap


class ActivityRegistry:
    """All activity types of this process, by name."""

    def __init__(self, types: Iterable[ActivityType]) -> None:
        self._types: dict[str, ActivityType] = {}
        for each in types:
            if each.name in self._types:
                raise Misconfigured(
                    f"two packages offer the activity type {each.name!r}", hint="uninstall one of them"
                )
            self._types[each.name] = each

    @classmethod
    def load(cls) -> ActivityRegistry:
        """Every type that an installed package offers.

        Raises `Misconfigured`, naming the package, if one cannot be loaded or is not an `ActivityType`.
        """
        points = sorted(
            entry_points(group=GROUP), key=lambda p: (_package(p) != _BUILT_IN, _package(p), p.name)
        )
        unique = {(p.name, p.value): p for p in points}  # a package seen twice on sys.path is one package
        return cls(_load(point) for point in unique.values())

    def get(self, name: str) -> ActivityType | None:
        """The type of that name, or None."""
        return self._types.get(name)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._types)

    def __iter__(self) -> Iterator[ActivityType]:
        return iter(self._types.values())


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else ""


def _load(point: EntryPoint) -> ActivityType:
    package = _package(point) or "(unknown)"
    where = f"package {package!r} offers the activity type {point.name!r} as {point.value!r}"
    fix = f"repair or uninstall {package!r}"
    try:
        found = point.load()
    except Exception as error:  # a third party's import can fail in any way
        raise Misconfigured(
            f"{where}, which cannot be loaded: {type(error).__name__}: {error}", hint=fix
        ) from error
    if not isinstance(found, ActivityType):
        raise Misconfigured(f"{where}, which is a {type(found).__name__} and no ActivityType", hint=fix)
    if found.name != point.name:
        raise Misconfigured(f"{where}, but its name is {found.name!r}", hint=fix)
    return found
