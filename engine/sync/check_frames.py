"""How parent and child of the check frame what they send, in big-endian numbers before the bytes that they count."""

from __future__ import annotations

import struct

QUESTION = struct.Struct(">cII?")
"""What is asked, the lengths of a path and of a text, and whether the answer, with all before it, is waited for: it may be
kept else."""
DEFINITION = b"d"
MODULE = b"m"
ANSWER = struct.Struct(">II")
"""The lengths of a head and of a compiled definition."""
