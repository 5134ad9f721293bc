"""CEL's parser and type checker; the only module that imports cel_expr_python.

It reads and judges expressions; it never evaluates one (but for RE2 patterns).  The engine's own evaluator
walks maps in the order of their hash, which differs from process to process, and copies every bound value.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

from engine.dsl import cel_wire
from engine.dsl.cel_values import ExpressionError, ExpressionSyntaxError

MAX_SOURCE = 16_384
"""Characters in one expression."""

MAX_COPIES = 8
"""Uses of `optMap` and `optFlatMap`: each copies its target in the parser, so that 20 in a chain eat all memory."""

_COPYING = re.compile(r"\bopt(?:Flat)?Map\b")

# What we read of the public schema cel/expr/syntax.proto; unknown fields are ignored.
# Fields marked `|` are alternatives (`oneof`).
_SCHEMA: dict[str, list[tuple[str, int, str]]] = {
    "Any": [("value", 2, "bytes")],
    "ParsedExpr": [("expr", 2, "Expr"), ("source_info", 3, "SourceInfo")],
    "SourceInfo": [("positions", 4, "repeated Position")],
    "Position": [("key", 1, "int64"), ("value", 2, "int32")],
    "Expr": [
        ("id", 2, "int64"),
        ("const_expr", 3, "|Constant"),
        ("ident_expr", 4, "|Ident"),
        ("select_expr", 5, "|Select"),
        ("call_expr", 6, "|Call"),
        ("list_expr", 7, "|CreateList"),
        ("struct_expr", 8, "|CreateStruct"),
        ("comprehension_expr", 9, "|Comprehension"),
    ],
    "Constant": [
        ("null_value", 1, "|enum"),
        ("bool_value", 2, "|bool"),
        ("int64_value", 3, "|int64"),
        ("uint64_value", 4, "|uint64"),
        ("double_value", 5, "|double"),
        ("string_value", 6, "|string"),
        ("bytes_value", 7, "|bytes"),
    ],
    "Ident": [("name", 1, "string")],
    "Select": [("operand", 1, "Expr"), ("field", 2, "string"), ("test_only", 3, "bool")],
    "Call": [("target", 1, "Expr"), ("function", 2, "string"), ("args", 3, "repeated Expr")],
    "CreateList": [("elements", 1, "repeated Expr"), ("optional_indices", 2, "repeated int32")],
    "CreateStruct": [("message_name", 1, "string"), ("entries", 2, "repeated Entry")],
    "Entry": [
        ("id", 1, "int64"),
        ("field_key", 2, "string"),
        ("map_key", 3, "Expr"),
        ("value", 4, "Expr"),
        ("optional_entry", 5, "bool"),
    ],
    "Comprehension": [
        ("iter_var", 1, "string"),
        ("iter_range", 2, "Expr"),
        ("accu_var", 3, "string"),
        ("accu_init", 4, "Expr"),
        ("loop_condition", 5, "Expr"),
        ("loop_step", 6, "Expr"),
        ("result", 7, "Expr"),
    ],
}


_MESSAGES = cel_wire.define(_SCHEMA)


def _function(name: str, result: Any, *overloads: list[Any]) -> Any:
    return cel.FunctionDecl(
        name,
        [cel.Overload(f"pinflow_{name}_{i}", result, parameters) for i, parameters in enumerate(overloads)],
    )


@lru_cache(maxsize=1)
def _declarations() -> tuple[list[Any], list[Any]]:
    """The extensions of CEL in use, and the functions that Pinflow adds."""
    t = cel.Type
    anything, maps = t.List(t.DYN), t.Map(t.STRING, t.DYN)
    return [ext_optional.ExtOptional(), ext_strings.ExtStrings()], [
        _function("range", t.List(t.INT), [t.INT], [t.INT, t.INT], [t.INT, t.INT, t.INT]),
        _function("flatten", anything, [anything], [anything, t.INT]),
        _function("product", t.List(t.DYN), [anything], [maps]),
        _function("sort", anything, [anything]),
        _function("distinct", anything, [anything]),
        _function("sum", t.DYN, [anything]),
        _function("merge", maps, [maps, maps], [anything]),
        _function("parse_json", t.DYN, [t.STRING]),
        _function("to_json", t.STRING, [t.DYN]),
    ]


@lru_cache(maxsize=512)
def _environment(names: tuple[tuple[str, str], ...]) -> Any:
    extensions, functions = _declarations()
    variables = {name: _type(kind) for name, kind in names}
    return cel.NewEnv(variables=variables, extensions=extensions, functions=functions)


@lru_cache(maxsize=64)
def _type(kind: str) -> Any:
    t = cel.Type
    if kind.startswith("list<"):
        return t.List(_type(kind[5:-1]))
    plain = {"string": t.STRING, "int": t.INT, "double": t.DOUBLE, "bool": t.BOOL, "null": t.NULL}
    if kind == "list":
        return t.List(t.DYN)
    if kind == "map":
        return t.Map(t.STRING, t.DYN)
    return plain.get(kind, t.DYN)


def parse(source: str) -> tuple[Any, dict[int, int]]:
    """The tree of `source` as in cel/expr/syntax.proto, and the offset of each node by its id.

    Raises ExpressionSyntaxError.
    """
    if len(source) > MAX_SOURCE:
        raise ExpressionSyntaxError(f"an expression has {len(source)} characters (limit {MAX_SOURCE})")
    if len(_COPYING.findall(source)) > MAX_COPIES:
        raise ExpressionSyntaxError(
            f"optMap stands more than {MAX_COPIES} times", hint="use ?: or a `set` task"
        )
    if bad := next((i for i, c in enumerate(source) if "\ud800" <= c <= "\udfff" or c == "\0"), None):
        raise ExpressionSyntaxError("a character that no expression can hold", bad)
    try:
        serialised = _common_environment().compile(source, disable_check=True).serialize()
        packed = cel_wire.decode(_MESSAGES["Any"], serialised)
        parsed = cel_wire.decode(_MESSAGES["ParsedExpr"], packed.value)
    except cel_wire.DecodeError:
        raise ExpressionSyntaxError(
            "the expression is nested too deeply", hint="split it over a `set` task"
        ) from None
    except (RuntimeError, ValueError, TypeError) as error:
        raise _syntax_error(source, str(error)) from None
    return parsed.expr, {p.key: p.value for p in parsed.source_info.positions}


@lru_cache(maxsize=1024)
def check(source: str, names: tuple[tuple[str, str], ...]) -> str:
    """The type of the result, given the types of `names`; raises ExpressionSyntaxError where types clash."""
    canonical = _with_types_for_names(source, dict(names))
    if canonical is not None:
        try:
            return _type_in_words(canonical)
        except (RuntimeError, ValueError, TypeError):
            pass  # the fault must be told of the text as written
    try:
        compiled = _environment(names).compile(source)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _syntax_error(source, str(error)) from None
    return _result_type(str(compiled.return_type()))


# The checker's environment costs milliseconds to make, for every new set of names, and a check microseconds. Only
# the types of names matter to it: so each name becomes a word for its type, and one environment serves all.
_WORD_OF_TYPE = {
    kind: f"a_{kind.replace('<', '_of_').strip('>')}"
    for kind in ("string", "bool", "null", "list", "map", "dyn", "list<string>", "list<bool>", "list<map>")
}
_NAMES_AND_STRINGS = re.compile(
    r"""//[^\n]*
      | [rRbB]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3} | \"(?:\\.|[^"\\\n])*\" | '(?:\\.|[^'\\\n])*')
      | (?<![\w.])(?P<name>[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*)""",
    re.VERBOSE | re.DOTALL,
)
_MACRO_VARIABLE = re.compile(r"\(\s*([A-Za-z_]\w*)\s*,")


def _with_types_for_names(source: str, names: dict[str, str]) -> str | None:
    """`source` with each name replaced by a word for its type; None where that could change its meaning.

    A name that is not recognised stays and is unknown to the checker, which leads back to the slow way.
    """
    roots = {name.partition(".")[0] for name in names}
    if not all(kind in _WORD_OF_TYPE for kind in names.values()) or roots & set(
        _MACRO_VARIABLE.findall(source)
    ):
        return None

    def replaced(found: re.Match[str]) -> str:
        if found["name"] is None:
            return found[0]
        words = [word.strip() for word in found["name"].split(".")]
        for count in range(len(words), 0, -1):
            kind = names.get(".".join(words[:count]))
            if kind is not None:
                return ".".join([_WORD_OF_TYPE[kind], *words[count:]])
        return found[0]

    return _NAMES_AND_STRINGS.sub(replaced, source)


@lru_cache(maxsize=4096)
def _type_in_words(source: str) -> str:
    return _result_type(str(_common_environment().compile(source).return_type()))


def _common_environment() -> Any:
    """The environment that serves for all parsing, where names do not matter, and nearly all checking."""
    return _environment(tuple((word, kind) for kind, word in _WORD_OF_TYPE.items()))


def _result_type(name: str) -> str:
    word = name.partition("<")[0].lower()
    return {"optional_type": "optional", "null": "null", "google.protobuf.timestamp": "timestamp"}.get(
        word, word
    )


_WHERE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_OPERATOR = re.compile(r"found no matching overload for '([^']*)' applied to '\((.*)\)'")


def _syntax_error(source: str, text: str) -> ExpressionSyntaxError:
    match = _WHERE.search(text)
    if not match:
        first = text.partition("\n")[0].removeprefix("INVALID_ARGUMENT: ").strip()
        return ExpressionSyntaxError(first[:300] or "not an expression")
    lines = source.split("\n")
    line = min(int(match[1]), len(lines)) - 1
    offset = sum(len(above) + 1 for above in lines[:line]) + max(int(match[2]) - 1, 0)
    message, hint = _plain(match[3])
    return ExpressionSyntaxError(message, min(offset, len(source)), hint)


def _plain(message: str) -> tuple[str, str]:
    """The engine's message in our words, and a hint."""
    message = message.removesuffix("[INVALID_ARGUMENT]").strip().removesuffix("(in container '')").strip()
    overload = _OPERATOR.fullmatch(message)
    if overload:
        operator = "? :" if overload[1] == "_?_:_" else overload[1].strip("_") or overload[1]
        kinds = set(overload[2].split(", "))
        hint = "convert with double() or int()" if kinds == {"int", "double"} else ""
        return f"'{operator.removeprefix('@')}' does not take ({overload[2]})", hint
    if message.startswith("Syntax error:"):
        message = "syntax error:" + message.removeprefix("Syntax error:").partition(" expecting ")[0]
        return message, "strings need quotes, and names follow CEL: a-b is a minus b"
    return message, ""


@lru_cache(maxsize=1)
def _regex_program() -> Any:
    return cel.NewEnv(variables={"t": cel.Type.STRING, "p": cel.Type.STRING}).compile("t.matches(p)")


def re2_search(text: str, pattern: str) -> bool:
    """Whether RE2 finds `pattern` in `text`: linear in time, no back-references. Raises ExpressionError."""
    try:
        found = _regex_program().eval(data={"t": text, "p": pattern})
        if found.type() == cel.Type.BOOL:
            return bool(found.value())
        reason = str(found.value()).removeprefix("INVALID_ARGUMENT: ")
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
    raise ExpressionError(f"matches(): {reason[:200]}")
