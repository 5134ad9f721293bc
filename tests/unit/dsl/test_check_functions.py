"""Calls of functions that are not there are told with their place; what syntax cannot tell is not judged."""

from __future__ import annotations

import pytest

from engine.dsl.activity_types import ActivityTypes
from engine.dsl.check_functions import (
    Functions,
    allowed_packages,
    check_functions,
    functions_called,
    names_of,
)
from engine.dsl.checking import check
from engine.errors import Misconfigured

FILES = {
    "deploys.py": b"import os as system\ndef apply(): ...\nif True:\n    undo = apply\n",
    "tools/__init__.py": b"",
    "tools/inner.py": b"class Maker: ...\n",
    "loose.py": b"def __getattr__(name): ...\n",
    "star.py": b"from deploys import *\n",
    "broken.py": b"def f(:\n",
}

FUNCTIONS = Functions(frozenset(FILES), lambda path: names_of(FILES[path]), frozenset({"pandas"}))


def told(called: str) -> list[str]:
    text = f"name: a\ntasks:\n  - id: f\n    activity_type: python_function\n    config: {{function: '{called}'}}\n"
    return found(text)


def found(text: str) -> list[str]:
    compiled = check(text.encode(), "a.yaml", ActivityTypes.default()).compiled
    assert compiled is not None
    return [str(each) for each in check_functions(compiled, text.encode(), "a.yaml", FUNCTIONS)]


@pytest.mark.parametrize(
    "called",
    [
        "deploys:apply",
        "deploys:undo",
        "deploys:system",
        "tools.inner:Maker",
        "loose:x",
        "star:x",
        "broken:f",
        "pandas:x",
    ],
)
def test_what_is_there_or_cannot_be_told_is_no_problem(called: str) -> None:
    assert told(called) == []


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ("deploys:aply", "module `deploys` has no function `aply`"),
        ("tools.outer:f", "there is no module `tools.outer` in `functions/`"),
        ("deploy:apply", "there is no module `deploy` in `functions/` (did you mean `deploys`?)"),
        ("numpy:x", "(PINFLOW_FUNCTION_PACKAGES names installed packages that may be called)"),
    ],
)
def test_what_is_not_there_is_told_with_its_place(called: str, words: str) -> None:
    (problem,) = told(called)
    assert problem.startswith("a.yaml:5:")
    assert words in problem


def test_calls_inside_of_tasks_and_compensations_are_looked_at() -> None:
    problems = found(
        "name: a\ntasks:\n  - id: g\n    type: group\n    tasks:\n      - id: f\n"
        "        activity_type: python_function\n        config: {function: 'deploys:no'}\n"
        "        compensate: {activity_type: python_function, config: {function: 'deploys:never'}}\n"
    )
    assert [each.partition("has")[2].split()[2] for each in problems] == ["`no`", "`never`"]
    assert [each.split(":")[1] for each in problems] == ["8", "9"]


def test_the_functions_of_a_definition_are_listed_once_at_any_depth() -> None:
    call = "{id: %s, activity_type: python_function, config: {function: '%s'}}"
    text = f"name: a\ntasks:\n  - {call % ('x', 'm:f')}\n  - {{id: g, type: group, tasks: [{call % ('y', 'm:g')}, {call % ('z', 'm:f')}]}}\n"
    compiled = check(text.encode(), "a.yaml", ActivityTypes.default()).compiled
    assert compiled is not None
    assert functions_called(compiled) == ["m:f", "m:g"]


def test_a_module_that_is_too_large_or_too_deep_is_not_judged() -> None:
    assert names_of(b"x = 1\n" * 200_000) is None
    assert names_of(b"x = " + b"(" * 10_000) is None


def test_allowed_packages_are_a_list_of_names() -> None:
    assert allowed_packages({}) == allowed_packages({"PINFLOW_FUNCTION_PACKAGES": ""}) == frozenset()
    assert allowed_packages({"PINFLOW_FUNCTION_PACKAGES": '["acme"]'}) == {"acme"}
    for wrong in ('"acme"', "acme", "[1]"):
        with pytest.raises(Misconfigured, match="PINFLOW_FUNCTION_PACKAGES is no list of names"):
            allowed_packages({"PINFLOW_FUNCTION_PACKAGES": wrong})
