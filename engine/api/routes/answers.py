"""Answers that skip the model, for the paths that are called most. A test holds them equal to their models."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from starlette.responses import Response

from engine.services.starts import rfc3339


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as JSON; times become RFC 3339."""
    content = json.dumps(value, default=_time, ensure_ascii=False, separators=(",", ":"))
    return Response(content.encode(errors="replace"), status, headers, "application/json")


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    raise TypeError(f"{type(value).__name__} in an answer")
