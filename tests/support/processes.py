"""Looking at processes that are not our children."""

from __future__ import annotations

from pathlib import Path


def runs(pid: int) -> bool:
    """Whether the process lives; an orphan that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
