"""CEL expressions: compiled and checked at validation, evaluated anywhere, with the same result everywhere.

Reading is CEL's own parser and type checker; evaluating is ours (`cel_evaluator`), so that maps are walked in
sorted order, every step counts against a budget, and a replay depends on no native library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.dsl.cel_evaluator import run
from engine.dsl.cel_values import ExpressionError, ExpressionSyntaxError
from engine.dsl.environment import Environment, Shape, is_number, schema_of

__all__ = [
    "Compiled",
    "Environment",
    "ExpressionError",
    "ExpressionSyntaxError",
    "compile_expression",
    "evaluate",
    "schema_of",
]

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*){0,15}", re.ASCII)
_RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
"""CEL's literals and reserved words: what they mean where is left to its parser."""

Entry: TypeAlias = dict[str, Any]
"""One row of a compiled definition's expression table: `{"src", "refs", "code"}`."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A checked expression.

    `refs` are the bound names that it reads, sorted; `result_type` is CEL's word for the result (string, int,
    double, bool, list, map, null, timestamp, duration, dyn), or `number` if it is one of the two; `unguarded` are
    the ids of tasks whose outputs are read without `.?`, `has()`, `in` or a look at the task's status; `shape` is what
    is known of the result beyond that.
    """

    src: str
    refs: tuple[str, ...]
    code: str
    result_type: str
    unguarded: frozenset[str]
    shape: Shape | None = None

    @property
    def may_be_bool(self) -> bool:
        """Whether the result can be a bool: asked of `when`, `until` and `success_when`."""
        return self.result_type in ("bool", "dyn")

    @property
    def may_be_list(self) -> bool:
        """Whether the result can be a list: asked of `items`."""
        return self.result_type in ("list", "dyn")

    def entry(self) -> Entry:
        """The row for the compiled definition."""
        return {"src": self.src, "refs": list(self.refs), "code": self.code}


def compile_expression(src: str, env: Environment) -> Compiled:
    """Parse and check `src` against what `env` declares.

    Raises ExpressionSyntaxError with the offset of the fault.
    """
    from engine.dsl.cel_lowering import Lowering  # here, as whoever only evaluates does not need it

    if path := _plain_path(src):
        # Most expressions only name something: their tree is known without the parser.
        lowering = Lowering(src, {}, env)
        code, shape = lowering.lower_path(path)
    else:
        from engine.dsl import cel_syntax

        tree, positions = cel_syntax.parse(src)
        lowering = Lowering(src, positions, env)
        code, shape = lowering.lower_whole(tree)
    result_type = _type_of_path(src, lowering.checker_names) if path else ""
    if not result_type:
        from engine.dsl import cel_syntax

        result_type = cel_syntax.check(src, lowering.checker_names)
    if result_type == "optional":
        raise ExpressionSyntaxError(
            "the result is optional", max(len(src) - 1, 0), "end it with .orValue(...)"
        )
    if result_type in ("bytes", "uint", "type"):
        raise ExpressionSyntaxError(f"the result is of type {result_type}, which JSON does not have")
    if result_type == "dyn" and is_number(shape):
        result_type = "number"
    return Compiled(src, tuple(sorted(lowering.refs)), _encode(code), result_type, lowering.unguarded, shape)


def _plain_path(src: str) -> list[tuple[str, int]]:
    """`a.b.c` as words with their offsets; empty if it is anything else."""
    if not _PATH.fullmatch(src):
        return []
    path: list[tuple[str, int]] = []
    at = 0
    for word in src.split("."):
        if word in _RESERVED:
            return []
        path.append((word, at))
        at += len(word) + 1
    return path


def _type_of_path(src: str, names: tuple[tuple[str, str], ...]) -> str:
    """The type of a plain path where its names tell it, else "".

    It spares most definitions the native checker, whose import alone takes longer than all the rest of a check.
    """
    if len(names) != 1:
        return ""
    name, kind = names[0]
    if src == name:
        return kind.partition("<")[0]
    return "dyn" if kind in ("map", "dyn") else ""


def evaluate(entry: Entry, bindings: Mapping[str, Any]) -> Any:
    """The JSON value of a compiled expression; only the names in its `refs` are read.

    `bindings` may lack a name (an input that was not given): reading it is an error, `has()` is false.
    Raises ExpressionError, whose message begins with the expression.
    """
    bound = {name: bindings[name] for name in entry["refs"] if name in bindings}
    try:
        return run(entry["code"], bound)
    except ExpressionError as error:
        raise ExpressionError(f"{_shown(entry['src'])}: {error.message}") from None


def _shown(src: str) -> str:
    line = " ".join(src.split())
    return line if len(line) <= 120 else line[:117] + "..."
