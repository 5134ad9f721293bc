"""The URL at which somebody outside answers for a task, before or after the task begins to wait."""

from __future__ import annotations

import hmac

from engine.core.contracts import Json


def token(key: str, address: str) -> str:
    """What lets its holder answer for the task, once. `key` is the run's own and leaves it in no other way."""
    return hmac.new(key.encode(), address.encode(), "sha256").hexdigest()


def url(callback: Json, execution_id: str, address: str) -> str:
    """Where to POST the payload of the signal that the task waits for; "" for a run that takes no callbacks."""
    if not callback:
        return ""
    path = address.replace("[", "%5B").replace(
        "]", "%5D"
    )  # all that an address has besides letters, digits, _ and .
    return f"{callback['base']}/callbacks/{execution_id}/{path}?token={token(callback['key'], address)}"
