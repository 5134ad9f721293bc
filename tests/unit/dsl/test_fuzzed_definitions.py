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
_DEFS = workflow_schema()["$defs"]
KEYS = sorted(
    {
        *workflow_schema()["properties"],
        *(k for d in ("ActivityTask", "WaitTask", "SetTask", "Retry") for k in _DEFS[d]["properties"]),
    }
)
TEXTS = st.sampled_from(
    ["a", "b", "a-b", "5s", "http_request", "human_approval", "set", "wait", "failure", "${{ tasks.a.outputs.x }}",
     "${{ result }}", "${{ 1 +", "$${{ x }}", "${{ inputs.a }} b", "object", "", "\u202e", "#/$defs/a"]
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | TEXTS, inner, max_size=4)
    ),
    max_leaves=12,
)
TASK = st.fixed_dictionaries({"id": TEXTS}, optional={key: JSON for key in KEYS if key != "id"})
DEFINITION = st.fixed_dictionaries({"name": TEXTS, "tasks": st.lists(TASK, max_size=4)}, optional={key: JSON for key in workflow_schema()["properties"] if key not in ("name", "tasks")})  # fmt: skip


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
