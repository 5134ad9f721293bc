"""What authors read: the words of problems and hints."""

from __future__ import annotations

import pytest

from engine.dsl import codes
from engine.dsl.activity_types import ActivityTypes
from engine.dsl.checking import check

TYPES = ActivityTypes.default()
TASK = "{id: a, type: set, values: {x: 1}}"


def problems(text: str) -> list[str]:
    return [str(problem) for problem in check(text.encode(), "f.yaml", TYPES).problems]


def one(text: str) -> str:
    (problem,) = problems(text)
    return problem


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("needs: []", "did you mean `depends_on`?"),
        ("depends: []", "did you mean `depends_on`?"),
        ("dependson: []", "did you mean `depends_on`?"),
        ("if: true", "did you mean `when`?"),
        ("run_if: true", "did you mean `when`?"),
        ("foreach: []", "did you mean `type: map` with `items`?"),
        ("with_items: []", "did you mean `type: map` with `items`?"),
        ("on_error: []", "`on_failure` stands at the top of the workflow"),
        ("uses: x", "did you mean `activity_type`?"),
        ("timeot: 5s", "did you mean `timeout`?"),
    ],
)
def test_a_neighbours_word_gets_ours(key: str, hint: str) -> None:
    text = (
        "name: w\ntasks:\n  - id: a\n    activity_type: http_request\n    config: {url: 'https://x.test'}\n    "
        + key
    )
    assert hint in one(text)


@pytest.mark.parametrize(
    ("key", "hint"), [("steps", "`tasks`"), ("jobs", "`tasks`"), ("vars", "`env`"), ("on", "`triggers`")]
)
def test_a_neighbours_word_at_the_top_gets_ours(key: str, hint: str) -> None:
    found = problems(f"name: w\n{key}: []\ntasks: [{TASK}]\n")
    if key == "on":  # a word of ours that is not built yet is no help
        assert "unknown key `on`" in found[0]
    else:
        assert f"did you mean {hint}?" in found[0]


def test_a_dash_in_an_id_is_told_as_the_minus_that_it_would_be() -> None:
    assert "a dash would be a minus in expressions: `my_task`" in one(
        "name: w\ntasks: [{id: my-task, type: set, values: {}}]"
    )


def test_a_cycle_is_shown() -> None:
    text = "name: w\ntasks:\n" + "".join(
        f"  - {{id: {a}, depends_on: [{b}], type: set, values: {{}}}}\n" for a, b in ("ac", "ba", "cb")
    )
    assert "a -> c -> b -> a" in one(text)


def test_all_problems_of_a_file_come_together_and_in_order() -> None:
    found = check(
        b"nme: w\ntasks:\n  - {id: a, type: wait, duration: soon}\n  - {id: a, type: set}\n", "f.yaml", TYPES
    )
    assert [p.line for p in found.problems] == sorted(p.line for p in found.problems)
    assert {p.code for p in found.problems} == {
        codes.UNKNOWN_KEY,
        codes.MISSING_KEY,
        codes.DURATION,
        codes.DUPLICATE_ID,
    }


def test_a_message_is_one_short_line_whatever_the_file_says() -> None:
    long = "x" * 10_000
    text = f'name: w\ntasks:\n  - {{id: a, type: set, values: {{}}, depends_on: ["{long}\\n\\e[31m"], "{long}\\u202e": 1}}\n'
    for line in problems(text):
        assert len(line) < 400
        assert line.isprintable()


def test_an_expression_problem_names_its_very_column() -> None:
    text = 'name: w\ntasks:\n  - id: a\n    type: set\n    values: {x: "total: ${{ 1 + inputs.amout }}"}\n'
    assert one(text).startswith("f.yaml:5:40: EXPRESSION unknown name 'inputs.amout'")


def test_an_expression_in_a_block_scalar_names_its_line() -> None:
    text = "name: w\ntasks:\n  - id: a\n    type: set\n    values:\n      x: |\n        one\n        two ${{ env.nope }}\n"
    assert one(text).startswith("f.yaml:8:21: EXPRESSION")


def test_the_same_fault_is_told_once() -> None:
    text = "name: w\ndefaults: {retry: {when: '${{ nope }}'}}\ntasks:\n" + "".join(
        f"  - {{id: t{i}, activity_type: python_function, config: {{function: 'm:f'}}}}\n" for i in range(3)
    )
    assert one(text).startswith("f.yaml:2:31: EXPRESSION")


def test_an_activity_type_that_cannot_be_loaded_is_a_problem_of_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from engine.dsl import activity_types
    from engine.errors import Misconfigured

    def broken(name: str) -> None:
        raise Misconfigured(f"activity type `{name}` cannot be loaded", hint="repair it")

    monkeypatch.setattr(activity_types, "_from_entry_point", broken)
    text = b"name: w\ntasks: [{id: a, activity_type: acme.broken}]\n"
    (problem,) = check(text, "f.yaml", ActivityTypes.default()).problems
    assert (problem.code, problem.line) == (codes.UNKNOWN_ACTIVITY_TYPE, 2)
    assert "cannot be loaded" in problem.message
