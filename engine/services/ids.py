"""Ids that sort by the time at which they were made."""

from __future__ import annotations

import os
import time
import uuid


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then chance. Made before the transaction that uses it, so that a
    commit of unknown outcome can be looked up."""
    value = int.from_bytes((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10), "big")
    value &= ~(0xF000 << 64) & ~(0xC000 << 48)
    return str(uuid.UUID(int=value | 0x7000 << 64 | 0x8000 << 48))
