"""What a caller sends in, as text that can be compared and kept."""

from __future__ import annotations

import json
import re

from engine.core.contracts import Json
from engine.errors import InputProblem, InvalidInput
from engine.registry.inputs import Preparations as Preparations
from engine.registry.inputs import faults as faults
from engine.registry.inputs import pointer as pointer

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


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
