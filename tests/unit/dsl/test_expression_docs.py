"""Every example of the pages about expressions does what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.dsl import cel_syntax, cel_values
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.cel_added import ADDED
from engine.dsl.checking import check
from engine.dsl.expressions import (
    Environment,
    ExpressionError,
    ExpressionSyntaxError,
    compile_expression,
    evaluate,
    schema_of,
)

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = (DOCS / "reference/expressions.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to/conditions.md").read_text(encoding="utf-8")

_ROW = re.compile(r"^\| `(.+?)` \| (?:`(.+)`|error: (.+)) \|$", re.MULTILINE)
EXAMPLES = [
    (row[1].replace("\\|", "|"), row[2], row[3])
    for section in REFERENCE.split("| expression | result |\n|---|---|\n")[1:]
    for row in _ROW.finditer(section.split("\n\n")[0] + "\n")
]
_FOUND = re.search(r"```json\n(.*?)```", REFERENCE, re.DOTALL)
assert _FOUND is not None
DATA: dict[str, Any] = json.loads(_FOUND[1])
INPUTS = {
    "type": "object",
    "properties": {
        "service": {"type": "string"},
        "count": {"type": "integer"},
        "note": {"type": "string"},
        "regions": {"type": "array", "items": {"type": "string"}},
    },
}


def bindings() -> dict[str, Any]:
    """The page's data, also by the dotted names."""
    bound = dict(DATA)
    for root in ("inputs", "env"):
        bound |= {f"{root}.{key}": value for key, value in DATA[root].items()}
    return bound


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) > 55


@pytest.mark.parametrize(("src", "result", "error"), EXAMPLES, ids=[e[0] for e in EXAMPLES])
def test_example(src: str, result: str | None, error: str | None) -> None:
    names = {"tasks.build.outputs": "dyn", "tasks.build.status": "string"}
    environment = Environment(names, {"inputs": INPUTS, "env": schema_of(DATA["env"])})
    if result is not None:
        got = evaluate(compile_expression(src, environment).entry(), bindings())
        assert json.dumps(got, sort_keys=True) == json.dumps(json.loads(result), sort_keys=True)
        return
    assert error is not None
    with pytest.raises((ExpressionError, ExpressionSyntaxError)) as caught:
        evaluate(compile_expression(src, environment).entry(), bindings())
    assert error in f"{caught.value} {getattr(caught.value, 'hint', '')}"


def test_the_page_names_every_added_function() -> None:
    table = REFERENCE.split("## Added to CEL")[1].split("| expression |")[0]
    assert set(re.findall(r"`(\w+)\(", table)) == set(ADDED)


def test_the_page_names_the_limits_as_they_are() -> None:
    for limit in (cel_syntax.MAX_SOURCE, cel_values.MAX_ITEMS, cel_values.MAX_WORK):
        assert f"{limit:,}" in REFERENCE.split("## Limits")[1]
    assert f"{cel_values.MAX_RESULT >> 20} MiB, {cel_values.MAX_DEPTH} levels" in REFERENCE
    assert f"| `optMap` and `optFlatMap` in an expression | {cel_syntax.MAX_COPIES} |" in REFERENCE


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", HOW_TO, re.DOTALL))
def test_a_definition_of_the_how_to_is_valid(text: str) -> None:
    assert [str(p) for p in check(text.encode(), "example.yaml", ActivityTypes.default()).problems] == []
