"""Addresses of tasks: `build`, `rollout[3].deploy`, `healthy[0].probe`."""

from __future__ import annotations

from typing import Final

MOST_DIGITS: Final = 10
"""More than any index has."""


def static_path(address: str) -> str:
    """An address without its indices: where the task stands in the definition."""
    return ".".join(part.partition("[")[0] for part in address.split("."))


def index_in(brackets: str) -> int:
    """The index in `3]`, what follows the bracket of an address. 0 if there is none, or nothing that could be one.

    Addresses come from outside as well: `²` is a digit to Python and no number, and a number of 5,000 digits too long.
    """
    digits = brackets.removesuffix("]")
    return int(digits) if digits.isdecimal() and len(digits) < MOST_DIGITS else 0
