"""Pictures of definitions: every task once, edges to the right, everything escaped, the same each time."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.dsl.graph import STATUSES, mermaid, svg
from engine.dsl.graph_layout import ROW_GAP, layout

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>\"' & ]]> \x00\x0b\ufffe <!-- %% \n click t_a"

DEFINITION: dict[str, Any] = {
    "name": "release",
    "tasks": [
        {"id": "build", "name": "Build image", "activity_type": "http_request", "retry": {"max_attempts": 5}},
        {
            "id": "test",
            "activity_type": "python_function",
            "depends_on": ["build"],
            "continue_on_failure": True,
        },
        {
            "id": "gate",
            "activity_type": "human_approval",
            "depends_on": ["test"],
            "when": "${{ inputs.ask }}",
        },
        {"id": "page", "type": "set", "depends_on": ["gate", "build"], "run_on": "failure"},
    ],
    "on_failure": [{"id": "alert", "activity_type": "http_request"}],
    "finally": [
        {"id": "unlock", "activity_type": "http_request"},
        {"id": "end", "type": "wait", "depends_on": ["unlock"]},
    ],
}
IDS = ["build", "test", "gate", "page", "alert", "unlock", "end"]


def texts(picture: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(picture).iter(f"{SVG}text")]


def test_every_task_is_drawn_once_with_its_name_and_type() -> None:
    picture = svg(DEFINITION)
    groups = [g.get("id") for g in ET.fromstring(picture).iter(f"{SVG}g")]
    assert groups == [f"task-{i}" for i in IDS]
    assert {"Build image", "build · http_request", "human_approval", "set"} <= set(texts(picture))


def test_clusters_conditions_and_outcomes_are_said_in_words() -> None:
    said = texts(svg(DEFINITION))
    assert {"when", "on failure", "5 attempts", "may fail"} <= set(said)
    assert [t for t in said if t.startswith(("on_failure", "finally"))] == [
        "on_failure: if the run failed or timed out",
        "finally: at the end, always",
    ]
    titles = "".join(e.text or "" for e in ET.fromstring(svg(DEFINITION)).iter(f"{SVG}title"))
    assert "when: inputs.ask" in titles


def test_a_condition_of_the_compiled_form_is_shown_as_it_was_written() -> None:
    compiled = {"name": "x", "tasks": [{"id": "a", "when": {"$expr": 0}}], "exprs": [{"src": "inputs.ask"}]}
    assert "when: inputs.ask" in svg(compiled)


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_is_a_word_and_not_only_a_colour(status: str) -> None:
    assert any(t.endswith(f" {status}") for t in texts(svg(DEFINITION, {"build": status})))
    assert f"<br/>{status}" in mermaid(DEFINITION, {"build": status})
    assert f"class t_build {status}" in mermaid(DEFINITION, {"build": status}) or status == "PENDING"


def test_text_is_escaped_everywhere() -> None:
    hostile = {
        "name": HOSTILE,
        "tasks": [{"id": "a", "name": HOSTILE, "activity_type": HOSTILE, "when": "${{ '" + HOSTILE + "' }}"}],
    }
    tree = ET.fromstring(svg(hostile, {"a": HOSTILE}))
    assert not list(tree.iter("script"))
    assert not list(tree.iter(f"{SVG}script"))
    assert "alert(1)" in "".join(tree.itertext())
    lines = mermaid(hostile).splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r'  t_a\["[^"<>]*(<br/>[^"<>]*)*"\]', lines[1])


def test_mermaid_has_every_task_and_edge() -> None:
    assert mermaid(DEFINITION).splitlines() == [
        "flowchart LR",
        '  t_build["Build image<br/>build · http#95;request · 5 attempts"]'.replace("#95;", "_"),
        '  t_test["test<br/>python_function · may fail"]',
        '  t_gate["gate<br/>human_approval · when"]',
        '  t_page["page<br/>set"]',
        "  t_build --> t_test",
        "  t_test --> t_gate",
        "  t_gate -. failure .-> t_page",
        "  t_build -. failure .-> t_page",
        '  subgraph on_failure_cluster["on_failure: if the run failed or timed out"]',
        '    t_alert["alert<br/>http_request"]',
        "  end",
        '  subgraph finally_cluster["finally: at the end, always"]',
        '    t_unlock["unlock<br/>http_request"]',
        '    t_end["end<br/>wait"]',
        "    t_unlock --> t_end",
        "  end",
    ]


def test_a_page_may_bring_its_own_style() -> None:
    assert "<style>" in svg(DEFINITION)
    assert "<style>" not in svg(DEFINITION, style=False)


def test_what_is_no_task_list_draws_nothing() -> None:
    assert list(ET.fromstring(svg({"name": "x", "tasks": None})).iter(f"{SVG}g")) == []
    assert mermaid({}) == "flowchart LR\n"


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, tuple[float, float]], list[tuple[str, str]]]:
    count = draw(st.integers(0, 25))
    names = [f"n{i}" for i in range(count)]
    sizes = {n: (draw(st.floats(20, 300)), draw(st.floats(20, 80))) for n in names}
    pairs = list(itertools.combinations(names, 2))
    return sizes, draw(st.lists(st.sampled_from(pairs), max_size=60)) if pairs else []


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_boxes_never_overlap_and_edges_go_right(
    graph: tuple[dict[str, tuple[float, float]], list[tuple[str, str]]],
) -> None:
    sizes, edges = graph
    drawn = layout(sizes, edges)
    assert drawn == layout(sizes, edges)
    assert set(drawn.boxes) == set(sizes)
    for a, b in edges:
        assert drawn.boxes[a].x + drawn.boxes[a].width < drawn.boxes[b].x
        xs = [x for x, _ in drawn.routes[a, b]]
        assert xs == sorted(xs)
    for one, two in itertools.combinations(drawn.boxes.values(), 2):
        apart = one.x + one.width <= two.x or two.x + two.width <= one.x
        assert (
            apart
            or one.y + one.height + ROW_GAP <= two.y + 0.01
            or two.y + two.height + ROW_GAP <= one.y + 0.01
        )
    for box in drawn.boxes.values():
        assert box.x >= 0
        assert box.y >= -0.01
        assert box.x + box.width <= drawn.width + 0.01
        assert box.y + box.height <= drawn.height + 0.01


def test_a_cycle_is_drawn_and_ends() -> None:
    assert set(
        layout({"a": (1, 1), "b": (1, 1)}, [("a", "b"), ("b", "a"), ("a", "a"), ("a", "ghost")]).boxes
    ) == {"a", "b"}


def test_a_graph_with_very_many_long_edges_is_still_drawn() -> None:
    tasks = [{"id": f"t{i}", "depends_on": [f"t{j}" for j in range(max(0, i - 40), i)]} for i in range(400)]
    assert svg({"name": "x", "tasks": tasks}).count("<g ") == 400


NESTED: dict[str, Any] = {
    "name": "nested",
    "triggers": [
        {"id": "nightly", "type": "schedule", "cron": "0 3 * * *", "timezone": "Europe/Rome"},
        {"id": "pushed", "type": "webhook", "secret": "S", "when": "${{ trigger.body.ok }}"},
    ],
    "tasks": [
        {
            "id": "rollout",
            "type": "map",
            "items": "${{ inputs.regions }}",
            "as": "region",
            "max_concurrency": 5,
            "tolerated_failures": "10%",
            "tasks": [
                {"id": "deploy", "activity_type": "http_request", "compensate": {"activity_type": "http_request"}},
                {"id": "wave", "type": "group", "depends_on": ["deploy"], "tasks": [{"id": "leaf", "type": "set"}]},
            ],
        },
        {"id": "poll", "type": "loop", "depends_on": ["rollout"], "until": "${{ state.ok }}", "max_iterations": 20,
         "tasks": [{"id": "probe", "activity_type": "http_request", "cache": {"key": "x"}}]},
        {"id": "smoke", "type": "workflow", "depends_on": ["poll"], "workflow": "smoke-tests", "ref": "latest"},
        {"id": "go", "type": "signal", "depends_on": ["smoke"], "signal": "freeze-lifted"},
        {"id": "stop", "type": "end", "depends_on": ["go"], "status": "FAILED"},
    ],
}  # fmt: skip
PATHS = [
    "rollout",
    "rollout.deploy",
    "rollout.wave",
    "rollout.wave.leaf",
    "poll",
    "poll.probe",
    "smoke",
    "go",
    "stop",
]


def rectangle(group: ET.Element) -> tuple[float, float, float, float]:
    rect = group.find(f"{SVG}rect")
    assert rect is not None
    x, y, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def test_tasks_stand_inside_of_the_task_that_holds_them() -> None:
    groups = {g.get("id", ""): g for g in ET.fromstring(svg(NESTED)).iter(f"{SVG}g")}
    assert [name for name in groups if name.startswith("task-")] == [f"task-{path}" for path in PATHS]
    for path in PATHS:
        around, _, _ = path.rpartition(".")
        if around:
            inner, outer = rectangle(groups[f"task-{path}"]), rectangle(groups[f"task-{around}"])
            assert all(rim < inside for rim, inside in zip(outer[:2], inner[:2], strict=True))
            assert all(inside < rim for inside, rim in zip(inner[2:], outer[2:], strict=True))


def test_every_kind_is_said_in_words() -> None:
    said = texts(svg(NESTED))
    assert {
        "workflow smoke-tests",
        "signal freeze-lifted",
        "end: FAILED",
        "map",
        "loop",
        "group",
        "schedule",
    } <= set(said)
    assert {"each region", "5 at once", "10% may fail", "until", "20 times at most", "at latest"} <= set(said)
    assert {"undone", "cached", "0 3 * * * Europe/Rome", "when"} <= set(said)


def test_mermaid_nests_as_the_definition_does() -> None:
    lines = [line.strip() for line in mermaid(NESTED).splitlines()]
    assert lines.count("end") == 4
    inside = lines[lines.index(next(x for x in lines if x.startswith("subgraph t_rollout["))) :]
    assert inside.index("t_rollout__deploy --> t_rollout__wave") < inside.index("t_rollout --> t_poll")
    assert 't_smoke[["smoke<br/>workflow smoke-tests · at latest"]]' in lines


def test_paths_that_would_be_called_alike_have_names_of_their_own() -> None:
    twins = {
        "tasks": [
            {"id": "a", "type": "group", "tasks": [{"id": "b__c", "type": "set"}]},
            {"id": "a__b", "type": "group", "tasks": [{"id": "c", "type": "set"}]},
        ]
    }
    assert "t_a__b__c[" in mermaid(twins)
    assert "t_a__b__c_2[" in mermaid(twins)


def test_the_compiled_form_gives_the_same_picture_as_the_definition() -> None:
    text = (Path(__file__).parents[2] / "corpus" / "good" / "everything.yaml").read_bytes()
    checked = check(text, "everything.yaml", ActivityTypes.default())
    assert checked.definition is not None
    assert checked.compiled is not None
    drawn = texts(svg(checked.definition))
    # `defaults` are written out in the compiled form, so only the badges of attempts differ.
    assert [t for t in texts(svg(checked.compiled)) if not t.endswith(" attempts")] == drawn


def test_states_of_tasks_inside_are_shown_by_their_path() -> None:
    assert "class t_rollout__deploy FAILED" in mermaid(NESTED, {"rollout.deploy": "FAILED"})
