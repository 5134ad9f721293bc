"""Seeds that once broke a rule, kept in a file."""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).with_name("cases.txt")


def kept() -> list[int]:
    """All of them."""
    lines = FILE.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def keep(seed: int, why: str) -> None:
    """One more; once."""
    if seed not in kept():
        with FILE.open("a") as file:
            file.write(f"{seed} {why[:120]}\n")
