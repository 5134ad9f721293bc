"""Where the checks of a definition's meaning put what they find, and what several of them ask."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.dsl import codes, json_schemas, words
from engine.dsl.durations import DurationError, parse_duration
from engine.dsl.loader import Document, Path, shown
from engine.errors import Problem

_ID = re.compile(words.ID_PATTERN)


class TooMany(Exception):
    """More problems than are told: the search ends."""


class Faults:
    """The problems of one document, as they are found."""

    def __init__(self, document: Document, problems: list[Problem]) -> None:
        self.document = document
        self._problems = problems

    def report(
        self,
        code: str,
        message: str,
        path: Path,
        *,
        hint: str = "",
        key: bool = False,
        offset: int | None = None,
    ) -> None:
        """One more. `key` means the key at the path and not its value, `offset` a character of the text there."""
        self.add([self.document.problem(code, message, path, hint=hint, key=key, offset=offset)])

    def add(self, problems: list[Problem]) -> None:
        """Some more. Raises TooMany."""
        self._problems.extend(problems)
        if len(self._problems) > 2 * words.MAX_PROBLEMS:
            raise TooMany

    def written(self, path: Path) -> Any:
        """What stands at a path of the document, right or wrong; {} if nothing does."""
        found: Any = self.document.data
        for part in path:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return {}
        return found

    def names(self, what: str, names: Iterable[str], path: Path) -> None:
        """Refuse keys of a mapping that expressions could not read."""
        for name in names:
            if not _ID.match(name) or name in words.RESERVED_IDS or len(name) > words.MAX_NAME:
                self.report(
                    codes.NAME, f"`{shown(name)}` cannot be a name in `{what}`", (*path, name),
                    hint=name_hint(name), key=True,
                )  # fmt: skip

    def no_expressions(self, value: Any, path: Path) -> None:
        """Refuse expressions anywhere inside of a value."""
        for at, text in _texts(value, path):
            self.report(
                codes.EXPRESSION_HERE, "an expression may not stand here", at,
                hint="write the value out, or `$${{` for a literal `${{`", offset=text.find("${{"),
            )  # fmt: skip

    def duration(self, value: Any, path: Path) -> None:
        """Refuse a literal text that is no duration."""
        if isinstance(value, str) and "${{" not in value:
            try:
                parse_duration(value)
            except DurationError as error:
                self.report(codes.DURATION, f"`{shown(value)}` {error}", path)

    def json_schema(self, schema: Mapping[str, Any], path: Path) -> bool:
        """Refuse what is no usable JSON Schema; whether it is one."""
        faults = json_schemas.check_user_schema(dict(schema))
        for fault in faults:
            self.report(
                codes.JSON_SCHEMA, f"not a usable JSON Schema: {fault.message}", (*path, *fault.path), hint=fault.hint
            )  # fmt: skip
        return not faults


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The texts inside of `value` that hold an expression, not an escaped one."""
    if isinstance(value, str):
        if "${{" in value.replace("$${{", ""):
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def name_hint(name: str) -> str:
    """What to write instead of a name that expressions could not read."""
    if name in words.RESERVED_IDS:
        return "expressions read it as a word of their own"
    if "-" in name:
        return f"a dash would be a minus in expressions: `{shown(name.replace('-', '_'))}`"
    return "use letters, digits and `_`, no digit first, 63 at most"


def seconds(text: Any) -> float | None:
    """A literal duration; None if it is none."""
    try:
        return parse_duration(text) if isinstance(text, str) else None
    except DurationError:
        return None
