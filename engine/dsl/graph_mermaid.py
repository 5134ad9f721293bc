"""A definition as Mermaid text, for Markdown that renders it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.dsl.graph_nodes import CLUSTERS, NOT_XML, STATUSES, Node, all_of, nodes_of

_COLOURS = {"RUNNING": "#0969da", "WAITING": "#9a6700", "COMPLETED": "#1a7f37", "FAILED": "#c93c37"}
_BRACKETS = {
    "workflow": ("[[", "]]"), "signal": ("{{", "}}"), "end": ("([", "])"), "trigger": ("([", "])"),
}  # fmt: skip


def mermaid(definition: Mapping[str, Any], statuses: Mapping[str, str] | None = None) -> str:
    """The tasks and triggers of a definition; `statuses` by static path, to show a run."""
    lines = ["flowchart LR"]
    used: dict[str, list[str]] = {}
    for key, heading in CLUSTERS:
        nodes = nodes_of(definition, key, statuses)
        if not nodes:
            continue
        names = _Names(nodes)
        indent = "  "
        if heading:
            lines.append(f'  subgraph {key}_cluster["{_plain(heading)}"]')
            indent = "    "
        lines += _boxes(nodes, names, indent)
        for node in all_of(nodes):
            used.setdefault(node.status, []).append(names[node.path])
        if heading:
            lines.append("  end")
    for status in STATUSES:
        if status in used:
            lines.append(f"  classDef {status} stroke:{_COLOURS.get(status, '#8c959f')},stroke-width:2px")
            lines.append(f"  class {','.join(used[status])} {status}")
    return "\n".join(lines) + "\n"


class _Names:
    """What the nodes are called in the text: their paths with `__` for dots, and a number where two come out alike."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._names: dict[str, str] = {}
        taken: set[str] = set()
        for node in all_of(nodes):
            name = base = "t_" + node.path.replace(".", "__")
            count = 1
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            taken.add(name)
            self._names[node.path] = name

    def __getitem__(self, path: str) -> str:
        return self._names[path]


def _boxes(nodes: Sequence[Node], names: _Names, indent: str) -> list[str]:
    lines = []
    for node in nodes:
        if node.inside:
            lines.append(f'{indent}subgraph {names[node.path]}["{_label(node)}"]')
            lines += [*_boxes(node.inside, names, indent + "  "), f"{indent}end"]
        else:
            left, right = _BRACKETS.get(node.shape, ("[", "]"))
            lines.append(f'{indent}{names[node.path]}{left}"{_label(node)}"{right}')
    return lines + [f"{indent}{_arrow(before, node, names)}" for node in nodes for before in node.depends_on]


def _arrow(before: str, node: Node, names: _Names) -> str:
    if node.run_on == "success":
        return f"{names[before]} --> {names[node.path]}"
    return f"{names[before]} -. {node.run_on.replace('_', ' ')} .-> {names[node.path]}"


def _label(node: Node) -> str:
    # Conditions and the like; run_on is written on the arrows.
    words = [word for word, _ in node.badges if not word.startswith("on ")]
    second = " · ".join([node.lines[1], *words])
    return "<br/>".join(_plain(line) for line in (node.lines[0], second, *node.lines[2:]))


def _plain(text: str) -> str:
    """Text that Mermaid takes as text: everything that could mean something becomes a character code."""
    return "".join(c if c.isalnum() or c in " ._-,:·…" else f"#{ord(c)};" for c in NOT_XML.sub("", text))
