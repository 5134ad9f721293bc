"""JSON as Postgres can keep it.

`jsonb` holds neither U+0000 nor half of a surrogate pair, and JSON from a stranger's server may hold both. One such
character must not keep the end of a run from being recorded (promise P9), so it becomes U+FFFD.
"""

from __future__ import annotations

import json
from typing import Any

_REPLACEMENT = "\ufffd"


def dumps(value: Any) -> str:
    """JSON text that `jsonb` takes. Raises TypeError or ValueError for what is no JSON (NaN among it)."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if "\\u0000" not in text and _encodable(text):
        return text
    return json.dumps(_clean(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def clean_text(text: str) -> str:
    """The same text, as a text column can keep it."""
    text = text.replace("\x00", _REPLACEMENT)
    if _encodable(text):
        return text
    # Two halves that stand side by side become the character that they mean.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
