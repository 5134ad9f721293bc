"""Ids that are worked out, not drawn: the same at every replay and in every process."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from engine.core.contracts import Json

# The URL namespace of RFC 9562; the `uuid` module itself is kept out of deterministic rooms.
_NAMESPACE: Final = bytes.fromhex("6ba7b8119dad11d180b400c04fd430c8")


def named_uuid(name: str) -> str:
    """UUIDv5 (URL namespace) of `name`."""
    digest = bytearray(hashlib.sha1(_NAMESPACE + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x50
    digest[8] = (digest[8] & 0x3F) | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def child_id(execution_id: str, address: str, attempt: int) -> str:
    """The id of the run that is the `attempt`-th child of a task: each attempt is a run of its own."""
    return named_uuid(f"{execution_id}/{address}/{attempt}")


def callback_token(key: str, address: str) -> str:
    """What proves that a caller was given the address of a task's callback."""
    return hmac.new(key.encode(), address.encode(), hashlib.sha256).hexdigest()


def callback_url(callback: Mapping[str, Json], execution_id: str, address: str) -> str:
    """Where a task can be called back; known before the task starts. `callback` is `RunStart.callback`."""
    token = callback_token(callback["key"], address)
    return f"{callback['base']}/callbacks/{execution_id}/{address}?token={token}"


def childs_key(key: str, child: str) -> str:
    """The key of a child run's callbacks: as unguessable as its parent's, and of no use for any other run."""
    return callback_token(key, child)
