"""Whatever the bytes: problems or a compiled definition, never another exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.structure import workflow_schema

TYPES = ActivityTypes.default()
SEEDS = [file.read_bytes() for file in sorted((Path(__file__).parents[2] / "corpus").rglob("*.yaml"))]
KEYS = sorted(
    {
        *workflow_schema()["properties"],
        *(key for found in workflow_schema()["$defs"].values() for key in found.get("properties", ())),
    }
)
TEXTS = st.sampled_from(
    ["a", "b", "a-b", "5s", "http_request", "human_approval", "set", "wait", "failure", "${{ tasks.a.outputs.x }}",
     "${{ result }}", "${{ 1 +", "$${{ x }}", "${{ inputs.a }} b", "object", "", "\u202e", "#/$defs/a", "map", "loop",
     "group", "workflow", "signal", "end", "schedule", "webhook", "0 6 * * *", "10%", "same", "${{ secrets.a }}", "x ${{ secrets.b }}",
     "${{ item }}", "${{ state.a }}", "${{ tasks.a.callback_url }}", "${{ tasks.b.failures }}", "${{ trigger.body }}"]
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | TEXTS, inner, max_size=4)
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(workflow_schema()["$defs"]["AnyTask"]["properties"]["type"]["enum"])
TOP = sorted(set(workflow_schema()["properties"]) - {"name", "tasks"})


def a_task(name: str, rest: dict[str, Any]) -> dict[str, Any]:
    return {**rest, "id": name}


def a_definition(name: str, tasks: list[Any], rest: dict[str, Any]) -> dict[str, Any]:
    return {**rest, "name": name, "tasks": tasks}


LEAF = st.builds(a_task, TEXTS, st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))
TASK = st.recursive(
    LEAF,
    lambda inner: st.fixed_dictionaries(
        {"id": TEXTS, "type": KINDS, "tasks": st.lists(inner, max_size=3)},
        optional={
            "items": JSON, "as": TEXTS, "state": JSON, "next": JSON, "until": JSON, "max_iterations": st.integers(0, 3),
            "results": JSON, "outputs": JSON, "when": TEXTS, "depends_on": st.lists(TEXTS, max_size=2),
        },
    ),
    max_leaves=6,
)  # fmt: skip
DEFINITION = st.builds(
    a_definition, TEXTS, st.lists(TASK, max_size=4), st.dictionaries(st.sampled_from(TOP), JSON, max_size=6)
)


def survives(text: bytes) -> None:
    checked = check(text, "f.yaml", TYPES)
    assert (checked.compiled is None) is bool(checked.problems)
    lines = text.count(b"\n") + text.count(b"\r") + text.count(b"\xc2\x85") + text.count(b"\xe2\x80") + 2
    for problem in checked.problems:
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert str(problem).isprintable()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(text: bytes) -> None:
    survives(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-?[]{}&*!|>'\"#%@`,~ \t\n\r\\$0.<"), max_size=60))
def test_any_punctuation(text: str) -> None:
    survives(text.encode())


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_any_mutation_of_the_corpus(seed: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(seed)))
    gone = data.draw(st.integers(0, 20))
    put = data.draw(
        st.binary(max_size=6) | st.sampled_from([b"${{", b"}}", b"\n- ", b": ", b"null", b"[", b"{}"])
    )
    survives(seed[:at] + put + seed[at + gone :])


# Such trees are slow to make smaller: what fails is shown as it was found.
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(DEFINITION)
def test_any_data_in_the_shape_of_a_definition(definition: dict[str, Any]) -> None:
    survives(yaml.safe_dump(definition, allow_unicode=True).encode("utf-8", "surrogatepass"))
