"""Pictures of a definition: SVG and Mermaid, from the definition's or the compiled form's tasks alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from engine.dsl.graph_layout import Layout, layout

CLUSTERS = (
    ("tasks", ""),
    ("on_failure", "on_failure: if the run failed or timed out"),
    ("finally", "finally: at the end, always"),
)
STATUSES = ("PENDING", "RUNNING", "WAITING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED")
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
_MAX_LABEL = 34
_MIN_WIDTH = 120.0
# What XML 1.0 cannot hold, however it is escaped.
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

STYLE = """
.pf{--ink:#1f2328;--dim:#59636e;--line:#8c959f;--box:#fff;--rim:#d1d9e0;--page:#f6f8fa;--bad:#c93c37;
--pending:#8c959f;--running:#0969da;--waiting:#9a6700;--completed:#1a7f37;--failed:#c93c37;--skipped:#8c959f;--cancelled:#59636e;
font-family:ui-sans-serif,system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
@media (prefers-color-scheme:dark){.pf{--ink:#f0f6fc;--dim:#9198a1;--line:#656c76;--box:#151b23;--rim:#3d444d;--page:#0d1117;--bad:#f85149;
--pending:#656c76;--running:#4493f8;--waiting:#d29922;--completed:#3fb950;--failed:#f85149;--skipped:#656c76;--cancelled:#9198a1}}
.pf-page{fill:var(--page)}
.pf-frame{fill:none;stroke:var(--rim);stroke-dasharray:4 4}
.pf-box{fill:var(--box);stroke:var(--rim)}
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


@dataclass(frozen=True, slots=True)
class _Node:
    """What is shown of a task."""

    id: str
    name: str
    kind: str
    status: str
    badges: tuple[tuple[str, str], ...]
    """Short words, and what they stand for."""
    run_on: str
    depends_on: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """The text in the box."""
        second = self.kind if self.name == self.id else f"{self.id} · {self.kind}"
        return (_cut(self.name), _cut(second), *([self.status] if self.status else []))


def svg(
    definition: Mapping[str, Any], statuses: Mapping[str, str] | None = None, *, style: bool = True
) -> str:
    """A picture of the definition, light or dark as the reader's system is.

    `statuses` maps task ids to statuses, to show a run; each is written as a word, not only as a colour.
    With `style=False` the sheet (STYLE) is left to the page around it.  All text is escaped.
    """
    title = str(definition.get("name") or "workflow")
    parts: list[str] = []
    width, y = 0.0, _MARGIN
    for key, heading in CLUSTERS:
        nodes = _nodes(definition, key, statuses)
        if not nodes:
            continue
        sizes = {node.id: _size(node) for node in nodes}
        drawn = layout(sizes, [(before, node.id) for node in nodes for before in node.depends_on])
        inset = _PADDING if heading else 0.0
        head = _TITLE if heading else 8.0
        body = _cluster(nodes, drawn, _MARGIN + inset, y + head)
        box_width = max(drawn.width, len(heading) * _SMALL) + 2 * inset
        if heading:
            parts.append(_frame(heading, _MARGIN, y, box_width, drawn.height + head + inset))
        parts += body
        width = max(width, box_width)
        y += drawn.height + head + inset + 22.0
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


def _cluster(nodes: Sequence[_Node], drawn: Layout, x: float, y: float) -> list[str]:
    kinds = {node.id: node.run_on for node in nodes}
    edges = [_edge(points, kinds[to], x, y) for (_, to), points in drawn.routes.items()]
    return edges + [_box(node, drawn, x, y) for node in nodes]


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


def _box(node: _Node, drawn: Layout, dx: float, dy: float) -> str:
    box = drawn.boxes[node.id]
    x, y = box.x + dx, box.y + dy
    name, kind, *status = node.lines
    colour = f"var(--{node.status.lower()})" if node.status in STATUSES else "var(--rim)"
    parts = [
        f'<g id="task-{_text(node.id)}" data-status="{_text(node.status)}"><title>{_text(_tooltip(node))}</title>',
        f'<rect class="pf-box" x="{_n(x)}" y="{_n(y)}" width="{_n(box.width)}" height="{_n(box.height)}" rx="8"'
        + (f' style="stroke:{colour}"' if status else "")
        + "/>",
        f'<text class="pf-name" x="{_n(x + _PADDING)}" y="{_n(y + 20)}">{_text(name)}</text>',
        f'<text class="pf-kind" x="{_n(x + _PADDING)}" y="{_n(y + 36)}">{_text(kind)}</text>',
    ]
    if status:
        sign = _SIGNS.get(node.status, "")
        parts.append(
            f'<text class="pf-word" style="fill:{colour}" x="{_n(x + _PADDING)}" y="{_n(y + 54)}">'
            f"{sign} {_text(node.status)}</text>"
        )
    return "".join([*parts, *_pills(node, x + box.width, y), "</g>"])


def _pills(node: _Node, right: float, y: float) -> list[str]:
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


def mermaid(definition: Mapping[str, Any], statuses: Mapping[str, str] | None = None) -> str:
    """The same as Mermaid text, for Markdown that renders it."""
    lines = ["flowchart LR"]
    used: dict[str, list[str]] = {}
    for key, heading in CLUSTERS:
        nodes = _nodes(definition, key, statuses)
        if not nodes:
            continue
        indent = "  "
        if heading:
            lines.append(f'  subgraph {key}_cluster["{_mermaid(heading)}"]')
            indent = "    "
        for node in nodes:
            lines.append(f'{indent}t_{node.id}["{_mermaid_label(node)}"]')
            used.setdefault(node.status, []).append(f"t_{node.id}")
        lines += [f"{indent}{_arrow(before, node)}" for node in nodes for before in node.depends_on]
        if heading:
            lines.append("  end")
    colours = {"RUNNING": "#0969da", "WAITING": "#9a6700", "COMPLETED": "#1a7f37", "FAILED": "#c93c37"}
    for status in STATUSES:
        if status in used:
            lines.append(f"  classDef {status} stroke:{colours.get(status, '#8c959f')},stroke-width:2px")
            lines.append(f"  class {','.join(used[status])} {status}")
    return "\n".join(lines) + "\n"


def _arrow(before: str, node: _Node) -> str:
    if node.run_on == "success":
        return f"t_{before} --> t_{node.id}"
    return f"t_{before} -. {node.run_on.replace('_', ' ')} .-> t_{node.id}"


def _mermaid_label(node: _Node) -> str:
    # Conditions and the like; run_on is written on the arrows.
    words = [word for word, _ in node.badges if not word.startswith("on ")]
    second = " · ".join([node.lines[1], *words])
    return "<br/>".join(_mermaid(line) for line in (node.lines[0], second, *node.lines[2:]))


def _mermaid(text: str) -> str:
    """Text that Mermaid takes as text: everything that could mean something becomes a character code."""
    return "".join(c if c.isalnum() or c in " ._-,:·…" else f"#{ord(c)};" for c in _NOT_XML.sub("", text))


# --- what is shown of a task -----------------------------------------------------------------------------


def _nodes(definition: Mapping[str, Any], key: str, statuses: Mapping[str, str] | None) -> list[_Node]:
    tasks = definition.get(key)
    known = {task["id"] for task in _tasks(tasks)}
    return [_node(task, known, definition, statuses) for task in _tasks(tasks)]


def _tasks(tasks: Any) -> Iterable[Mapping[str, Any]]:
    return [t for t in tasks if isinstance(t, Mapping) and t.get("id")] if isinstance(tasks, list) else []


def _node(
    task: Mapping[str, Any],
    known: set[str],
    definition: Mapping[str, Any],
    statuses: Mapping[str, str] | None,
) -> _Node:
    kind = str(task.get("type") or "activity")
    run_on = str(task.get("run_on") or "success")
    return _Node(
        id=str(task["id"]),
        name=str(task.get("name") or task["id"]),
        kind=str(task.get("activity_type") or kind) if kind == "activity" else kind,
        status="" if statuses is None else statuses.get(str(task["id"]), "PENDING"),
        badges=tuple(_badges(task, run_on, definition)),
        run_on=run_on if run_on in ("any_success", "failure", "always") else "success",
        depends_on=tuple(d for d in task.get("depends_on") or () if d in known),
    )


def _badges(task: Mapping[str, Any], run_on: str, definition: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if run_on != "success":
        words = {"failure": "on failure", "always": "on any end", "any_success": "on any success"}
        yield words.get(run_on, run_on), f"run_on: {run_on}"
    if task.get("when") is not None:
        yield "when", f"when: {_condition(task['when'], definition)}"
    attempts = (task.get("retry") or {}).get("max_attempts")
    if isinstance(attempts, int) and attempts > 1:
        yield f"{attempts} attempts", f"at most {attempts} attempts"
    if task.get("continue_on_failure"):
        yield "may fail", "continue_on_failure: the run goes on if this fails"


def _condition(when: Any, definition: Mapping[str, Any]) -> str:
    """The condition's text, from the definition or the compiled form."""
    if isinstance(when, Mapping) and "$expr" in when:
        rows = definition.get("exprs") or []
        return str(rows[when["$expr"]]["src"]) if 0 <= when["$expr"] < len(rows) else ""
    text = str(when).strip()
    return text[3:-2].strip() if text.startswith("${{") and text.endswith("}}") else text.lower()


def _tooltip(node: _Node) -> str:
    return "\n".join(
        [
            node.name,
            f"{node.id} ({node.kind})",
            *([node.status] if node.status else []),
            *(b for _, b in node.badges),
        ]
    )


def _size(node: _Node) -> tuple[float, float]:
    name, *rest = node.lines
    text = max(
        _columns_of(name) * _CHARACTER,
        *(_columns_of(line) * _SMALL + (14 if line == node.status else 0) for line in rest),
    )
    pills = sum(len(word) * _TINY + 16 for word, _ in node.badges) + 8
    return max(text + 2 * _PADDING, pills, _MIN_WIDTH), 64.0 if node.status else 48.0


def _columns_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_LABEL else line[: _MAX_LABEL - 1] + "…"


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
