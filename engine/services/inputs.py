"""What a caller sends in: checked against the pinned version's own schema, with its defaults filled in."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from engine.core.contracts import Json, Pin
from engine.dsl.expressions import ExpressionError
from engine.dsl.input_defaults import with_defaults
from engine.dsl.json_schemas import compile_schema
from engine.dsl.templates import Renderer
from engine.errors import InputProblem, InvalidInput
from engine.registry.workflow_registry import WorkflowRegistry
from engine.services.awaited import Awaited, awaited_in

_CACHED = 512
_REPORTED = 20
"""Problems told at once: a list of a million wrong items needs no million of lines."""
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a start needs of a compiled definition.

    `size` is its length in bytes, `tasks` the ids of its top-level tasks, `signals` what its tasks wait for.
    """

    size: int
    schema: Json
    validator: Any
    title: Json
    env: Json
    renderer: Renderer
    has_defaults: bool
    tasks: tuple[str, ...]
    signals: tuple[Awaited, ...]

    def checked(self, inputs: dict[str, Json]) -> dict[str, Json]:
        """The inputs with defaults. Raises `InvalidInput` with a JSON pointer (into the request) for each fault."""
        if self.schema is None:
            if inputs:
                raise InvalidInput(
                    "this workflow takes no inputs",
                    [
                        InputProblem(pointer("inputs", name), "no such input")
                        for name in list(inputs)[:_REPORTED]
                    ],
                )
            return inputs
        if self.has_defaults:
            inputs = with_defaults(self.schema, inputs)
        problems = faults(self.validator, inputs, "inputs")
        if problems:
            raise InvalidInput("the inputs do not fit the workflow's schema", problems)
        return inputs

    def require_targets(self, targets: Sequence[str]) -> None:
        """Raise `InvalidInput` if a target is no top-level task."""
        problems = [
            InputProblem(pointer("targets", position), f"no task {name[:80]!r}")
            for position, name in enumerate(targets)
            if name not in self.tasks
        ]
        if problems:
            some = ", ".join(self.tasks[:20]) + (", ..." if len(self.tasks) > 20 else "")
            raise InvalidInput(
                "targets are tasks of the workflow itself",
                problems[:_REPORTED],
                hint=f"there are: {some or 'none'}",
            )

    def titled(self, pin: Pin, inputs: dict[str, Json], trigger: Json = None) -> str:
        """The run's title. What it cannot know before the run is there falls back to the workflow's name."""
        if isinstance(self.title, str):
            return self.title

        def lookup(ref: str) -> Json:
            root, _, name = ref.partition(".")
            known = {"inputs": inputs, "env": self.env} | (
                {"trigger": trigger} if trigger is not None else {}
            )
            return known[root][name] if name else known[root]

        try:
            title = self.renderer.render(self.title, lookup)
        except (ExpressionError, KeyError):
            return pin.workflow
        return title[:1000] if isinstance(title, str) and title else pin.workflow


class Preparations:
    """`Prepared` by compiled digest, the most recently used."""

    def __init__(self, registry: WorkflowRegistry) -> None:
        self._registry = registry
        self._known: OrderedDict[str, Prepared] = OrderedDict()

    async def of(self, digest: str) -> Prepared:
        """What there is to know of the compiled form with this digest."""
        prepared = self._known.get(digest)
        if prepared is not None:
            self._known.move_to_end(digest)
            return prepared
        prepared = self._known[digest] = _prepare(await self._registry.compiled(digest))
        if len(self._known) > _CACHED:
            self._known.popitem(last=False)
        return prepared


@lru_cache(maxsize=256)
def validator_of(schema: str) -> Any:
    """The validator of a JSON Schema (as text), kept for the next time. Raises `SchemaFault`."""
    return compile_schema(json.loads(schema))


def canonical(value: Json, name: str) -> str:
    """JSON text that is the same for equal values. Raises `InvalidInput` for what Postgres cannot keep."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        message = "holds a number that is not finite, half a surrogate pair, or too many levels"
        raise InvalidInput(f"{name} cannot be kept", [InputProblem(pointer(name), message)]) from error
    if _NUL.search(text):
        raise InvalidInput(
            f"{name} cannot be kept", [InputProblem(pointer(name), "holds the character U+0000")]
        )
    return text


def faults(validator: Any, value: Json, *base: str) -> list[InputProblem]:
    """What is wrong with `value`, each with its JSON pointer below `base`; at most a few."""
    problems: list[InputProblem] = []
    for error in validator.iter_errors(value):
        if len(problems) == _REPORTED:
            break
        path = [*base, *error.instance_path]
        missing = getattr(error.kind, "property", None)
        if missing is not None and list(error.schema_path)[-1:] == ["required"]:
            path.append(str(missing).strip('"'))
        problems.append(InputProblem(pointer(*path), error.message[:500]))
    return problems


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _prepare(compiled: Json) -> Prepared:
    schema = compiled["inputs"]
    text = json.dumps(compiled, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Prepared(
        size=len(text.encode()),
        schema=schema,
        validator=None if schema is None else compile_schema(schema),
        title=compiled["title"],
        env=compiled["env"],
        renderer=Renderer(compiled["exprs"]),
        has_defaults='"default"' in json.dumps(schema),
        tasks=tuple(task["id"] for task in compiled["tasks"]),
        signals=tuple(awaited_in(compiled)),
    )
