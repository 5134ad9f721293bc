"""Writes docs/reference/cli.md from the parsers and settings.md from the settings: `python -m engine.cli.reference`."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from engine.cli.commands import COMMANDS
from engine.cli.main import manual

_ROOT = Path(__file__).parents[2]
PAGE = _ROOT / "docs" / "reference" / "cli.md"
SETTINGS_PAGE = _ROOT / "docs" / "reference" / "settings.md"

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


_SETTINGS_HEAD = """\
# Settings

Generated from `engine/settings.py` by `make schemas`; a test holds it.

Every process reads its settings once, from environment variables: `PINFLOW_` and the name in capitals, lists and
objects as JSON. `pinflow up` sets what it needs by itself.
"""


_ENTRIES = (
    ("An entry of PINFLOW_SOURCES, or of `sources` in the sources file", "SourceSettings"),
    ("An entry of `rules`", "Rule"),
    ("An entry of `include`", "IncludeSettings"),
    ("An entry of `credentials`", "Credential"),
    ("An entry of `trust`", "Trust"),
)


def settings_page() -> str:
    """The page of all settings: read from the source, where each field has its meaning below it."""
    tree = ast.parse((_ROOT / "engine" / "settings.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    parts = [_SETTINGS_HEAD, "\n", _fields(classes["Settings"], "PINFLOW_")]
    for title, name in _ENTRIES:
        parts += [f"\n## {title}\n\n", (ast.get_docstring(classes[name]) or ""), "\n\n"]
        parts += [_fields(classes[name], "")]
    return "".join(parts)


def _fields(node: ast.ClassDef, prefix: str) -> str:
    rows = ["| setting | type | default | meaning |\n|---|---|---|---|\n"]
    for field, following in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        meaning = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            meaning = " ".join(str(following.value.value).split())
        name = f"{prefix}{field.target.id.upper()}" if prefix else field.target.id
        cells = [f"`{name}`", f"`{ast.unparse(field.annotation)}`", _default(field.value), meaning]
        rows.append("| " + " | ".join(_cell(cell) for cell in cells) + " |\n")
    return "".join(rows)


def _default(value: ast.expr | None) -> str:
    """The default as it stands in the source; of `Field(...)` its own default, or nothing if it must be given."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
        value = next((word.value for word in value.keywords if word.arg == "default"), None)
    if isinstance(value, ast.Call) and value.args:
        value = value.args[0]
    if value is None:
        return "required"
    return f"`{ast.unparse(value)}`"


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
    SETTINGS_PAGE.write_text(settings_page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n{SETTINGS_PAGE}\n")
