"""Expressions in texts: where they begin and end, what they become, and that data stay data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dsl.expressions import Environment, ExpressionError, compile_expression
from engine.dsl.templates import (
    MAX_RENDERED,
    Place,
    Renderer,
    Slot,
    TemplateSyntaxError,
    compile_value,
    expressions_in,
    split,
)

ENV = Environment({"x": "dyn", "y": "dyn"})


def rendered(value: Any, **data: Any) -> Any:
    entries: list[dict[str, Any]] = []

    def compile(src: str, place: Place) -> int:
        entries.append(compile_expression(src, ENV).entry())
        return len(entries) - 1

    made = compile_value(value, compile)
    return Renderer(json.loads(json.dumps(entries))).render(json.loads(json.dumps(made)), data.__getitem__)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", ["plain"]),
        ("", [""]),
        ("${{ x }}", [Slot("x", 4)]),
        ("${{x}}", [Slot("x", 3)]),
        ("a ${{ x }} b", ["a ", Slot("x", 6), " b"]),
        ("${{ x }}${{ y }}", [Slot("x", 4), Slot("y", 12)]),
        ("$${{ x }}", ["${{ x }}"]),
        ("$$${{ x }}", ["$${{ x }}"]),
        ("$${{ ${{ x }}", ["${{ ", Slot("x", 9)]),
        ("$ {{ x }} ${ y }", ["$ {{ x }} ${ y }"]),
        ("${{ {'a': {'b': 1}} }}", [Slot("{'a': {'b': 1}}", 4)]),
        ("${{ {'a': {'b': 1}}}}", [Slot("{'a': {'b': 1}}", 4)]),
        ("${{ '}}' }}", [Slot("'}}'", 4)]),
        ("${{ 'it\\'s }}' }}!", [Slot("'it\\'s }}'", 4), "!"]),
        ("${{ r'\\' }}", [Slot("r'\\'", 4)]),
        ('${{ """a"}}""" }}', [Slot('"""a"}}"""', 4)]),
        ("${{ x // }} not yet\n }}", [Slot("x // }} not yet", 4)]),
    ],
)
def test_splits(text: str, parts: list[str | Slot]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize(
    ("text", "offset"), [("a ${{ x", 2), ("${{ x }", 6), ("${{ }}", 0), ("${{ 'a }}", 0), ("${{ x } }}", 6)]
)
def test_a_broken_template_is_told_with_its_place(text: str, offset: int) -> None:
    with pytest.raises(TemplateSyntaxError) as caught:
        split(text)
    assert caught.value.offset == offset


def test_all_faults_of_a_document_can_be_collected() -> None:
    seen: list[tuple[str | int, ...]] = []
    compile_value(
        {"a": "${{ x", "b": ["${{ }}"]},
        lambda src, place: 0,
        ("config",),
        lambda error, path: seen.append(path),
    )
    assert seen == [("config", "a"), ("config", "b", 0)]


def test_the_place_of_an_expression_is_its_path_and_offset() -> None:
    places: list[tuple[str, Place]] = []

    def compile(src: str, place: Place) -> int:
        places.append((src, place))
        return 0

    compile_value({"url": ["a", "b/${{ x }}"]}, compile, ("tasks", 0, "config"))
    assert places == [("x", Place(("tasks", 0, "config", "url", 1), 6))]


@pytest.mark.parametrize("data", [None, True, 1, 1.0, "a", [1], {"a": None}, 2**63 - 1])
def test_alone_an_expression_keeps_its_type(data: Any) -> None:
    assert json.dumps(rendered("${{ x }}", x=data)) == json.dumps(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("a", "<a>"),
        (1, "<1>"),
        (1.0, "<1.0>"),
        (True, "<true>"),
        ([1, "é"], '<[1,"é"]>'),
        ({"b": 1, "a": 2}, '<{"a":2,"b":1}>'),
    ],
)
def test_inside_text_it_becomes_text(data: Any, text: str) -> None:
    assert rendered("<${{ x }}>", x=data) == text


def test_null_inside_text_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="null has no text"):
        rendered("<${{ x }}>", x=None)


@pytest.mark.parametrize(
    "value",
    [
        {"$expr": 0},
        {"$text": ["a", 0]},
        {"$lit": {"a": 1}},
        {"a": {"$expr": "x", "b": [{"$lit": {"$lit": 1}}]}},
    ],
)
def test_a_literal_that_looks_compiled_comes_back_as_it_was(value: Any) -> None:
    assert rendered(value) == value


def test_an_expression_inside_such_a_literal_still_counts() -> None:
    assert rendered({"$lit": "${{ x }}"}, x=1) == {"$lit": 1}


SSTI = [
    "${{ y }}",
    "$${{ y }}",
    "{{ 7*7 }}",
    "${7*7}",
    "#{7*7}",
    "<%= 7*7 %>",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ config.items() }}",
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "%(y)s",
    "{0.__class__}",
    "{y.__globals__}",
    "$(id)",
    "`id`",
    "{'$expr': 0}",
    '{"$expr": 0}',
    "' + y + '",
    "}} ${{ y }} ${{",
    "*{7*7}",
    "@(7*7)",
    "{{=7*7}}",
    "[[${7*7}]]",
]


@pytest.mark.parametrize("data", SSTI)
def test_data_is_never_evaluated(data: str) -> None:
    assert rendered("${{ x }}", x=data, y="SECRET") == data
    assert rendered("a ${{ x }} b", x=data, y="SECRET") == f"a {data} b"
    assert rendered("${{ [x, x + x] }}", x=data, y="SECRET") == [data, data + data]


@pytest.mark.parametrize("data", [{"$expr": 0}, {"$text": [0]}, {"$lit": {"$expr": 0}}, [{"$expr": 1}]])
def test_data_that_looks_compiled_is_data(data: Any) -> None:
    assert rendered({"a": "${{ x }}", "b": "${{ y }}"}, x=data, y="SECRET") == {"a": data, "b": "SECRET"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["$expr", "$text", "$lit"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_what_holds_no_expression_renders_to_itself(value: Any) -> None:
    assert rendered(value) == value


@given(st.text(st.sampled_from("${} x'\"\\/r\n"), max_size=24))
@settings(max_examples=500, deadline=None)
def test_splitting_loses_nothing(text: str) -> None:
    try:
        parts = split(text)
    except TemplateSyntaxError as error:
        assert 0 <= error.offset <= len(text)  # noqa: PT017 - most texts are no error
        return
    for part in parts:
        if isinstance(part, Slot):
            assert text[part.offset : part.offset + len(part.src)] == part.src
    assert "".join(p for p in parts if isinstance(p, str)).count("${{") == text.count("$${{")


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_written_with_the_escape(text: str) -> None:
    assert rendered(text.replace("${{", "$${{")) == text


def test_a_rendered_value_is_bounded() -> None:
    with pytest.raises(ExpressionError, match="larger"):
        rendered(["${{ x }}"] * 10, x="a" * (MAX_RENDERED // 8))


def test_the_names_that_a_value_reads_are_known_before() -> None:
    entries = [compile_expression(src, ENV).entry() for src in ("x + 1", "y", "x")]
    value = {"a": {"$expr": 0}, "b": [{"$text": ["-", 1]}], "c": {"$lit": {"$expr": {"$expr": 2}}}}
    assert expressions_in(value) == [0, 1, 2]
    assert Renderer(entries).refs(value) == ["x", "y"]
