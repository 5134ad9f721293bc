"""Python 3.11 is the oldest that we run on, and its early releases (Debian 12 has 3.11.2) match possessive quantifiers wrongly."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "engine"
# A quantifier followed by +, or an atomic group; not within brackets, and not where a backslash makes it a character.
_WRONG = re.compile(r"(?<!\\)(?:[*+?]|\d\})\+|\(\?>")


def _patterns(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re."):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str | bytes):
                    text = part.value if isinstance(part.value, str) else part.value.decode("latin-1")
                    yield re.sub(r"\[\^?\]?(?:\\.|[^\]\\])*\]", "[]", text)


@pytest.mark.parametrize("file", sorted(ENGINE.rglob("*.py")), ids=lambda file: str(file.relative_to(ENGINE)))
def test_no_pattern_needs_what_early_releases_get_wrong(file: Path) -> None:
    assert [pattern for pattern in _patterns(file) if _WRONG.search(pattern)] == []


@pytest.mark.parametrize("pattern", ["(?:a)*+", "a++", "[0-7]{5,6}+", "(?>a)", "a?+"])
def test_the_guard_sees_them(pattern: str) -> None:
    assert _WRONG.search(pattern)
