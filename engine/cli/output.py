"""How commands speak: tables for people, JSON for programs, colour only on a terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TextIO

_COLOURS = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "grey": "90",
    "bold": "1",
}
_OF_STATUS = {
    "COMPLETED": "green",
    "APPROVED": "green",
    "REGISTERED": "green",
    "Ready": "green",
    "FAILED": "red",
    "REJECTED": "red",
    "TIMED_OUT": "red",
    "Stalled": "red",
    "WAITING": "yellow",
    "PENDING": "yellow",
    "QUEUED": "yellow",
    "PAUSED": "yellow",
    "RUNNING": "blue",
    "CANCELLED": "grey",
    "SKIPPED": "grey",
}

Column = tuple[str, Callable[[Any], Any]]
"""A heading, and how the cell is read from an item."""


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """`--output text|json`, on every command that lists or shows something."""
    parser.add_argument(
        "-o",
        "--output",
        choices=("text", "json"),
        default="text",
        help="text for people (the default), json for programs",
    )


def add_limit_option(parser: argparse.ArgumentParser, default: int = 50) -> None:
    """`--limit N`, on every listing."""
    parser.add_argument(
        "--limit", type=_positive, default=default, metavar="N", help=f"at most N rows (default {default})"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number from 1 on")
    return int(text)


def show_list(args: argparse.Namespace, items: Iterable[Any], columns: Sequence[Column], empty: str) -> int:
    """Print a listing as the person or program asked for it. `empty` is what a person reads if there is nothing."""
    rows = list(items)
    if len(rows) == getattr(args, "limit", None):
        print(f"{args.limit} rows; there may be more: --limit N", file=sys.stderr)
    if args.output == "json":
        print_json(rows)
    elif rows:
        print_table(rows, columns)
    else:
        print(empty)
    return 0


def print_json(value: Any) -> None:
    """One JSON document, readable and in a stable order."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(items: Sequence[Any], columns: Sequence[Column]) -> None:
    """Aligned columns under their headings; a status is coloured on a terminal."""
    heads = [head for head, _ in columns]
    rows = [[_text(read(item)) for _, read in columns] for item in items]
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    print(
        paint(
            "bold", "  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip()
        )
    )
    for row in rows:
        cells = [paint_status(cell, cell.ljust(width)) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def print_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Names and values of one thing, a line each; empty values are left out."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        if value not in (None, "", [], {}):
            text = _text(value)
            print(f"{name.ljust(width)}  {paint_status(text, text)}")


def paint(colour: str, text: str, stream: TextIO | None = None) -> str:
    """The text in a colour, if the stream is a terminal and NO_COLOR is not set."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_COLOURS[colour]}m{text}\033[0m"


def paint_status(status: str, text: str) -> str:
    """The text in the colour of a status; as it is if the word is none."""
    return paint(_OF_STATUS[status], text) if status in _OF_STATUS else text


def short(sha: Any) -> str:
    """The first twelve characters of a SHA, enough to name a commit."""
    return str(sha or "")[:12]


def when(text: Any) -> str:
    """An RFC 3339 time as local time of day and date."""
    if not text:
        return ""
    try:
        return datetime.fromisoformat(str(text)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return str(text)


def plain(text: str) -> str:
    """The text without control characters: what comes from a commit must not steer the terminal that shows it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
