"""A picture of a definition, as SVG: from the definition's or the compiled form's tasks alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from engine.dsl.graph_layout import Layout, layout
from engine.dsl.graph_mermaid import mermaid
from engine.dsl.graph_nodes import CLUSTERS, NOT_XML, STATUSES, Node, nodes_of, tooltip

__all__ = ["STATUSES", "STYLE", "mermaid", "svg"]

_SIGNS = {
    "PENDING": "○",
    "RUNNING": "▶",
    "WAITING": "◔",
    "COMPLETED": "✓",
    "FAILED": "✕",
    "SKIPPED": "⤼",
    "CANCELLED": "■",
}

_MARGIN, _PADDING, _TITLE = 16.0, 14.0, 32.0
_CHARACTER, _SMALL, _TINY = 8.1, 6.4, 6.0
_MIN_WIDTH = 120.0
_GAP = 14.0
"""Between what a task says of itself and the tasks inside of it."""
_ROUND = {"end": 22, "trigger": 22}

STYLE = """
.pf{--ink:#1f2328;--dim:#59636e;--line:#8c959f;--box:#fff;--rim:#d1d9e0;--page:#f6f8fa;--bad:#c93c37;
--pending:#8c959f;--running:#0969da;--waiting:#9a6700;--completed:#1a7f37;--failed:#c93c37;--skipped:#8c959f;--cancelled:#59636e;
font-family:ui-sans-serif,system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
@media (prefers-color-scheme:dark){.pf{--ink:#f0f6fc;--dim:#9198a1;--line:#656c76;--box:#151b23;--rim:#3d444d;--page:#0d1117;--bad:#f85149;
--pending:#656c76;--running:#4493f8;--waiting:#d29922;--completed:#3fb950;--failed:#f85149;--skipped:#656c76;--cancelled:#9198a1}}
.pf-page{fill:var(--page)}
.pf-frame{fill:none;stroke:var(--rim);stroke-dasharray:4 4}
.pf-box{fill:var(--box);stroke:var(--rim)}
.pf-holder{fill:var(--page);stroke:var(--rim)}
.pf-box.signal,.pf-box.wait{stroke-dasharray:6 3}
.pf-edge{fill:none;stroke:var(--line);stroke-width:1.5}
.pf-edge.failure{stroke:var(--bad);stroke-dasharray:5 4}
.pf-edge.always,.pf-edge.any_success{stroke-dasharray:5 4}
.pf-tip{fill:var(--line)}.pf-tip.failure{fill:var(--bad)}
.pf-name{fill:var(--ink);font-size:13px;font-weight:600}
.pf-kind,.pf-title,.pf-word{fill:var(--dim);font-size:11px}
.pf-word{font-weight:600}
.pf-pill{fill:var(--page);stroke:var(--rim)}.pf-pill-text{fill:var(--dim);font-size:10px}
.pf-pill.failure{stroke:var(--bad)}.pf-pill-text.failure{fill:var(--bad)}
.pf-bar{fill:none}
"""


class _Picture:
    """A list of nodes, laid out with all that stands inside of them."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.inside = {node.path: _Picture(node.inside) for node in nodes if node.inside}
        sizes = {node.path: self._size(node) for node in nodes}
        self.drawn: Layout = layout(
            sizes, [(before, node.path) for node in nodes for before in node.depends_on]
        )

    def _size(self, node: Node) -> tuple[float, float]:
        width, height = _size(node)
        if node.path in self.inside:
            drawn = self.inside[node.path].drawn
            width = max(width, drawn.width + 2 * _PADDING)
            height += drawn.height + _PADDING + _GAP
        return width, height

    def parts(self, x: float, y: float) -> list[str]:
        """The SVG, with its upper left corner at (x, y)."""
        kinds = {node.path: node.run_on for node in self.nodes}
        edges = [_edge(points, kinds[to], x, y) for (_, to), points in self.drawn.routes.items()]
        boxes = [part for node in self.nodes for part in self._box(node, x, y)]
        return edges + boxes

    def _box(self, node: Node, x: float, y: float) -> list[str]:
        own = _box(node, self.drawn, x, y)
        if node.path not in self.inside:
            return [own]
        box = self.drawn.boxes[node.path]
        inner = self.inside[node.path]
        left = x + box.x + (box.width - inner.drawn.width) / 2
        return [own, *inner.parts(left, y + box.y + _size(node)[1] + _GAP)]


def svg(
    definition: Mapping[str, Any], statuses: Mapping[str, str] | None = None, *, style: bool = True
) -> str:
    """A picture of the definition, light or dark as the reader's system is.

    `statuses` maps static paths of tasks (`build`, `rollout.deploy`) to statuses, to show a run; each is written as a
    word, not only as a colour.  With `style=False` the sheet (STYLE) is left to the page around it.  All text is escaped.
    """
    title = str(definition.get("name") or "workflow")
    parts: list[str] = []
    width, y = 0.0, _MARGIN
    for key, heading in CLUSTERS:
        nodes = nodes_of(definition, key, statuses)
        if not nodes:
            continue
        picture = _Picture(nodes)
        inset = _PADDING if heading else 0.0
        head = _TITLE if heading else 8.0
        box_width = max(picture.drawn.width, len(heading) * _SMALL) + 2 * inset
        if heading:
            parts.append(_frame(heading, _MARGIN, y, box_width, picture.drawn.height + head + inset))
        parts += picture.parts(_MARGIN + inset, y + head)
        width = max(width, box_width)
        y += picture.drawn.height + head + inset + 22.0
    total_width, total_height = width + 2 * _MARGIN, y
    return "\n".join([*_opening(title, total_width, total_height, style), *parts, "</svg>\n"])


def _opening(title: str, width: float, height: float, style: bool) -> list[str]:
    label = _text(f"Tasks of {title}")
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pf" role="img" aria-label="{label}" width="{_n(width)}" '
        f'height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}">',
        f"<title>{label}</title>",
        *([f"<style>{STYLE}</style>"] if style else []),
        "<defs>"
        + "".join(
            f'<marker id="pf-tip-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path class="pf-tip {kind}" d="M0 0 8 4 0 8z"/></marker>'
            for kind in ("plain", "failure")
        )
        + "</defs>",
        '<rect class="pf-page" width="100%" height="100%" rx="8"/>',
    ]


def _frame(heading: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="pf-frame" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="8"/>'
        f'<text class="pf-title" x="{_n(x + 12)}" y="{_n(y + 17)}">{_text(heading)}</text>'
    )


def _edge(points: Sequence[tuple[float, float]], run_on: str, dx: float, dy: float) -> str:
    moved = [(px + dx, py + dy) for px, py in points]
    path = f"M{_n(moved[0][0])} {_n(moved[0][1])}"
    # Points come in pairs: a curve over the gap between two columns, a line across a column.
    for at in range(1, len(moved)):
        (x1, y1), (x2, y2) = moved[at - 1], moved[at]
        if at % 2 == 0:
            path += f"H{_n(x2)}"
        else:
            half = _n((x1 + x2) / 2)
            path += f"C{half} {_n(y1)} {half} {_n(y2)} {_n(x2)} {_n(y2)}"
    tip = "failure" if run_on == "failure" else "plain"
    return f'<path class="pf-edge {run_on}" marker-end="url(#pf-tip-{tip})" d="{path}"/>'


def _box(node: Node, drawn: Layout, dx: float, dy: float) -> str:
    box = drawn.boxes[node.path]
    x, y = box.x + dx, box.y + dy
    name, kind, *status = node.lines
    colour = f"var(--{node.status.lower()})" if node.status in STATUSES else "var(--rim)"
    parts = [
        f'<g id="{_anchor(node)}" data-status="{_text(node.status)}"><title>{_text(tooltip(node))}</title>',
        f'<rect class="{_class(node)}" x="{_n(x)}" y="{_n(y)}" width="{_n(box.width)}" height="{_n(box.height)}" rx="{_ROUND.get(node.shape, 8)}"'
        + (f' style="stroke:{colour}"' if status else "")
        + "/>",
        f'<text class="pf-name" x="{_n(x + _PADDING)}" y="{_n(y + 20)}">{_text(name)}</text>',
        f'<text class="pf-kind" x="{_n(x + _PADDING)}" y="{_n(y + 36)}">{_text(kind)}</text>',
    ]
    if node.shape == "workflow":
        # A second rim: a picture of its own stands behind it.
        parts.append(
            f'<rect class="pf-bar" style="stroke:{colour}" x="{_n(x + 3)}" y="{_n(y + 3)}" width="{_n(box.width - 6)}" '
            f'height="{_n(box.height - 6)}" rx="6"/>'
        )
    if status:
        sign = _SIGNS.get(node.status, "")
        parts.append(
            f'<text class="pf-word" style="fill:{colour}" x="{_n(x + _PADDING)}" y="{_n(y + 54)}">'
            f"{sign} {_text(node.status)}</text>"
        )
    return "".join([*parts, *_pills(node, x + box.width, y), "</g>"])


def _pills(node: Node, right: float, y: float) -> list[str]:
    """The badges on the upper rim, from the right."""
    parts, x = [], right - 8.0
    for word, _ in node.badges:
        width = len(word) * _TINY + 12
        x -= width
        kind = "failure" if word == "on failure" else ""
        parts.append(
            f'<rect class="pf-pill {kind}" x="{_n(x)}" y="{_n(y - 8)}" width="{_n(width)}" height="16" rx="8"/>'
            f'<text class="pf-pill-text {kind}" x="{_n(x + 6)}" y="{_n(y + 3.5)}">{_text(word)}</text>'
        )
        x -= 4.0
    return parts


def _anchor(node: Node) -> str:
    return _text(
        node.path.replace("trigger.", "trigger-", 1) if node.shape == "trigger" else f"task-{node.path}"
    )


def _class(node: Node) -> str:
    return (
        "pf-holder"
        if node.inside
        else f"pf-box {_text(node.shape)}"
        if node.shape in ("signal", "wait")
        else "pf-box"
    )


def _size(node: Node) -> tuple[float, float]:
    name, *rest = node.lines
    text = max(
        _columns_of(name) * _CHARACTER,
        *(_columns_of(line) * _SMALL + (14 if line == node.status else 0) for line in rest),
    )
    pills = sum(len(word) * _TINY + 16 for word, _ in node.badges) + 8
    return max(text + 2 * _PADDING, pills, _MIN_WIDTH), 64.0 if node.status else 48.0


def _columns_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _text(text: str) -> str:
    return escape(NOT_XML.sub("\ufffd", text))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
