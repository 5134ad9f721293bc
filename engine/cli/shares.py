"""Work on many items by all processors: forked children take shares of it, and say what came out on a pipe.

For pure work before any thread has been started: a fork copies what is loaded, and costs a millisecond.  A child that
ends before it has said all changes nothing but the time: what it left out is done here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

_T = TypeVar("_T")

Json: TypeAlias = Any

WORTH_A_CHILD = 100
"""Items of one share, below which a child costs more than it saves."""


def each(items: Sequence[_T], work: Callable[[_T], Json], *, processors: int | None = None) -> list[Json]:
    """What `work` says of each item, in their order; it says JSON. Whatever it raises here, `each` raises."""
    count = min(processors or _processors(), len(items) // WORTH_A_CHILD)
    if count < 2:
        return [work(item) for item in items]
    sys.stdout.flush()  # or a child would have a copy of it
    children = [_fork(items[share::count], work) for share in range(1, count)]
    said: list[Json] = [None] * len(items)
    said[0::count] = [work(item) for item in items[0::count]]
    for share, (pid, pipe) in enumerate(children, start=1):
        with os.fdopen(pipe, "rb") as answers:
            found = [json.loads(line) for line in answers.read().split(b"\n")[:-1]]
        os.waitpid(pid, 0)
        rest = items[share::count][len(found) :]
        said[share::count] = [*found, *(work(item) for item in rest)]
    return said


def _processors() -> int:
    # Elsewhere than on Linux a forked process may not use the system's own libraries.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def _fork(items: Sequence[_T], work: Callable[[_T], Json]) -> tuple[int, int]:
    """A child that works on the items; its id, and the end of the pipe from which its answers come, a line each."""
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, out
    try:
        os.close(out)
        with os.fdopen(into, "wb") as answers:
            for item in items:
                answers.write(json.dumps(work(item)).encode("ascii") + b"\n")
    finally:
        # Not by way of the parent's own clean-up; and what was raised, the parent will meet by itself.
        os._exit(0)
