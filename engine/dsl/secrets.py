"""`${{ secrets.NAME }}` in a config: taken out of the value, and kept beside it as a mark that a worker replaces."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from engine.dsl import codes
from engine.dsl.loader import Path, shown
from engine.dsl.templates import Slot, TemplateSyntaxError, split

_SECRET = re.compile(r"secrets\s*\.\s*([A-Za-z_][A-Za-z0-9_]*)")

Compile = Callable[[str, Path, int], int]
"""`compile(src, path, offset)` puts an expression into the table."""


def take_out(
    config: Any, path: Path, declared: Collection[str], compile: Compile, report: Callable[..., None]
) -> tuple[Any, list[dict[str, Any]]]:
    """The config with null where a text with secrets stood, and what belongs there: `{path, parts}`.

    `path` is where the config stands in the document.
    """
    found = []
    for at, text in _texts(config, ()):
        parts = _parts(text)
        if not any(_named(part) for part in parts):
            continue
        made: list[Any] = []
        for part in parts:
            if isinstance(part, str):
                made.append(part)
            elif name := _named(part):
                made.append({"$secret": name})
                _declared(name, declared, (*path, *at), part.offset, report)
            else:
                made.append({"$expr": compile(part.src, (*path, *at), part.offset)})
        found.append({"path": list(at), "parts": made})
        config = _without(config, at)
    return config, found


def _parts(text: str) -> list[str | Slot]:
    try:
        return split(text)
    except TemplateSyntaxError:
        return []  # told where the value is compiled


def _named(part: str | Slot) -> str:
    match = _SECRET.fullmatch(part.src) if isinstance(part, Slot) else None
    return match[1] if match else ""


def _declared(
    name: str, declared: Collection[str], path: Path, offset: int, report: Callable[..., None]
) -> None:
    if name in declared:
        return
    from engine.dsl.structure import closest

    report(
        codes.SECRET, f"the secret `{shown(name)}` is not declared", path, offset=offset,
        hint=closest(name, list(declared)) or f"declare it at the top: `secrets: [{shown(name)}]`",
    )  # fmt: skip


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        if "secrets" in value and "${{" in value:
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def _without(value: Any, path: Path) -> Any:
    """A copy with null at `path`."""
    if not path:
        return None
    if isinstance(value, dict):
        return {**value, path[0]: _without(value[path[0]], path[1:])}
    return [_without(item, path[1:]) if index == path[0] else item for index, item in enumerate(value)]
