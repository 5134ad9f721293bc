"""Hides the values of secrets in what leaves an activity and in the lines of the log, in their usual disguises too.

A secret is in no history, log, row, error or reply (promise P11).  What a target says back is searched for the value
itself and for its base64 (at any place of a longer text), percent-encoded, JSON-escaped, HTML-escaped and hexadecimal
forms.  What somebody does on purpose (a value spelled backwards) cannot be caught, and is not meant to be.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 6
"""Characters of a value: hiding a shorter one would hide half of all texts, or it would shine through."""
_LONG_LINE = 12
"""Characters from which on a line of a value (a key in PEM form) is hidden on its own."""
_CUT_FROM = 40
"""Characters of a text from which on it may be the cut-off rest of a longer one."""
_REMEMBERED = 1000


class Masker:
    """Hides the values it was told. Cheap while there are none."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: list[str] = []
        self._pattern: re.Pattern[str] | None = None
        self.add(values)

    def __bool__(self) -> bool:
        return self._pattern is not None

    def add(self, values: Iterable[str]) -> None:
        """Hide these as well. Each has at least `SHORTEST` characters."""
        self._values += [value for value in values if value not in self._values]
        self._pattern = _pattern(self._values)

    def text(self, text: str) -> str:
        """The text without any of the values."""
        if self._pattern is None:
            return text
        hidden = self._pattern.sub(MASK, text)
        return self._without_torn_ends(hidden) if len(text) >= _CUT_FROM else hidden

    def value(self, value: Any) -> Any:
        """The same JSON value without any of the values, in keys and numbers too."""
        if self._pattern is None:
            return value
        return self._masked(value)

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(key) if isinstance(key, str) else key: self._masked(v) for key, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._masked(item) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = str(value)
            return value if self.text(text) == text else MASK
        return value

    def _without_torn_ends(self, text: str) -> str:
        """Whoever shortened a text may have cut a value in two: its rest at the beginning or the end is hidden."""
        for value in self._values:
            if text[:SHORTEST] in value:
                for size in range(min(len(value) - 1, len(text)), SHORTEST - 1, -1):
                    if text.startswith(value[-size:]):
                        text = MASK + text[size:]
                        break
            if text[-SHORTEST:] in value:
                for size in range(min(len(value) - 1, len(text)), SHORTEST - 1, -1):
                    if text.endswith(value[:size]):
                        text = text[:-size] + MASK
                        break
        return text


class LogMask:
    """All values that this process has seen lately: whatever it logs, whoever logs it, is searched for them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()
        self._masker = Masker()

    def remember(self, values: Iterable[str]) -> None:
        """From now on these are in no line."""
        new = [value for value in values if value not in self._known]
        if not new:
            return
        self._known.update(dict.fromkeys(new))
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        self._masker = Masker(self._known)

    def __call__(self, logger: Any, method: str, line: Any) -> Any:
        """As the last of structlog's processors: the line is a text by then."""
        return self._masker.text(line) if isinstance(line, str) else line


def _pattern(values: Iterable[str]) -> re.Pattern[str] | None:
    forms = {form for value in values for form in _forms(value) if len(form) >= SHORTEST}
    if not forms:
        return None
    # The longest first: a form that holds another one must go as a whole.
    return re.compile(
        "|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form)))
    )


def _forms(value: str) -> Iterator[str]:
    for plain in {value, value.strip(), *_long_lines(value)}:
        data = plain.encode("utf-8", "surrogatepass")
        yield plain
        for ascii_only in (True, False):
            once = _escaped(plain, ascii_only=ascii_only)
            yield from (once, _escaped(once, ascii_only=ascii_only))
        yield repr(plain)[1:-1]
        yield from (html.escape(plain), html.escape(plain, quote=False))
        for encoded in (
            quote(data, safe=""),
            quote(data),
            quote_plus(data),
            quote(quote(data, safe=""), safe=""),
        ):
            yield from (encoded, re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), encoded))
        yield from (data.hex(), data.hex().upper())
        yield from _base64_forms(data)


def _long_lines(value: str) -> list[str]:
    lines = [line.strip() for line in value.splitlines()]
    return [line for line in lines if len(line) >= _LONG_LINE and not line.startswith("-----")]


def _escaped(text: str, *, ascii_only: bool) -> str:
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _base64_forms(data: bytes) -> Iterator[str]:
    """What of the base64 of a longer text is made of `data` alone, for each of the three places it can have in it."""
    yield base64.b64encode(data).decode()
    yield base64.urlsafe_b64encode(data).decode()
    for before in range(3):
        first, last = -(-8 * before // 6), 8 * (before + len(data)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * before + data).decode()[first:last]


LOGS = LogMask()
"""The one of this process: a logger is as global."""
