"""What expressions mean, what they refuse, and what bounds them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dsl.cel_conversions import double_text
from engine.dsl.cel_functions import FUNCTIONS
from engine.dsl.cel_values import MAX_ITEMS, MAX_TEXT
from engine.dsl.expressions import (
    Compiled,
    Environment,
    ExpressionError,
    ExpressionSyntaxError,
    compile_expression,
    evaluate,
    schema_of,
)

INPUTS = {
    "type": "object",
    "required": ["service"],
    "properties": {
        "service": {"type": "string"},
        "count": {"type": "integer"},
        "note": {"type": "string"},
        "regions": {"type": "array", "items": {"type": "string"}},
        "target": {"type": "object", "properties": {"host": {"type": "string"}}},
        "free": {"type": "object"},
    },
}
ENV = Environment(
    {
        "tasks.build.outputs": "dyn",
        "tasks.build.status": "string",
        "tasks.build.error": "dyn",
        "tasks.test.outputs": "dyn",
        "run.id": "string",
        "result": "dyn",
        "x": "dyn",
        "m": "map",
    },
    {"inputs": INPUTS, "env": schema_of({"api": "https://a", "limit": 3})},
)
DATA: dict[str, Any] = {
    "inputs": {"service": "web", "count": 3, "regions": ["eu", "us"]},
    "inputs.service": "web",
    "inputs.count": 3,
    "inputs.regions": ["eu", "us"],
    "inputs.target": {"host": "h"},
    "env.api": "https://a",
    "env.limit": 3,
    "tasks.build.outputs": {"image": "web:1"},
    "tasks.build.status": "COMPLETED",
    "run.id": "r1",
    "result": {"body": {"ok": True}},
    "m": {"b": 1, "a": 2},
}


def compiled(src: str) -> Compiled:
    return compile_expression(src, ENV)


def value(src: str, **data: Any) -> Any:
    return evaluate(compiled(src).entry(), {**DATA, **data})


def failure(src: str, **data: Any) -> str:
    with pytest.raises(ExpressionError) as caught:
        value(src, **data)
    return caught.value.message


def fault(src: str) -> ExpressionSyntaxError:
    with pytest.raises(ExpressionSyntaxError) as caught:
        compiled(src)
    return caught.value


@pytest.mark.parametrize(
    ("src", "expected"),
    [
        ("inputs.service", "web"),
        ("inputs['service']", "web"),
        ("inputs", DATA["inputs"]),
        ("size(inputs)", 3),
        ("inputs.?note.orValue('none')", "none"),
        ("inputs.?service.orValue('none')", "web"),
        ("has(inputs.note) ? inputs.note : 'none'", "none"),
        ("has(inputs.service) && inputs.service == 'web'", True),
        ("has(inputs.target.host)", True),
        ("[?inputs.?note, 'a']", ["a"]),
        ("{?'note': inputs.?note, 'b': 1}", {"b": 1}),
        ("inputs.?count.optMap(n, n + 1).orValue(0)", 4),
        ("tasks.build.outputs.?image.orValue('')", "web:1"),
        ("result.body.ok", True),
        ("inputs.count + 1", 4),
        ("inputs.count > 2.5", True),
        ("double(inputs.count) / 2.0", 1.5),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("m.map(k, k)", ["a", "b"]),
        ("m.filter(k, m[k] > 1)", ["a"]),
        ("[[1, 2], [3]].map(x, x.map(x, x * 2))", [[2, 4], [6]]),
        ("[1, 2, 3].exists(i, i == 2) && [1, 2].all(i, i > 0) && [1, 2].exists_one(i, i > 1)", True),
        ("[0, 1].exists(i, 1 / i > 0)", True),
        ("1 / 0 > 0 || true", True),
        ("false && 1 / 0 > 0", False),
        ("'b' in ['a', 'b'] && 'a' in m && !('z' in m)", True),
        ("dyn(true) == dyn(1)", False),
        ("[1, 2] == [1, 2] && {'a': 1} == {'a': 1}", True),
        ("'a,b'.split(',').join('-').upperAscii()", "A-B"),
        ("'release-1.2'.matches('^release-[0-9.]+$')", True),
        ("type(inputs.count) == int", True),
        ("timestamp('2026-01-31T08:00:00Z') + duration('90m')", "2026-01-31T09:30:00Z"),
        ("timestamp('2026-01-31T08:00:00+02:00').getHours()", 6),
        ("timestamp('2026-01-31T08:00:00Z').getHours('+01:00')", 9),
        ("timestamp('2026-01-31T08:00:00Z') - timestamp('2026-01-31T07:00:00Z') > duration('30m')", True),
        ("range(3)", [0, 1, 2]),
        ("range(5, 0, -2)", [5, 3, 1]),
        ("flatten([[1], [2, [3]]])", [1, 2, [3]]),
        ("flatten([[1], [2, [3]]], 2)", [1, 2, 3]),
        ("product([[1, 2], ['a']])", [[1, "a"], [2, "a"]]),
        ("product({'os': ['linux', 'mac'], 'v': [1]})", [{"os": "linux", "v": 1}, {"os": "mac", "v": 1}]),
        ("sort([3, 1.5, 2])", [1.5, 2, 3]),
        ("sort(['b', 'a'])", ["a", "b"]),
        ("distinct([1, 1.0, true, 'a', 'a', [1], [1]])", [1, True, "a", [1]]),
        ("sum([1, 2])", 3),
        ("sum([1, 0.5])", 1.5),
        ("sum([])", 0),
        ("merge({'a': 1, 'b': 1}, {'b': 2})", {"a": 1, "b": 2}),
        ("merge([{'a': 1}, {'b': 2}, {'a': 3}])", {"a": 3, "b": 2}),
        ('parse_json(\'{"n": 1, "f": 1.0, "z": null}\')', {"n": 1, "f": 1.0, "z": None}),
        ("to_json({'b': 1, 'a': 'é'})", '{"a":"é","b":1}'),
    ],
)
def test_means(src: str, expected: Any) -> None:
    got = value(src)
    assert got == expected
    assert json.dumps(got) == json.dumps(expected, sort_keys=True) or isinstance(expected, (dict, list))


@pytest.mark.parametrize(
    ("src", "offset", "message", "hint"),
    [
        ("inputs.servce", 7, "unknown name 'inputs.servce'", "did you mean 'inputs.service'?"),
        ("1 + size(inputs.servce)", 16, "unknown name 'inputs.servce'", "did you mean 'inputs.service'?"),
        ("tasks.my-task.outputs", 6, "unknown name 'tasks.my'", "a dash is a minus here: `my_task`"),
        ("'é😀' + inputs.servce", 14, "unknown name 'inputs.servce'", "did you mean 'inputs.service'?"),
        (
            "inputs.service +\n  inputs.servce",
            26,
            "unknown name 'inputs.servce'",
            "did you mean 'inputs.service'?",
        ),
        ("inputs['servce']", 7, "unknown name 'inputs.servce'", "did you mean 'inputs.service'?"),
        ("has(inputs.servce)", 11, "unknown name 'inputs.servce'", "did you mean 'inputs.service'?"),
        ("inputs.target.hst", 14, "unknown field 'hst'", "did you mean 'host'?"),
        ("tasks.biuld.outputs", 6, "unknown name 'tasks.biuld'", "did you mean 'tasks.build'?"),
        (
            "tasks.build.outpts",
            12,
            "unknown name 'tasks.build.outpts'",
            "did you mean 'tasks.build.outputs'?",
        ),
        ("tasks.build", 0, "'tasks.build' has no value of its own", "it has error, outputs, status"),
        ("rnge(3)", 0, "unknown function 'rnge'", "did you mean 'range'?"),
        ("[1].sort()", 4, "unknown method 'sort'", "write sort(x, ...)"),
        ("range()", 0, "'range' takes 1 to 3 arguments, not 0", ""),
        ("1 + 'a'", 2, "'+' does not take (int, string)", ""),
        ("1 + 1.5", 2, "'+' does not take (int, double)", "convert with double() or int()"),
        ("inputs.?note", 11, "the result is optional", "end it with .orValue(...)"),
        ("b'a'", 0, "JSON has no bytes and no unsigned numbers", "leave the prefix or suffix out"),
        ("{1: 'a'}", 1, "a key of a map must be a string", ""),
    ],
)
def test_faults_are_found_at_their_place(src: str, offset: int, message: str, hint: str) -> None:
    found = fault(src)
    assert (found.offset, found.message, found.hint) == (offset, message, hint)


@pytest.mark.parametrize(
    "src",
    ["", "1 +", "'a", "a b", "(" * 100, "x" + ".a" * 100, "1" + "+1" * 100, "x" * 20_000, "\0", "'\ud800'"],
)
def test_what_is_no_expression_is_refused(src: str) -> None:
    assert 0 <= fault(src).offset <= max(len(src), 0)


def test_a_macro_that_copies_its_target_cannot_explode() -> None:
    assert "more than 8 times" in fault("optional.of(1)" + ".optMap(a, a)" * 30 + ".value()").message


@pytest.mark.parametrize(
    ("src", "reason"),
    [
        ("inputs.note", "inputs.note has no value"),
        ("result.missing", "no such key 'missing'"),
        ("result.body.ok.deeper", "no field 'deeper' in a value of type bool"),
        ("1 / 0", "division by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("inputs.count + 1.5", "convert with double() or int()"),
        ("inputs.regions[2]", "index 2 is outside of a list of 2"),
        ("x ? 1 : 2", "'?:' does not take (null_type)"),
        ("m.map(k, dyn(k) / 2)", "'/' does not take (string, int)"),
        ("sort([1, dyn('a')])", "mixes"),
        ("sum(['a'])", "more than numbers"),
        ("parse_json('{')", "not JSON"),
        ("parse_json('NaN')", "not JSON"),
        ("'a'.matches('[')", "missing ]"),
        ("timestamp('2026-01-31T08:00:00Z').getHours('Europe/Rome')", "offset such as +01:00"),
        ("timestamp('2026-02-31T08:00:00Z')", "not a time that exists"),
        ("optional.none().value()", "not there"),
        ("double('inf')", "not a finite number"),
        ("[dyn(optional.of(1))]", "optional"),
    ],
)
def test_failures_are_expression_errors_that_begin_with_the_source(src: str, reason: str) -> None:
    message = failure(src, x=None)
    assert message.startswith(src)
    assert reason in message


@pytest.mark.parametrize("src", ["double(x)", "sum([1.5, x])", "double(x) > 1.0"])
def test_a_whole_number_that_no_double_can_hold_is_an_expression_error(src: str) -> None:
    assert "too large for a double" in failure(src, x=10**400)


@pytest.mark.parametrize(
    ("src", "data"),
    [
        ("range(100000)", None),
        (f"range({MAX_ITEMS}).map(i, range({MAX_ITEMS}).map(j, i * j))", None),
        ("range(1000).map(i, range(1000).map(j, range(1000).exists(k, k < 0)))", None),
        ("x + x", "a" * (MAX_TEXT - 1)),
        ("x.replace('a', x)", "a" * (MAX_TEXT - 1)),
        ("range(10000).map(i, x)", "a" * 1000),
        ("range(10000).map(i, x).join('')", "a" * 1000),
        ("range(10000).map(i, x + string(i)).size()", "a" * 100_000),
        ("x.all(i, x.all(j, i == j))", ["a" * 100_000] * 1000),
        ("x.all(i, i.matches('((x{30}){30}y{1,1000})') || true)", ["a"] * 5000),
        ("product([range(1000), range(1000)])", None),
        ("flatten(x)", [[1] * 1000] * 100),
        ("x == x", json.loads("[" * 500 + "]" * 500)),
        ("x", json.loads("[" * 500 + "]" * 500)),
        ("distinct([x])", json.loads("[" * 500 + "]" * 500)),
        ("parse_json(x)", "[" * 200_000),
        ("parse_json(x)", "1" * 5000),
        ("x", 2**63),
    ],
)
def test_work_and_size_are_bounded(src: str, data: Any) -> None:
    started = time.process_time()
    failure(src, x=data)
    # A bound that a hang would pass, not a measurement; of the work alone, however busy the machine is.
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("src", "unguarded"),
    [
        ("tasks.build.outputs", set()),
        ("tasks.build.outputs.image", {"build"}),
        ("tasks.build.outputs['image']", {"build"}),
        ("tasks.build.outputs.a.?b.orValue(1)", {"build"}),
        ("tasks.build.outputs.?image.orValue('')", set()),
        ("has(tasks.build.outputs.image) ? tasks.build.outputs.image : ''", set()),
        ("has(tasks.build.outputs.a.b) ? tasks.build.outputs.a.b : ''", {"build"}),
        ("'image' in tasks.build.outputs ? tasks.build.outputs.image : ''", set()),
        ("tasks.build.status == 'COMPLETED' ? tasks.build.outputs.image : ''", set()),
        ("tasks.build.status == 'COMPLETED' ? tasks.test.outputs.n : 0", {"test"}),
    ],
)
def test_reads_of_outputs_that_may_not_be_there_are_told(src: str, unguarded: set[str]) -> None:
    # A test of a deeper field reads the one above it.
    assert set(compiled(src).unguarded) == unguarded


def test_only_what_is_read_is_bound() -> None:
    assert compiled("inputs.service + env.api").refs == ("env.api", "inputs.service")
    assert compiled("inputs.?note.orValue('')").refs == ("inputs.note",)
    assert compiled("has(inputs.note)").refs == ("inputs.note",)
    assert compiled("inputs.map(k, k)").refs == ("inputs",)
    assert compiled("['a'].map(inputs, inputs)").refs == ()


def test_a_field_of_an_open_object_is_not_questioned() -> None:
    assert value("inputs.free.whatever", **{"inputs.free": {"whatever": 1}}) == 1
    open_inputs = Environment({}, {"inputs": {"type": "object"}})
    assert compile_expression("inputs.anything", open_inputs).refs == ("inputs.anything",)


@pytest.mark.parametrize(
    ("src", "expected"),
    [
        ("1 > 2", "bool"),
        ("inputs.service", "string"),
        ("inputs.count", "number"),
        ("result.body", "dyn"),
        ("[1]", "list"),
        ("'a'", "string"),
    ],
)
def test_the_type_of_the_result_is_known(src: str, expected: str) -> None:
    found = compiled(src)
    assert found.result_type == expected
    assert found.may_be_bool == (expected in ("bool", "dyn"))


# CEL's own engine cuts a key at NUL, so that there is nothing to compare with.
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_json_goes_in_and_comes_out_as_it_was(data: Any) -> None:
    got = value("x", x=data)
    assert json.dumps(got) == json.dumps(data, sort_keys=True)
    text = value("to_json(x)", x=data)
    assert json.dumps(value("parse_json(x)", x=text)) == json.dumps(data, sort_keys=True)


@pytest.mark.parametrize(
    "src",
    ["inputs", "inputs.service", "inputs.target.host", "inputs.servce", "tasks.build.outputs.a.b", "tasks.build", "run.idd",
     "env.api.x", "result.loop.in", "string", "true", "null", "x.true", "package", "inputs.service.foo", "x." + "a." * 20 + "b"],
)  # fmt: skip
def test_a_plain_path_means_the_same_as_through_the_parser(src: str) -> None:
    def outcome(text: str) -> Any:
        try:
            found = compiled(text)
        except ExpressionSyntaxError as error:
            return error.message, error.offset, error.hint
        return found.refs, found.code, found.result_type, found.unguarded

    # A trailing comment keeps the expression from being a plain path.
    assert outcome(src) == outcome(f"{src}//")


def test_a_result_shares_nothing_with_the_data() -> None:
    data = {"a": [1]}
    got = value("x", x=data)
    got["a"].append(2)
    assert data == {"a": [1]}


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=200, deadline=None)
def test_the_text_of_a_double_reads_back(number: float) -> None:
    assert float(double_text(number)) == number
    assert math.copysign(1, float(double_text(number))) == math.copysign(1, number)


_NATIVE_ENV: dict[str, Any] = {}


def native(src: str, data: dict[str, Any]) -> Any:
    """What CEL's own engine makes of the expression; None of ours, an exception for an error."""
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_optional, ext_strings

    if "env" not in _NATIVE_ENV:
        _NATIVE_ENV["env"] = cel.NewEnv(
            variables={"a": cel.Type.DYN, "b": cel.Type.DYN, "c": cel.Type.DYN},
            extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings()],
        )
    found = _NATIVE_ENV["env"].compile(src).eval(data=data)
    if found.type() == cel.Type.ERROR:
        raise ExpressionError(str(found.value()))
    return found.plain_value()


_LEAF = st.sampled_from(
    [
        "a",
        "b",
        "c",
        "1",
        "2",
        "0",
        "-3",
        "1.5",
        "0.5",
        "''",
        "'a'",
        "'ab'",
        "true",
        "false",
        "null",
        "[]",
        "[1, 2]",
        "['a']",
        "{'a': 1}",
    ]
)


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(
        inner,
        st.sampled_from(["+", "-", "*", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"]),
        inner,
    )
    call = st.tuples(st.sampled_from(["size", "string", "int", "bool", "-", "!", "type(1) == type"]), inner)
    method = st.tuples(
        inner,
        st.sampled_from(
            [
                "contains('a')",
                "startsWith('a')",
                "size()",
                "map(i, i)",
                "exists(i, i == 1)",
                "all(i, i == 1)",
                "filter(i, i == 1)",
            ]
        ),
    )
    return (
        binary.map(lambda t: f"(dyn({t[0]}) {t[1]} dyn({t[2]}))")
        | call.map(lambda t: f"{t[0]}(dyn({t[1]}))")
        | method.map(lambda t: f"dyn({t[0]}).{t[1]}")
        | st.tuples(inner, inner, inner).map(lambda t: f"(dyn({t[0]}) ? dyn({t[1]}) : dyn({t[2]}))")
        | st.tuples(inner, inner).map(lambda t: f"[dyn({t[0]}), dyn({t[1]})]")
    )


@given(st.recursive(_LEAF, _grow, max_leaves=8), JSON, JSON)
@settings(max_examples=400, deadline=None)
def test_the_evaluator_agrees_with_cels_own(src: str, a: Any, b: Any) -> None:
    data = {"a": {"k": a}, "b": b, "c": [1, "a", 1.5]}
    env = Environment({"a": "dyn", "b": "dyn", "c": "dyn"})
    try:
        expected = native(src, data)
    except (ExpressionError, RuntimeError):
        expected = _ERROR
    try:
        got = evaluate(compile_expression(src, env).entry(), data)
    except ExpressionSyntaxError:
        return
    except ExpressionError:
        got = _ERROR
    if isinstance(expected, float) and not math.isfinite(expected):
        expected = _ERROR
    if ".map(" in src or ".filter(" in src:
        # CEL's own engine walks maps in no order.
        got, expected = _unordered(got), _unordered(expected)
    assert json.dumps(got, sort_keys=True) == json.dumps(expected, sort_keys=True)


_ERROR = "an error, on both sides"


def _unordered(found: Any) -> Any:
    return sorted((_unordered(i) for i in found), key=repr) if isinstance(found, list) else found


def test_every_process_gives_the_same() -> None:
    script = (
        "import json\n"
        "from engine.dsl.expressions import Environment, compile_expression, evaluate\n"
        "env = Environment({'m': 'map', 'n': 'map'})\n"
        "m = {w: i for i, w in enumerate('the quick brown fox jumps over a lazy dog'.split())}\n"
        "srcs = ['m.map(k, k)', 'm', 'm.filter(k, m[k] % 2 == 0)', 'merge(m, n).map(k, k + string(m[k]))',\n"
        "        'product({\"a\": m.map(k, k), \"b\": [1, 2]})', 'distinct(m.map(k, size(k)))', 'to_json(m)']\n"
        "for src in srcs:\n"
        "    c = compile_expression(src, env)\n"
        "    print(json.dumps([c.entry(), evaluate(c.entry(), {'m': m, 'n': {'x': 1, 'the': 2}} if 'n' not in src else {'m': {**m, 'x': 1}, 'n': {'x': 1}})]))\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in range(4)
    }
    assert len(seen) == 1


def test_evaluating_does_not_load_the_native_engine() -> None:
    entry = compiled("inputs.service + '!'").entry()
    script = (
        "import sys, json\n"
        "from engine.dsl.expressions import evaluate\n"
        f"assert evaluate(json.loads({json.dumps(entry)!r}), {{'inputs.service': 'web'}}) == 'web!'\n"
        "print([m for m in sys.modules if m.startswith(('cel_expr', 'google'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_no_function_of_the_lowered_form_is_outside_of_the_closed_lists() -> None:
    for src in (
        "__import__('os')",
        "x.__class__",
        "getattr(x, 'a')",
        "x.format(['a'])",
        "env.reflect()",
        "math.pow(2, 3)",
    ):
        try:
            entry = compiled(src).entry()
        except ExpressionSyntaxError:
            continue
        assert "no " in failure(src, x="text")
        assert entry["code"]
    assert "eval" not in FUNCTIONS


_TOKENS = [
    "x",
    "1",
    "1.5",
    "'a'",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    "?",
    ":",
    ",",
    "+",
    "-",
    "!",
    "&&",
    "||",
    "map",
    "has",
    "in",
    "size",
    "optional",
    '"',
    "\\",
    "'''",
    "//",
    "é",
    "$",
    "@",
    "#",
    "0x",
    "1e",
    "1u",
    "b'",
    "r'",
    "true",
    "null",
    "x.y",
    "exists(a,",
    "`",
    "_",
    "google.protobuf.Any{}",
    "optMap(a,",
    "a)",
    "orValue(",
    "[?",
    "sort(",
    "range(",
    "999999999999999999999",
    "\n",
    " ",
    "\x7f",
]


@given(st.lists(st.sampled_from(_TOKENS), max_size=14))
@settings(max_examples=500, deadline=None)
def test_whatever_is_written_ends_in_a_value_or_a_typed_error(tokens: list[str]) -> None:
    src = "".join(tokens)
    try:
        entry = compile_expression(src, ENV).entry()
    except ExpressionSyntaxError as error:
        assert 0 <= error.offset <= len(src)  # noqa: PT017 - some of them are expressions
        return
    with contextlib.suppress(ExpressionError):
        json.dumps(evaluate(entry, {**DATA, "x": {"y": [1, "a", None]}}))
