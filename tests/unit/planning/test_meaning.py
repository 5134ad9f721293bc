"""What is no change: the same meaning in other words. And what a plan must not miss or make up."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check
from engine.planning.planner import FileChange, make_plan, plan_definition
from engine.planning.plans import Plan
from engine.planning.reports import as_markdown, as_text
from tests.unit.planning.edits import RELEASE

SAME = {
    "a comment": ("name: release\n", "# about\nname: release # here\n"),
    "quotes": ("name: release\n", 'name: "release"\n'),
    "flow and block": ("required: [service]\n", "required:\n    - service\n"),
    "the order of keys": (
        "description: Build and roll out\nsecrets: [DEPLOY_TOKEN]\n",
        "secrets: [DEPLOY_TOKEN]\ndescription: Build and roll out\n",
    ),
    "a duration in other units": ("timeout: 24h", "timeout: PT24H"),
    "a deadline in other units": ("deadline: 48h", "deadline: 2880m"),
    "a default written out": ("  - id: build\n", "  - id: build\n    type: activity\n    run_on: success\n"),
    "the default limit of an attempt": ("  - id: probe\n", "  - id: probe\n    timeout: 300s\n"),
    "blanks in an expression": (
        '"${{ inputs.size == \'l\' }}"', '"${{inputs.size   ==\'l\'}}"',
    ),
    "the order of dependencies": ("depends_on: [build, probe]", "depends_on: [probe, build]"),
    "a whole number as a decimal": ("limit: 1}", "limit: 1.0}"),
}  # fmt: skip


def changes(old: str, new: str) -> list[tuple[str, str, object, object]]:
    found = plan_definition("release", "w/release.yaml", old.encode(), new.encode())
    return [(c.code, c.path, c.old, c.new) for c in found.changes] if found else []


@pytest.mark.parametrize("what", SAME)
def test_the_same_in_other_words_is_no_change(what: str) -> None:
    old, new = SAME[what]
    assert old in RELEASE
    assert changes(RELEASE, RELEASE.replace(old, new)) == []


def test_the_definition_that_is_edited_is_a_valid_one() -> None:
    assert check(RELEASE.encode(), "release.yaml", ActivityTypes.default()).problems == []


def test_tasks_in_another_order_are_no_change() -> None:
    old = "name: n\ntasks:\n  - {id: a, type: set, values: {x: 1}}\n  - {id: b, type: set, values: {x: 2}}\n"
    new = "name: n\ntasks:\n  - {id: b, type: set, values: {x: 2}}\n  - {id: a, type: set, values: {x: 1}}\n"
    assert changes(old, new) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'a b'", "'a  b'"),
        ("'it' + ' is'", "'it' + 'is'"),
        ('"x // y"', '"x //y"'),
        ("inputs.a in inputs.b", "inputs.ain.inputs.b"),
    ],
)
def test_blanks_inside_of_a_text_are_a_change(old: str, new: str) -> None:
    text = "name: n\ntasks:\n  - id: a\n    type: set\n    values:\n      x: |\n        ${{{{ {} }}}}\n"
    assert changes(text.format(old), text.format(new))


def test_defaults_that_nobody_takes_are_no_change() -> None:
    old = "name: n\ntasks: [{id: a, type: wait, duration: 1s}]\n"
    assert changes(old, "defaults: {timeout: 1m, retry: {max_attempts: 2}}\n" + old) == []


def test_a_retry_that_moves_to_defaults_is_no_change() -> None:
    task = "{id: a, activity_type: http_request, config: {url: 'https://x.example.test/', method: POST}"
    old = f"name: n\ntasks: [{task}, retry: {{max_attempts: 4}}}}]\n"
    new = f"name: n\ndefaults: {{retry: {{max_attempts: 4}}}}\ntasks: [{task}}}]\n"
    assert changes(old, new) == []


def test_an_input_with_a_default_may_be_required() -> None:
    old = "name: n\ninputs: {type: object, properties: {a: {type: string, default: x}}}\ntasks: [{id: a, type: wait, duration: 1s}]\n"
    new = old.replace("properties", "required: [a], properties")
    assert [code for code, *_ in changes(old, new)] == ["INPUT_CHANGED"]


def test_a_version_is_a_label_as_written() -> None:
    old = "name: n\nversion: 1.1\ntasks: [{id: a, type: wait, duration: 1s}]\n"
    assert changes(old, old.replace("1.1", "1.10")) == [("TEXT_CHANGED", "version", 1.1, 1.1)]
    assert changes(old, old.replace("1.1", '"1.1"')) == []


def test_a_list_of_tasks_that_is_none_is_no_crash() -> None:
    assert changes("name: n\ntasks: 7\n", "name: n\ntasks: [1, {id: 5}, {depends_on: 3}]\nfinally: {}\n")


def test_a_ring_of_dependencies_ends() -> None:
    ring = "name: n\ntasks:\n  - {id: a, depends_on: [b], type: wait}\n  - {id: b, depends_on: [a], type: wait}\n"
    assert changes(ring, ring.replace("type: wait", "type: set"))


def test_a_chain_of_three_thousand_tasks_is_walked() -> None:
    tasks = "".join(
        f"  - {{id: t{n}, type: set, values: {{x: 1}}, depends_on: [t{n - 1}]}}\n" for n in range(1, 3000)
    )
    old = "name: n\ntasks:\n  - {id: t0, type: set, values: {x: 1}}\n" + tasks
    assert [path for _, path, *_ in changes(old, old.replace("x: 1", "x: 2", 1))] == ["tasks.t0.values.x"]


def made(*files: FileChange, names: dict[tuple[str, str], str] | None = None) -> Plan:
    return make_plan("base", "head", files, types=ActivityTypes.default(), names=names)


ONE = b"name: one\ntasks: [{id: a, type: set, values: {x: 1}}]\n"


def test_a_name_that_stands_in_an_unchanged_file_is_a_problem() -> None:
    plan = made(FileChange("w/new.yaml", None, ONE), names={("", "one"): "w/one.yaml"})
    assert [str(problem) for problem in plan.problems] == [
        "w/new.yaml:1:7: DUPLICATE_NAME the workflow `one` stands already in w/one.yaml (names are unique in a source)"
    ]


def test_an_invalid_base_does_not_hide_what_is_new() -> None:
    plan = made(FileChange("w/one.yaml", b"name: [", ONE))
    assert [(each.name, each.change) for each in plan.definitions] == [("one", "added")]


def test_an_invalid_head_retires_nothing() -> None:
    plan = made(FileChange("w/one.yaml", ONE, b"name: ["))
    assert [(each.name, each.change) for each in plan.definitions] == [("one", "invalid")]


def test_what_a_file_says_does_not_steer_the_terminal() -> None:
    plan = made(FileChange("w/one.yaml", ONE, ONE.replace(b"x: 1", b'x: "\\e[2J\\u202e"')))
    assert "\x1b" not in as_text(plan)
    assert "\u202e" not in as_text(plan)


@pytest.mark.parametrize("value", ["`a` ``b`` @team", "| b |", "<script>", "[x](http://y)", "]]>", "``"])
def test_what_a_file_says_is_no_markdown(value: str) -> None:
    new = ONE.replace(b"x: 1", f"x: '{value}'".encode())
    told = as_markdown(made(FileChange("w/one.yaml", ONE, new)))
    row = next(line for line in told.splitlines() if "CONFIG_CHANGED" in line)
    assert len([bar for at, bar in enumerate(row) if bar == "|" and row[at - 1] != "\\"]) == 5
    fence = "`" * (max(map(len, re.findall("`+", value)), default=0) + 1)
    assert value.replace("|", "\\|") in row
    assert f"→ {fence}" in row


def test_a_comment_fits_into_a_forge() -> None:
    files = [FileChange(f"w/{n}.yaml", None, ONE.replace(b"one", f"w{n}".encode())) for n in range(2000)]
    told = as_markdown(made(*files))
    assert len(told) < 61_000
    assert re.search(r"\n…and (more of `w\d+` and )?\d+ more definitions did not fit here: ", told)


def test_of_a_definition_that_is_too_long_the_worst_is_told() -> None:
    values = "".join(f"      k{n}: {'x' * 90}\n" for n in range(1000))
    old = f"name: one\ntasks:\n  - id: a\n    type: set\n    values:\n{values}"
    new = old.replace("xx\n", "xy\n").replace("name: one\n", "name: one\nsecrets: [NEW]\n")
    told = as_markdown(made(FileChange("w/one.yaml", old.encode(), new.encode())))
    assert len(told) < 61_000
    assert "SECRET_ADDED" in told
    assert told.endswith("\n…and more of `one` did not fit here: run `pinflow plan` for all of it.\n")


def test_a_head_with_more_problems_than_fit_is_told_as_far_as_there_is_room() -> None:
    wrong = "name: one\ntasks:\n" + "".join(f"  - {{id: t{n}, type: {'x' * 100}}}\n" for n in range(1000))
    plan = made(FileChange("w/one.yaml", ONE, wrong.encode()))
    told = as_markdown(replace(plan, problems=plan.problems * 20))
    assert len(told) < 61_000
    assert re.search(r"\n…and \d+ more problems did not fit here: ", told)


def test_backslashes_are_shown_as_they_are() -> None:
    told = as_markdown(made(FileChange("w/one.yaml", ONE, ONE.replace(b"x: 1", rb"x: '\d+ \| |'"))))
    assert r"`\d+ \\\| \|`" in told
