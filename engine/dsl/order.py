"""The order that `depends_on` gives to the tasks of one scope: cycles, ancestors, and who is sure to have completed.

Sets of tasks are bit masks over their positions, so that 5,000 tasks cost megabytes and milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """What of a task decides about order: `may_skip` by its own `when`, `may_fail` without ending its successors."""

    id: str
    depends_on: tuple[int, ...]
    run_on: str = "success"
    may_skip: bool = False
    may_fail: bool = False


class Order:
    """The tasks of one scope, in the order of the definition. `depends_on` are positions in `nodes`."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.cycles: list[list[int]] = []
        self.sorted: list[int] = []
        self._sort()
        self._ancestors: list[int] = [0] * len(nodes)
        self._certain: list[int] = [0] * len(nodes)
        self._always_judged: list[bool] = [False] * len(nodes)
        for position in self.sorted:
            self._look_back(position)

    def ancestors(self, position: int) -> int:
        """Mask of the tasks that are done, whatever way, when the task is looked at."""
        return self._ancestors[position]

    def certain(self, position: int) -> int:
        """Mask of the tasks that are COMPLETED whenever this one runs."""
        return self._certain[position]

    def certain_at_end(self) -> int:
        """Mask of the tasks that are COMPLETED whenever the run is."""
        mask = 0
        for position, node in enumerate(self.nodes):
            if self._always_judged[position] and not node.may_skip and not node.may_fail:
                mask |= 1 << position
        return mask

    def ids(self, mask: int) -> Iterator[str]:
        """The ids of a mask, in the order of the definition."""
        return (node.id for position, node in enumerate(self.nodes) if mask >> position & 1)

    def _look_back(self, position: int) -> None:
        node = self.nodes[position]
        ancestors = 0
        for before in node.depends_on:
            ancestors |= self._ancestors[before] | 1 << before
        self._ancestors[position] = ancestors
        self._certain[position] = self._completed_before(node)
        self._always_judged[position] = self._is_always_judged(node)

    def _completed_before(self, node: Node) -> int:
        if node.run_on == "success":
            # A dependency that was skipped by its own `when`, or failed and may, was itself free to run.
            mask = 0
            for before in node.depends_on:
                mask |= self._certain[before]
                if not self.nodes[before].may_skip and not self.nodes[before].may_fail:
                    mask |= 1 << before
            return mask
        if node.run_on == "any_success" and node.depends_on:
            mask = -1
            for before in node.depends_on:
                mask &= self._certain[before] | 1 << before
            return mask
        return 0

    def _is_always_judged(self, node: Node) -> bool:
        """Whether the task runs, or skips itself, in every run that ends COMPLETED."""
        before = [self._always_judged[b] for b in node.depends_on]
        if node.run_on == "success":
            return all(before)
        if node.run_on == "any_success":
            return not before or any(
                self._always_judged[b] and not self.nodes[b].may_skip and not self.nodes[b].may_fail
                for b in node.depends_on
            )
        return node.run_on == "always"

    def _sort(self) -> None:
        """Kahn's algorithm; what is left over stands in cycles or behind them."""
        successors: list[list[int]] = [[] for _ in self.nodes]
        missing = [0] * len(self.nodes)
        for position, node in enumerate(self.nodes):
            for before in set(node.depends_on):
                successors[before].append(position)
                missing[position] += 1
        ready = [position for position, count in enumerate(missing) if not count]
        for position in ready:
            self.sorted.append(position)
            for after in successors[position]:
                missing[after] -= 1
                if not missing[after]:
                    ready.append(after)
        left = {position for position, count in enumerate(missing) if count}
        while left:
            cycle = self._walk_back(left)
            self.cycles.append(cycle)
            # Whoever hangs on this cycle is not named again; another cycle is.
            left = self._not_behind(left, cycle, successors)

    def _walk_back(self, left: set[int]) -> list[int]:
        """A cycle among `left`: following dependencies that are left over must come round."""
        at, seen = min(left), {}
        trail: list[int] = []
        while at not in seen:
            seen[at] = len(trail)
            trail.append(at)
            at = next(before for before in self.nodes[at].depends_on if before in left)
        cycle = trail[seen[at] :]
        first = cycle.index(min(cycle))
        return cycle[first:] + cycle[:first]

    @staticmethod
    def _not_behind(left: set[int], cycle: list[int], successors: list[list[int]]) -> set[int]:
        behind, todo = set(cycle), list(cycle)
        while todo:
            for after in successors[todo.pop()]:
                if after in left and after not in behind:
                    behind.add(after)
                    todo.append(after)
        rest = left - behind
        # A cycle upstream of this one keeps its members in `rest`; members whose dependencies all went are free.
        return rest
