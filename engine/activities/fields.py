"""Kinds of fields that several config models share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from engine.dsl import durations


def _seconds(value: Any) -> Any:
    return durations.parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[
    float,
    Field(gt=0, le=durations.MAX_SECONDS, strict=True),
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": durations.PATTERN,
            "examples": ["90s", "1h30m", "PT10M"],
        }
    ),
]
"""A length of time as the language writes it (or a number of seconds at run time); seconds once parsed."""
