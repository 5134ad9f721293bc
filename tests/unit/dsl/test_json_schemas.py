"""JSON Schemas that stand in definitions: checked, closed to the network, bounded."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from engine.dsl.json_schemas import check_user_schema, compile_schema


def messages(schema: dict[str, Any]) -> list[str]:
    return [fault.message for fault in check_user_schema(schema)]


def test_local_references_work() -> None:
    assert messages({"$defs": {"t": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/t"}}}) == []


@pytest.mark.parametrize(
    "reference",
    ["http://127.0.0.1:9/x", "file:///etc/passwd", "other.json", "#nope", "#/nope", "#/$defs/a~0"],
)
def test_a_reference_leads_nowhere_else_and_opens_no_connection(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert messages({"properties": {"a": {"$ref": reference}}})


@pytest.mark.parametrize("index", ["1", "-1", "²", "9" * 5_000, ""])
def test_a_reference_into_a_list_needs_a_number_that_is_there(index: str) -> None:
    assert messages({"allOf": [{}], "properties": {"a": {"$ref": f"#/allOf/{index}"}}})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"properties": {"child": {"$ref": "#"}}},
        {"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}},
    ],
)
def test_a_schema_that_leads_back_to_itself_is_refused(schema: dict[str, Any]) -> None:
    assert "leads back" in messages(schema)[0]


def test_a_schema_that_doubles_at_every_level_is_refused() -> None:
    defs: dict[str, Any] = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}
    assert "subschemas" in messages({"$defs": {**defs, "a40": {}}, "$ref": "#/$defs/a0"})[0]


def test_a_slow_pattern_is_matched_in_linear_time() -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    assert messages(schema) == []
    assert not compile_schema(schema).is_valid("a" * 50_000 + "b")


@pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "(((a{1000}){1000}){1000})", "("])
def test_a_pattern_that_is_not_linear_is_refused(pattern: str) -> None:
    assert messages({"properties": {"a": {"pattern": pattern}}})


@pytest.mark.parametrize("keyword", ["$id", "$anchor", "$dynamicRef"])
def test_words_that_rename_references_are_refused(keyword: str) -> None:
    assert f"`{keyword}`" in messages({"properties": {"a": {keyword: "x"}}})[0]


def test_another_draft_is_refused() -> None:
    assert messages({"$schema": "http://json-schema.org/draft-04/schema#"})


def test_every_fault_of_the_meta_schema_is_told() -> None:
    assert len(messages({"properties": {"a": {"type": "strin"}, "b": {"minLength": "x"}}})) == 2


@pytest.mark.parametrize(
    ("schema", "path", "hint"),
    [
        ({"name": {"type": "string"}}, ("name",), "under `properties`"),
        ({"properties": {"n": {"typ": "integer"}}}, ("properties", "n", "typ"), "did you mean `type`?"),
        ({"properties": {"n": {"widget": 1}}}, ("properties", "n", "widget"), "`x-`"),
    ],
)
def test_a_keyword_that_json_schema_would_ignore_is_told(
    schema: dict[str, Any], path: tuple[str, ...], hint: str
) -> None:
    (fault,) = check_user_schema(schema)
    assert fault.path == path
    assert hint in fault.hint


def test_names_of_fields_and_keywords_of_ones_own_are_free() -> None:
    schema = {
        "x-order": 1,
        "properties": {"typ": {"type": "string", "const": {"any": "thing"}, "x-widget": "area"}},
    }
    assert check_user_schema(schema) == []
