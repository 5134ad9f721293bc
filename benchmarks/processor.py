"""What the kernel says of processes: who descends from whom, and what each has cost so far."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
            except OSError:  # it has ended meanwhile
                continue
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def parts(pids: Iterable[int]) -> dict[str, list[int]]:
    """Processes by the program that they run: Temporal's, Postgres', and Python, which is everything else here."""
    found: dict[str, list[int]] = {"temporal": [], "postgres": [], "python": []}
    for pid in pids:
        try:
            program = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
        except OSError:  # it has ended meanwhile
            continue
        found[next((name for name in found if name.encode() in program), "python")].append(pid)
    return found


def spent(pids: Iterable[int]) -> float:
    """Seconds of processor time so far; a process that has ended counts no more."""
    ticks = 0
    for pid in pids:
        try:
            ticks += sum(map(int, _stat(pid)[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def spent_by_all() -> float:
    """Seconds of processor time of this process and of all that descend from it, also of those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent(family(os.getpid())) + ended.ru_utime + ended.ru_stime


def proportional(pid: int) -> int:
    """Bytes of memory, a page that several share counted by its share; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; the second may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
