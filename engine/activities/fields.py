"""Kinds of fields that several config models share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        from engine.dsl.durations import parse_duration

        return parse_duration(value)
    return value


Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "type": "string",
            "format": "duration",
            "examples": ["90s", "1h30m", "PT10M"],
        }
    ),
]
"""A length of time as the language writes it; seconds once parsed."""
