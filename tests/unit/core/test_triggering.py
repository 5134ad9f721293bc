"""What a trigger makes of the moment at which it fires."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.triggering import inputs_of, trigger_of
from engine.core.values import UNFORESEEN
from engine.dsl.environment import Environment
from engine.dsl.expressions import compile_expression

ENV = Environment(
    {"trigger.body": {}, "trigger.id": "string"}, {"env": {"type": "object", "properties": {"x": {}}}}
)


def compiled(when: str = "", **inputs: str) -> dict[str, Any]:
    sources = [*inputs.values(), *([when] if when else [])]
    exprs = [compile_expression(src, ENV).entry() for src in sources]
    at = {src: {"$expr": index} for index, src in enumerate(sources)}
    trigger = {"id": "t", "type": "webhook", "inputs": {name: at[src] for name, src in inputs.items()}}
    return {"exprs": exprs, "env": {"x": 1}, "triggers": [trigger | ({"when": at[when]} if when else {})]}


def fire(definition: dict[str, Any], body: Any) -> Any:
    trigger = trigger_of(definition, "t")
    assert trigger is not None
    return inputs_of(definition, trigger, {"type": "webhook", "id": "t", "body": body})


def test_inputs_are_made_from_what_was_sent_and_from_constants() -> None:
    assert fire(compiled(repo="trigger.body.repo", x="env.x"), {"repo": "web"}) == {"repo": "web", "x": 1}


def test_a_when_that_is_false_starts_nothing() -> None:
    definition = compiled("trigger.body.ref == 'main'", id="trigger.id")
    assert fire(definition, {"ref": "dev"}) is None
    assert fire(definition, {"ref": "main"}) == {"id": "t"}


@pytest.mark.parametrize("when", ["trigger.body.missing", "trigger.body.ref"])
def test_a_when_that_is_no_boolean_is_an_error(when: str) -> None:
    with pytest.raises(UNFORESEEN):
        fire(compiled(when), {"ref": "main"})


def test_an_unknown_trigger_is_none() -> None:
    assert trigger_of(compiled(), "other") is None
    assert trigger_of({"exprs": []}, "t") is None
