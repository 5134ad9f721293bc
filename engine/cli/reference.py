"""Writes docs/reference/cli.md from the parsers themselves: `python -m engine.cli.reference`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.cli.commands import COMMANDS
from engine.cli.main import manual

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"

_HEAD = """\
# Command line

Generated from the program by `make schemas`; a test holds it. `pinflow --help`:

"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _block(manual())]
    for command in COMMANDS:
        module = command.load()
        parts.append(f"\n## pinflow {command.name}\n\n{command.summary[0].upper()}{command.summary[1:]}.\n\n")
        parts.append(_block(module.HELP.strip() + "\n"))
        parts.extend(_section(parser) for parser in _leaves(command.parser(module)))
    return "".join(parts)


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser itself, or those of its verbs."""
    verbs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not verbs:
        yield parser
    for action in verbs:
        yield from action.choices.values()


def _section(parser: argparse.ArgumentParser) -> str:
    rows = [_row(action) for action in parser._actions if action.help is not argparse.SUPPRESS]
    rows = [row for row in rows if row]
    if not rows:
        return f"\n`{parser.prog}`\n"
    return f"\n`{parser.prog}`\n\n| argument | meaning |\n|---|---|\n" + "".join(rows)


def _row(action: argparse.Action) -> str:
    if isinstance(action, argparse._HelpAction):
        return ""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    if action.option_strings:
        takes = "" if action.nargs == 0 else f" {value}"
        name = ", ".join(f"`{option}{takes}`" for option in action.option_strings)
    else:
        name = f"`{value if action.choices or action.metavar else action.dest}`"
    return f"| {_cell(name)} | {_cell(action.help or '')} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _block(text: str) -> str:
    return f"```text\n{text}```\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
