"""Compiled definitions with triggers, and a system in one process that fires them."""

from __future__ import annotations

from typing import Any

from engine.dsl.environment import Environment
from engine.dsl.expressions import compile_expression
from engine.dsl.templates import compile_value
from tests.support.registered import compiled_form

FIELDS = ("type", "id", "scheduled_at", "previous_scheduled_at", "headers", "body")
NAMES = {f"trigger.{name}": "dyn" for name in FIELDS} | {"env.limit": "dyn"}


def schedule(id: str = "nightly", cron: str = "0 6 * * *", **fields: Any) -> dict[str, Any]:
    """A compiled schedule."""
    return {"id": id, "type": "schedule", "cron": [cron], **fields}


def webhook(id: str = "pushed", secret: str = "HOOK", **fields: Any) -> dict[str, Any]:
    """A compiled webhook."""
    return {"id": id, "type": "webhook", "secret": secret, **fields}


def triggered(name: str, *triggers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A compiled definition with these triggers; their `when` and `inputs` may hold `${{ ... }}`."""
    environment = Environment(NAMES, {})
    exprs: list[dict[str, Any]] = list(changes.pop("exprs", []))

    def add(src: str, place: object) -> int:
        exprs.append(compile_expression(src, environment).entry())
        return len(exprs) - 1

    made = [
        {
            key: compile_value(value, add) if key in ("when", "inputs") else value
            for key, value in each.items()
        }
        for each in triggers
    ]
    return compiled_form(name, triggers=made, exprs=exprs, env={"limit": 5}) | changes
