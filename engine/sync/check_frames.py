"""How parent and child of the check frame what they send: two big-endian 32-bit lengths before two pieces of bytes."""

from __future__ import annotations

import struct

LENGTHS = struct.Struct(">II")
