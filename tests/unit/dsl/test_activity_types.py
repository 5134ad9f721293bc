"""Activity types of others: found by entry point, their configs checked, their faults told."""

from __future__ import annotations

from typing import Any

from engine.dsl import codes
from engine.dsl.activity_types import ActivityTypeInfo, ActivityTypes, builtin_types
from engine.dsl.checking import check
from engine.dsl.opening import opened

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["target"],
    "additionalProperties": False,
    "properties": {
        "target": {"type": "string", "enum": ["eu", "us"]},
        "count": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    },
    "$defs": {
        "Tag": {
            "type": "object",
            "properties": {"key": {"type": "string", "minLength": 2}},
            "required": ["key"],
        }
    },
}
RESULT = {"type": "object", "properties": {"version": {"type": "string"}}, "required": ["version"]}


def types(schema: dict[str, Any] = SCHEMA) -> ActivityTypes:
    own = ActivityTypeInfo("acme.deploy", schema, RESULT, ("NO_TARGET",))
    return ActivityTypes([*builtin_types(), own], entry_points=False)


def problems(
    config: str, rest: str = "", known: ActivityTypes | None = None
) -> list[tuple[int, int, str, str]]:
    text = f"name: w\ntasks:\n  - {{id: a, activity_type: acme.deploy, config: {config}}}\n{rest}"
    found = check(text.encode(), "f.yaml", known or types()).problems
    return [(p.line, p.column, p.code, p.message) for p in found]


def test_a_config_that_fits_is_no_problem() -> None:
    assert problems("{target: eu, count: 3, tags: [{key: ab}], note: x}") == []


def test_an_expression_may_stand_for_any_value() -> None:
    assert (
        problems("{target: '${{ run.id }}', count: '${{ 1 }}', tags: '${{ [] }}', note: 'n ${{ run.id }}'}")
        == []
    )
    assert problems("{target: eu, tags: ['${{ {} }}', {key: '${{ run.id }}'}]}") == []


def test_faults_of_a_config_are_located_one_by_one() -> None:
    found = problems("{target: asia, count: 0, tags: [{key: a}, 1], extra: 1}")
    assert [(line, code) for line, _, code, _ in found] == [(3, codes.CONFIG)] * 5
    assert [column for _, column, _, _ in found] == sorted({column for _, column, _, _ in found})


def test_an_unknown_key_of_a_config_is_refused_even_with_an_expression_as_its_value() -> None:
    ((_, _, code, message),) = problems("{target: eu, extra: '${{ run.id }}'}")
    assert (code, message) == (codes.CONFIG, "unknown key `extra`")


def test_a_missing_config_is_told_as_that() -> None:
    found = check(b"name: w\ntasks: [{id: a, activity_type: acme.deploy}]\n", "f.yaml", types()).problems
    assert [(p.code, p.line, p.column) for p in found] == [(codes.MISSING_KEY, 2, 9)]


def test_the_result_s_fields_are_known_to_expressions() -> None:
    rest = "outputs: {v: '${{ tasks.a.outputs.version }}', w: '${{ tasks.a.outputs.vershun }}'}\n"
    ((_, _, code, message),) = problems("{target: eu}", rest)
    assert code == codes.EXPRESSION
    assert "vershun" in message


def test_a_config_schema_that_cannot_be_used_is_told_at_the_activity_type() -> None:
    broken = types({"type": "object", "properties": {"a": {"pattern": "(?=x)"}}})
    ((line, column, code, message),) = problems("{a: x}", known=broken)
    assert (line, column, code) == (3, 28, codes.UNKNOWN_ACTIVITY_TYPE)
    assert "acme.deploy" in message


def test_null_branches_are_dropped_so_that_messages_are_exact() -> None:
    assert opened(SCHEMA)["properties"]["note"] == {"type": "string"}


def test_defaults_reach_types_of_others_too() -> None:
    text = b"name: w\ndefaults: {timeout: 7s}\ntasks: [{id: a, activity_type: acme.deploy, config: {target: eu}}]\n"
    compiled = check(text, "f.yaml", types()).compiled
    assert compiled is not None
    assert compiled["tasks"][0]["timeout"] == 7.0
