"""How parent and child of the check frame what they send: big-endian 32-bit lengths before two pieces of bytes.

A question begins with a byte that says what is asked.
"""

from __future__ import annotations

import struct

QUESTION = struct.Struct(">cII")
LENGTHS = struct.Struct(">II")
DEFINITION = b"d"
MODULE = b"m"
