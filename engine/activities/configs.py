"""A task's resolved config, checked against its type's model at the last moment: expressions could give anything."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engine.activities.failures import ActivityFailure

_M = TypeVar("_M", bound=BaseModel)


def parse_config(model: type[_M], config: Any) -> _M:
    """The config as its model. Raises `ActivityFailure` INVALID_CONFIG that names each field, never its value."""
    try:
        return model.model_validate(config)
    except ValidationError as error:
        problems = [
            _problem(item["loc"], item["msg"])
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise ActivityFailure("INVALID_CONFIG", "; ".join(problems[:10]), retryable=False) from None


def _problem(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(["config", *(str(part) for part in location)])
    return f"{where}: {message.removeprefix('Value error, ')}"
