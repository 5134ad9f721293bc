"""How many may be in flight: the run's own limit, and those of groups inside of it.

What is free to start waits at the gate that it stands in.  A gate offers the first of those that wait in it to the gate
around it, as long as it has room itself; whoever passes the outermost one takes a place at each.  Nothing is reserved
while it waits, so who goes next depends on what waits and what is in flight, and on nothing that happened before.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TypeAlias

Key: TypeAlias = tuple[int, ...]
"""A place in the order of the definition: position, index of the frame, position in its block, …"""


class Ticket:
    """Something that may be in flight: a task, its compensation, a slice. It takes `weight` places while it `holds` them."""

    weight = 1
    waiting = False
    holds = False

    def __init__(self, key: Key, gate: Gate) -> None:
        self.key = key
        self.gate = gate


class Gate:
    """`used` of its `limit` places are taken, by `tickets`."""

    __slots__ = ("_heap", "_offered", "_outer", "_pushed", "limit", "tickets", "used")

    def __init__(self, limit: int, outer: Gate | None = None) -> None:
        self.limit = limit
        self.used = 0
        self.tickets = 0
        self._outer = outer
        self._heap: list[tuple[Key, int, Ticket | Gate]] = []
        self._pushed = 0
        self._offered: Key | None = None

    def push(self, ticket: Ticket) -> None:
        """Let a ticket of this gate wait for its turn."""
        ticket.waiting = True
        self._add(ticket.key, ticket)
        if self._outer is not None:
            self._offer()

    def drop(self, ticket: Ticket) -> None:
        """A ticket of this gate does not wait any more."""
        ticket.waiting = False
        if self._outer is not None:
            self._offer()

    def take(self) -> Ticket | None:
        """Of the outermost gate: whose turn it is, in flight from now on; None if nobody waits or nothing is free."""
        ticket = self._first()
        if ticket is None or self.used + ticket.weight > self.limit:
            return None
        ticket.waiting = False
        ticket.gate.occupy(ticket)
        return ticket

    def occupy(self, ticket: Ticket) -> None:
        """A ticket of this gate takes its places here and at every gate around."""
        ticket.holds = True
        self._change(ticket.weight, 1)

    def free(self, ticket: Ticket) -> None:
        """It gives them back."""
        ticket.holds = False
        self._change(-ticket.weight, -1)

    @property
    def least(self) -> int:
        """The smallest limit of this gate and those around it."""
        return self.limit if self._outer is None else min(self.limit, self._outer.least)

    def _change(self, weight: int, tickets: int) -> None:
        gate: Gate | None = self
        while gate is not None:
            gate.used += weight
            gate.tickets += tickets
            gate = gate._outer
        if self._outer is not None:
            self._offer()

    def _offer(self) -> None:
        """Tell the gates around who would be next, from here outwards."""
        gate = self
        while gate._outer is not None:
            first = gate._first()
            offered = None if first is None or gate.used + first.weight > gate.limit else first.key
            if offered != gate._offered:
                gate._offered = offered
                if offered is not None:
                    gate._outer._add(offered, gate)
            gate = gate._outer

    def _first(self) -> Ticket | None:
        heap = self._heap
        while heap:
            key, _, item = heap[0]
            if isinstance(item, Ticket):
                if item.waiting:
                    return item
            elif item._offered == key:
                return item._first()
            heappop(heap)
        return None

    def _add(self, key: Key, item: Ticket | Gate) -> None:
        # The number only keeps two entries of one key from being compared further.
        self._pushed += 1
        heappush(self._heap, (key, self._pushed, item))
