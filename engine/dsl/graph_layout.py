"""A layered layout of a small directed graph, left to right: longest path, dummies, barycentre sweeps.

Pure geometry: boxes with a size go in, places and routes come out, the same for the same input.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SWEEPS = 4
MAX_DUMMIES = 20_000
"""Bends of long edges; a graph that needs more gets its long edges drawn straight."""
COLUMN_GAP = 56.0
ROW_GAP = 18.0
_LANE = 10.0
"""Height of an edge that passes through a column."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where a node stands: its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """The height at which edges arrive and leave."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of the nodes, and for each edge the points that it goes through."""

    boxes: dict[str, Box]
    routes: dict[tuple[str, str], list[tuple[float, float]]]
    width: float
    height: float


@dataclass(slots=True)
class _Cell:
    """A node, or a dummy where an edge passes a column."""

    column: int
    width: float
    height: float
    y: float = 0.0
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


def layout(sizes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]]) -> Layout:
    """Place nodes of `sizes` (width, height) so that every edge goes from left to right.

    Edges to unknown nodes are left out; the edges that close a cycle are drawn, and go backwards.
    """
    names = list(sizes)
    known = [(a, b) for a, b in dict.fromkeys(edges) if a in sizes and b in sizes and a != b]
    columns = _columns(names, known)
    cells = [_Cell(columns[name], *sizes[name]) for name in names]
    chains = _chains(names, known, columns, cells)
    rows = _rows(cells)
    for sweep in range(SWEEPS):
        _sort(rows, cells, forward=sweep % 2 == 0)
    _place_rows(rows, cells)
    lefts, widths = _place_columns(rows, cells)
    return _drawn(names, chains, cells, lefts, widths)


def _columns(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The column of each node: the length of the longest path that leads to it."""
    after: dict[str, list[str]] = {name: [] for name in names}
    missing = dict.fromkeys(names, 0)
    for a, b in edges:
        after[a].append(b)
        missing[b] += 1
    columns = dict.fromkeys(names, 0)
    ready = [name for name in names if not missing[name]]
    for name in ready:
        for next_ in after[name]:
            columns[next_] = max(columns[next_], columns[name] + 1)
            missing[next_] -= 1
            if not missing[next_]:
                ready.append(next_)
    return columns


def _chains(
    names: Sequence[str], edges: Sequence[tuple[str, str]], columns: Mapping[str, int], cells: list[_Cell]
) -> dict[tuple[str, str], list[int]]:
    """The cells that each edge passes, dummies added to `cells` for the columns between its ends."""
    index = {name: i for i, name in enumerate(names)}
    lengths = sum(max(columns[b] - columns[a] - 1, 0) for a, b in edges)
    chains = {}
    for a, b in edges:
        chain = [index[a]]
        for column in range(columns[a] + 1, columns[b]) if lengths <= MAX_DUMMIES else ():
            chain.append(len(cells))
            cells.append(_Cell(column, 0.0, _LANE))
        chain.append(index[b])
        for left, right in itertools.pairwise(chain):
            cells[left].after.append(right)
            cells[right].before.append(left)
        chains[a, b] = chain
    return chains


def _rows(cells: Sequence[_Cell]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max((c.column for c in cells), default=-1) + 1)]
    for index, cell in enumerate(cells):
        rows[cell.column].append(index)
    return rows


def _sort(rows: list[list[int]], cells: Sequence[_Cell], *, forward: bool) -> None:
    """One sweep: order each column by where its neighbours of the column before stand on average."""
    place = {cell: at for row in rows for at, cell in enumerate(row)}
    for row in rows if forward else reversed(rows):
        weight = {}
        for index in row:
            near = cells[index].before if forward else cells[index].after
            weight[index] = sum(place[n] for n in near) / len(near) if near else place[index]
        row.sort(key=lambda index: (weight[index], place[index]))
        place.update((cell, at) for at, cell in enumerate(row))


def _place_rows(rows: list[list[int]], cells: Sequence[_Cell]) -> None:
    """Heights: as near to the neighbours as the order and the gaps allow."""
    for row in rows:
        y = -sum(cells[i].height + ROW_GAP for i in row) / 2
        for index in row:
            cells[index].y = y + cells[index].height / 2
            y += cells[index].height + ROW_GAP
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for row in rows if forward else reversed(rows):
            _settle(row, cells, forward=forward)
    top = min((c.y - c.height / 2 for c in cells), default=0.0)
    for cell in cells:
        cell.y -= top


def _settle(row: Sequence[int], cells: Sequence[_Cell], *, forward: bool) -> None:
    wish = []
    for index in row:
        near = cells[index].before if forward else cells[index].after
        wish.append(sum(cells[n].y for n in near) / len(near) if near else cells[index].y)
    gaps = [(cells[a].height + cells[b].height) / 2 + ROW_GAP for a, b in itertools.pairwise(row)]
    down, up = list(wish), list(wish)
    for at, gap in enumerate(gaps):
        down[at + 1] = max(down[at + 1], down[at] + gap)
    for at in range(len(gaps) - 1, -1, -1):
        up[at] = min(up[at], up[at + 1] - gaps[at])
    # Both keep the gaps, so their mean does; it pushes to both sides alike.
    for at, index in enumerate(row):
        cells[index].y = (down[at] + up[at]) / 2


def _place_columns(rows: Sequence[Sequence[int]], cells: Sequence[_Cell]) -> tuple[list[float], list[float]]:
    widths = [max((cells[i].width for i in row), default=0.0) for row in rows]
    lefts, x = [], 0.0
    for width in widths:
        lefts.append(x)
        x += width + COLUMN_GAP
    return lefts, widths


def _drawn(
    names: Sequence[str],
    chains: Mapping[tuple[str, str], Sequence[int]],
    cells: Sequence[_Cell],
    lefts: Sequence[float],
    widths: Sequence[float],
) -> Layout:
    boxes = {}
    for index, name in enumerate(names):
        cell = cells[index]
        boxes[name] = Box(lefts[cell.column], cell.y - cell.height / 2, cell.width, cell.height)
    routes = {}
    for (a, b), chain in chains.items():
        points = [(boxes[a].x + boxes[a].width, boxes[a].middle)]
        for index in chain[1:-1]:
            left = lefts[cells[index].column]
            points += [(left, cells[index].y), (left + widths[cells[index].column], cells[index].y)]
        points.append((boxes[b].x, boxes[b].middle))
        routes[a, b] = points
    width = lefts[-1] + widths[-1] if lefts else 0.0
    return Layout(boxes, routes, width, max((c.y + c.height / 2 for c in cells), default=0.0))
