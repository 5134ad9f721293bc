"""Which histories every run of the tests plays."""

from __future__ import annotations

from pathlib import Path

SLICE = range(25)
BROKEN = Path(__file__).with_name("broken_once.txt")


def broken_once() -> list[int]:
    """Seeds that once broke a rule."""
    return [int(line) for line in BROKEN.read_text("utf-8").split()] if BROKEN.exists() else []
