"""The commands that a page of the documentation tells its reader to type, and what it says comes of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"^(?:<!-- (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
# What is another on every machine and in every run: commits, ids, moments, and the widths of columns that hold them.
_VARIES = re.compile(
    r"(?P<proposal>\bpinflow/proposals/[0-9a-f-]+)"
    r"|(?P<sha>\b[0-9a-f]{12}(?:[0-9a-f]{28})?\b)"
    r"|(?P<id>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
    r"|(?P<moment>\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00)?)"
    r"|(?P<blank>[ \t]+)"
)


@dataclass(frozen=True)
class Step:
    """A command with what the page shows of its output, or a file that the reader writes."""

    command: str = ""
    shown: str = ""
    file: str = ""
    content: str = ""


def steps(page: str) -> list[Step]:
    """What a page below docs/ has its reader do, in order: console blocks, and blocks under `<!-- FILE -->`."""
    found: list[Step] = []
    for block in _BLOCK.finditer((ROOT / "docs" / page).read_text(encoding="utf-8")):
        if block["file"]:
            found.append(Step(file=block["file"], content=block["text"]))
        elif block["kind"] == "console":
            found += _typed(block["text"])
    return found


def _typed(text: str) -> list[Step]:
    made: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            made.append((line.removeprefix("$ "), []))
        elif made:
            made[-1][1].append(line)
    return [Step(command, "\n".join(shown)) for command, shown in made]


def blocks(page: str, kind: str) -> list[str]:
    """The blocks of one kind of a page below docs/, such as `yaml`."""
    found = _BLOCK.finditer((ROOT / "docs" / page).read_text(encoding="utf-8"))
    return [block["text"] for block in found if block["kind"] == kind]


def commands(page: str) -> list[str]:
    """The lines after `$ ` in the console blocks of a page below docs/, in their order."""
    return [step.command for step in steps(page) if step.command]


def general(text: str) -> str:
    """An output without what is another in each run."""
    return _VARIES.sub(
        lambda found: " " if found.lastgroup == "blank" else f"<{found.lastgroup}>", text
    ).strip()
