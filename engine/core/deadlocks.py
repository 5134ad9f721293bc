"""Who waits for whom in concurrency groups, and whether any of them can go on for ever unserved.

A slot is given back when all that happens under it is over: the whole run for a run's own slot, the task with what
stands in it (children too) for a task's. So whoever waits keeps every slot above it from being given back. The rest is
the usual reduction: let everybody go on who can, again and again; who is left over waits for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A slot that is held or waited for. `line` is its own run and address, then those of the tasks that its run and
    that one's ancestors are the children of. The order of `position` is that of the queue."""

    position: int
    group: str
    limit: int
    held: bool
    line: tuple[tuple[str, str], ...]


def within(address: str, outer: str) -> bool:
    """Whether a task stands in another one, or is it; "" is the whole run."""
    return not outer or address == outer or address.startswith((f"{outer}.", f"{outer}["))


def guards(holder: Place, waiter: Place) -> bool:
    """Whether the slot cannot be given back before the waiter has gone on."""
    run, task = holder.line[0]
    return holder.position != waiter.position and any(
        run == of and within(address, task) for of, address in waiter.line
    )


def stuck(places: Iterable[Place]) -> set[int]:
    """The positions of those that can never be served."""
    every = sorted(places, key=lambda place: place.position)
    held = [place for place in every if place.held]
    waiting = [place for place in every if not place.held]
    while True:
        kept = [holder for holder in held if any(guards(holder, waiter) for waiter in waiting)]
        used = Counter(holder.group for holder in kept)
        behind: set[str] = set()
        served: list[Place] = []
        for waiter in waiting:
            if waiter.group not in behind and used[waiter.group] < waiter.limit:
                used[waiter.group] += 1
                served.append(waiter)
            else:
                behind.add(waiter.group)
        if len(kept) == len(held) and not served:
            return {waiter.position for waiter in waiting}
        positions = {place.position for place in served}
        held = kept + served
        waiting = [waiter for waiter in waiting if waiter.position not in positions]
