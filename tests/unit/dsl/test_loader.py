"""YAML text to data and positions."""

from __future__ import annotations

import pytest

from engine.dsl import codes, loader
from engine.dsl.loader import Document


def document(text: str) -> Document:
    loaded = loader.load(text.encode(), "f.yaml")
    assert isinstance(loaded, Document), loaded
    return loaded


def refusal(text: str | bytes) -> tuple[str, int, int]:
    loaded = loader.load(text.encode() if isinstance(text, str) else text, "f.yaml")
    assert isinstance(loaded, list)
    (problem,) = loaded
    assert problem.file == "f.yaml"
    return problem.code, problem.line, problem.column


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"), ("no", "no"), ("yes", "yes"), ("12:30", "12:30"), ("2024-01-02", "2024-01-02"),
        ("2024-13-45", "2024-13-45"), ("0x1F", 31), ("0o17", 15), ("010", 10), ("1e3", 1000.0), (".5", 0.5),
        ("-7", -7), ("~", None), ("null", None), ("", None), ("true", True), ("False", False), ("'1'", "1"),
        ('"true"', "true"), ("1.2.3", "1.2.3"), ("1_000", "1_000"), ("-", None), ("+1:30", "+1:30"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2_core(written: str, value: object) -> None:
    if written == "-":
        assert document("a: -x\n").data == {"a": "-x"}
        return
    loaded = document(f"a: {written}\n").data["a"]
    assert loaded == value
    assert type(loaded) is type(value)


def test_a_key_that_begins_like_a_number_is_text() -> None:
    assert document("-x: 1\n1.2.3: 2\n").data == {"-x": 1, "1.2.3": 2}


def test_a_byte_order_mark_is_no_column() -> None:
    loaded = loader.load(b"\xef\xbb\xbfa: 1\n")
    assert isinstance(loaded, Document)
    assert loaded.at_key(("a",)) == (1, 1)


def test_a_repeated_key_names_both_lines() -> None:
    loaded = loader.load(b"a: 1\nb: 2\n'a': 3\n")
    assert isinstance(loaded, list)
    assert (loaded[0].code, loaded[0].line) == (codes.DUPLICATE_KEY, 3)
    assert "line 1" in loaded[0].message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\n", (codes.ANCHOR, 1, 4)),
        ("a: *x\n", (codes.ANCHOR, 1, 4)),
        ("&a b: 1\n", (codes.ANCHOR, 1, 1)),
        ("a: {<<: {b: 1}}\n", (codes.ANCHOR, 1, 5)),
        ("a: !!str 1\n", (codes.TAG, 1, 4)),
        ("!!map {a: 1}\n", (codes.TAG, 1, 1)),
        ("!!str a: 1\n", (codes.TAG, 1, 1)),
        ("1: a\n", (codes.KEY, 1, 1)),
        ("[a]: 1\n", (codes.KEY, 1, 1)),
        ("a: 1\n---\nb: 2\n", (codes.YAML, 2, 1)),
        ("", (codes.YAML, 1, 1)),
        ("# nothing\n", (codes.YAML, 1, 1)),
        ("a: .nan\n", (codes.SCALAR, 1, 4)),
        ("a: -.inf\n", (codes.SCALAR, 1, 4)),
        ("a: 1e999\n", (codes.SCALAR, 1, 4)),
        ("a: 12345678901234567890\n", (codes.SCALAR, 1, 4)),
        ('a: "\\0"\n', (codes.SCALAR, 1, 4)),
        (b"a: 1\nb: \xff\n", (codes.ENCODING, 2, 4)),
        (b"a: \xed\xa0\x80", (codes.ENCODING, 1, 4)),
        ("a: 1".encode("utf-16"), (codes.ENCODING, 1, 1)),
        ("a: \x01\n", (codes.YAML, 1, 4)),
        ("a:\n\tb: 1\n", (codes.YAML, 2, 1)),
    ],
)
def test_what_is_not_of_the_language_is_refused_where_it_stands(
    text: str | bytes, expected: tuple[str, int, int]
) -> None:
    assert refusal(text) == expected


def test_an_ampersand_in_text_is_no_anchor() -> None:
    assert document("a: x && y\nb: ${{ c &d }}\nc: 'R&D'\n").data["a"] == "x && y"


@pytest.mark.parametrize("text", ["a: {b: ${{ x }}}\n", "a: ${{ b ? c : d }}\n", "a: ${{ x }}: y\n"])
def test_a_yaml_error_at_an_expression_says_to_quote_it(text: str) -> None:
    loaded = loader.load(text.encode())
    assert isinstance(loaded, list)
    assert "quote this expression" in loaded[0].hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n  - b: 1\n   c: 2\n", "indentation"),
        ("a:\n  b: 1\n c: 2\n", "indentation"),
        ("a: see: this\n", "quote a text"),
    ],
)
def test_a_yaml_error_says_what_people_usually_did(text: str, hint: str) -> None:
    loaded = loader.load(text.encode())
    assert isinstance(loaded, list)
    assert hint in loaded[0].hint


def test_positions_of_keys_and_values() -> None:
    loaded = document("a:\n  - b: 1\n    cd:  x\n")
    assert loaded.at_value(("a", 0, "cd")) == (3, 10)
    assert loaded.at_key(("a", 0, "cd")) == (3, 5)
    assert loaded.at_key(("a", 0)) == (2, 5)


def test_the_position_of_what_is_missing_is_that_of_its_nearest_parent() -> None:
    assert document("a:\n  b: 1\n").at_value(("a", "c", "d")) == (2, 3)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: x ${{ bad }}\n", (1, 10)),
        ("a: 'x ${{ bad }}'\n", (1, 11)),
        ('a: "x ${{ bad }}"\n', (1, 11)),
        ("a: |\n  one\n  ${{ bad }}\n", (3, 7)),
        ("a: >-\n  one\n  two\n\n  ${{ bad }}\n", (5, 7)),
        ('a: "\\ttab ${{ bad }}"\n', (1, 15)),
        ("a: 'it''s ${{ bad }}'\n", (1, 15)),
        ("a: one\n  two ${{ bad }}\n", (2, 11)),
    ],
)
def test_a_character_inside_of_a_scalar_is_found_in_the_file(text: str, place: tuple[int, int]) -> None:
    loaded = document(text)
    assert loaded.inside(("a",), loaded.data["a"].index("bad")) == place


def test_where_escapes_hide_an_expression_its_scalar_is_named() -> None:
    loaded = document('a: "\\u0024{{ bad }}"\n')
    assert loaded.inside(("a",), loaded.data["a"].index("bad")) == (1, 4)


def test_version_as_written_can_be_had() -> None:
    assert document("version: 1.10\n").raw(("version",)) == "1.10"
